//! Answers STUN requests: each sender learns the address it is seen under.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use wire::stun;

use crate::counters::Tally;

/// Larger packets are no STUN requests of any kind; what is cut off fails to parse.
const MAX_REQUEST: usize = 1500;
const AFTER_ERROR: Duration = Duration::from_millis(10);

/// Serves one socket for ever.
pub(crate) async fn serve(socket: UdpSocket, tally: Arc<Tally>) {
    let mut packet = [0; MAX_REQUEST];
    loop {
        // Errors are those of earlier answers (a closed port, say) or of a short memory; the socket stays good.
        let Ok((len, from)) = socket.recv_from(&mut packet).await else {
            tokio::time::sleep(AFTER_ERROR).await;
            continue;
        };
        let Ok(transaction) = stun::parse_request(&packet[..len]) else {
            Tally::add(&tally.stun_dropped);
            continue;
        };
        // The address is told as the client's own family, whatever family the socket has.
        let seen = SocketAddr::new(from.ip().to_canonical(), from.port());
        // A full send buffer drops the answer; the client asks again.
        if socket.try_send_to(&stun::response(transaction, seen), from).is_ok() {
            Tally::add(&tally.stun_answered);
        }
    }
}
