//! One relay connection that is up: frames in, frames out, and whether it still lives.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use dial::Stream;
use relay::{ClientError, ClientSession, Event};
use socket2::SockRef;
use wire::keys::NodePublic;

use crate::interfaces::source_towards;
use crate::reactor::Interest;
use crate::relays::CONGESTED;

/// Receives for one readiness, so that others get their turn.
const READS: usize = 4;
/// Sending for this long without a sign of life makes the relay be asked for one …
const QUIET: Duration = Duration::from_secs(3);
/// … and without an answer for this long the connection is over.
const PATIENCE: Duration = Duration::from_secs(4);

/// A connection with a relay's greeting behind it.
pub(crate) struct Up {
    pub(crate) stream: Stream,
    pub(crate) session: ClientSession,
    /// Frames that wait for the socket, from `written` on.
    pub(crate) out: Vec<u8>,
    written: usize,
    waiting: VecDeque<(NodePublic, Vec<u8>)>,
    pub(crate) interest: Interest,
    /// First send since the last sign of life.
    unanswered: Option<Instant>,
    /// It was asked for one, and is waited for until then.
    dead_at: Option<Instant>,
}

/// What came of serving a connection.
pub(crate) enum News {
    /// A peer left the relay.
    PeerGone(NodePublic),
    /// The relay will come back after this.
    Restarting(Duration),
    /// The relay says it has a problem.
    Health(String),
}

impl Up {
    pub(crate) fn new(
        stream: Stream,
        session: ClientSession,
        waiting: VecDeque<(NodePublic, Vec<u8>)>,
        interest: Interest,
    ) -> Self {
        let out = Vec::new();
        Self { stream, session, out, written: 0, waiting, interest, unanswered: None, dead_at: None }
    }

    /// Bytes that wait for the socket.
    pub(crate) fn unsent(&self) -> usize {
        self.out.len() - self.written
    }

    /// Packets that wait for the greeting.
    pub(crate) fn waiting(&mut self) -> &mut VecDeque<(NodePublic, Vec<u8>)> {
        &mut self.waiting
    }

    /// Something was given to the relay, which may or may not have reason to answer.
    pub(crate) fn note_send(&mut self, now: Instant) {
        self.unanswered.get_or_insert(now);
    }

    /// Asks the relay for a sign of life; the connection is over if none comes.
    pub(crate) fn probe(&mut self, now: Instant) {
        if self.dead_at.is_none() && self.session.can_send() {
            self.session.ping(*b"are you?", &mut self.out);
            self.dead_at = Some(now + PATIENCE);
        }
    }

    /// Whether the connection's own address is none of this machine's any more, was not for a moment, or is not the one it would now send from: a
    /// router in between may not know the connection then.
    pub(crate) fn is_stranded(&self, addresses: &[IpAddr], removed: &[IpAddr]) -> bool {
        let socket = SockRef::from(&self.stream);
        let ends = (socket.local_addr().ok(), socket.peer_addr().ok());
        let (Some(own), Some(relay)) =
            (ends.0.and_then(|own| own.as_socket()), ends.1.and_then(|to| to.as_socket()))
        else {
            return false;
        };
        let ip = own.ip().to_canonical();
        let relay = SocketAddr::new(relay.ip().to_canonical(), relay.port());
        let moved = || source_towards(relay).is_some_and(|source| source != ip);
        !ip.is_loopback() && (!addresses.contains(&ip) || removed.contains(&ip) || moved())
    }

    pub(crate) fn next_timeout(&self) -> Instant {
        let ask = self.unanswered.filter(|_| self.dead_at.is_none()).map(|since| since + QUIET);
        let own = [ask, self.dead_at].into_iter().flatten();
        own.chain([self.session.next_timeout()]).min().unwrap_or_else(|| self.session.next_timeout())
    }

    /// # Errors
    /// One line that says why the connection is over.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), String> {
        if self.dead_at.is_some_and(|at| now >= at) {
            return Err("the relay stopped answering".into());
        }
        if self.unanswered.is_some_and(|since| now >= since + QUIET) {
            self.unanswered = Some(now);
            self.probe(now);
        }
        self.session.handle_timeout(now).map_err(|error| error.to_string())
    }

    /// Reads what came.
    ///
    /// # Errors
    /// One line that says why the connection is over.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        buffer: &mut [u8],
        packet: &mut impl FnMut(NodePublic, &mut [u8]),
        news: &mut impl FnMut(News),
    ) -> Result<(), String> {
        let mut reads = 0;
        loop {
            // What the stream itself holds must be read now: the socket does not tell of it.
            let read = if reads < READS { self.stream.read(buffer) } else { self.stream.read_held(buffer) };
            match read {
                Ok(0) => return Err("the relay closed the connection".into()),
                Ok(length) => {
                    self.unanswered = None;
                    self.dead_at = None;
                    self.feed(now, &mut buffer[..length], packet, news).map_err(|error| error.to_string())?;
                    reads = if length < buffer.len() / 2 { READS } else { reads + 1 };
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    pub(crate) fn feed(
        &mut self,
        now: Instant,
        bytes: &mut [u8],
        packet: &mut impl FnMut(NodePublic, &mut [u8]),
        news: &mut impl FnMut(News),
    ) -> Result<(), ClientError> {
        self.session.feed(now, bytes, &mut self.out, &mut |event| match event {
            Event::Packet { from, payload } => packet(from, payload),
            Event::PeerGone { peer, .. } => news(News::PeerGone(peer)),
            Event::Restarting { reconnect_in, .. } => news(News::Restarting(reconnect_in)),
            Event::Health(text) if !text.is_empty() => news(News::Health(text.to_owned())),
            Event::Health(_)
            | Event::Ready(_)
            | Event::PeerPresent { .. }
            | Event::KeepAlive
            | Event::Pong(_) => {}
        })?;
        if self.session.can_send() {
            for (to, waiting) in self.waiting.drain(..) {
                self.session.send(&to, &waiting, &mut self.out)?;
            }
        }
        Ok(())
    }

    /// Writes what the socket takes.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.written < self.out.len() {
            match self.stream.write_vectored(&[IoSlice::new(&self.out[self.written..])]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => self.written += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
            self.out.shrink_to(CONGESTED);
        } else if self.written > CONGESTED {
            self.out.drain(..self.written);
            self.written = 0;
        }
        self.stream.flush_pending()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;

    use relay::ClientOptions;
    use wire::keys::NodePrivate;

    use super::*;

    /// A connection whose relay never says a word, and that relay's end.
    fn silent() -> (Up, TcpStream, Instant) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        let now = Instant::now();
        let server_key = Some(NodePrivate::generate().public());
        let options = ClientOptions { home: true, mesh_key: None, watch: false, server_key };
        let mut session = ClientSession::new(now, NodePrivate::generate(), options);
        let mut out = Vec::new();
        session.start(&mut out);
        let stream = Stream::from_fd(OwnedFd::from(near)).unwrap();
        let mut up = Up::new(stream, session, VecDeque::new(), Interest::READ);
        up.out = out;
        (up, far, now)
    }

    #[test]
    fn a_relay_that_answers_nothing_is_asked_and_then_given_up() {
        let (mut up, _far, now) = silent();
        let asleep = up.next_timeout();
        up.note_send(now);
        assert_eq!(up.next_timeout(), now + QUIET);
        up.note_send(now + Duration::from_secs(1));
        let before = up.unsent();
        up.handle_timeout(now + QUIET).unwrap();
        assert_eq!(up.unsent(), before + 13, "a ping frame");
        assert_eq!(up.next_timeout(), now + QUIET + PATIENCE);
        assert!(up.handle_timeout(now + QUIET + PATIENCE).is_err());
        assert!(asleep > now + QUIET + PATIENCE);
    }

    #[test]
    fn anything_the_relay_says_is_a_sign_of_life() {
        let (mut up, far, now) = silent();
        up.note_send(now);
        up.handle_timeout(now + QUIET).unwrap();
        // The first half of a frame's header.
        io::Write::write_all(&mut &far, &[6, 0]).unwrap();
        let mut buffer = [0; 64];
        while up.dead_at.is_some() {
            up.receive(now + QUIET, &mut buffer, &mut |_, _| {}, &mut |_| {}).unwrap();
        }
        up.handle_timeout(now + QUIET + PATIENCE).unwrap();
    }

    #[test]
    fn a_connection_from_an_address_that_is_gone_is_stranded() {
        let (up, _far, _) = silent();
        assert!(!up.is_stranded(&[], &[]), "loopback is always there");
    }
}
