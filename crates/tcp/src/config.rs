//! What a connection is told once.

use std::time::Duration;

use crate::congestion::Congestion;

/// Settings of a [`Connection`](crate::Connection).
#[derive(Clone, Debug)]
pub struct Config {
    /// Largest payload of a segment in bytes, either way; a peer may ask for less.
    pub mss: u16,
    /// Largest receive buffer in bytes. It starts at 256 KiB and doubles while the application keeps up.
    pub receive_buffer: usize,
    /// Largest send buffer in bytes. It grows with the congestion window.
    pub send_buffer: usize,
    /// How long a handshake may go unanswered.
    pub connect_timeout: Duration,
    /// How long data may stay unacknowledged while nothing at all is heard from the peer.
    pub user_timeout: Duration,
    /// Longest pause between two retransmissions.
    pub retransmit_limit: Duration,
    /// How long a connection is quiet before the first keepalive probe; `None` sends none.
    pub keepalive: Option<Duration>,
    /// The congestion controller.
    pub congestion: Congestion,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mss: 1220,
            receive_buffer: 32 << 20,
            send_buffer: 32 << 20,
            connect_timeout: Duration::from_secs(60),
            user_timeout: Duration::from_secs(15 * 60),
            retransmit_limit: Duration::from_secs(4),
            keepalive: Some(Duration::from_secs(2 * 60 * 60)),
            congestion: Congestion::Bbr,
        }
    }
}
