//! What a stack is told once.

use std::net::Ipv6Addr;
use std::time::Duration;

/// Settings of a [`Stack`](crate::Stack).
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's own addresses; packets to any other are dropped. The first one is the source of outgoing traffic
    /// unless another shares a longer prefix with the destination.
    pub addresses: Vec<Ipv6Addr>,
    /// Largest IPv6 packet in bytes, 1280 to 65535.
    pub mtu: usize,
    /// Receive buffer of a connection in bytes; raised to the next size whose window a TCP header can express exactly.
    /// Pages are touched only when data reaches them.
    pub receive_buffer: usize,
    /// Send buffer of a connection in bytes. Pages are touched only when data reaches them.
    pub send_buffer: usize,
    /// How long a connection attempt may go unanswered.
    pub connect_timeout: Duration,
    /// How long data may stay unacknowledged while nothing at all is heard from the peer. Long, because a laptop that
    /// sleeps or changes networks should find its connections alive.
    pub user_timeout: Duration,
    /// Longest pause between two retransmissions, however long the outage.
    pub retransmit_limit: Duration,
    /// How long a connection is quiet before the first keepalive probe; `None` sends none. Per connection:
    /// [`Stack::set_keepalive`](crate::Stack::set_keepalive).
    pub keepalive: Option<Duration>,
    /// How long an incoming connection is held for an answer.
    pub held_timeout: Duration,
    /// How many incoming connections are held at once.
    pub held_limit: usize,
    /// How many received datagrams wait as events at once; more are dropped.
    pub datagram_limit: usize,
}

impl Config {
    /// The settings this network uses, for these addresses.
    pub fn new(addresses: Vec<Ipv6Addr>) -> Self {
        Self {
            addresses,
            mtu: 1280,
            receive_buffer: 6 << 20,
            send_buffer: 4 << 20,
            connect_timeout: Duration::from_secs(60),
            user_timeout: Duration::from_secs(15 * 60),
            retransmit_limit: Duration::from_secs(4),
            keepalive: Some(Duration::from_secs(2 * 60 * 60)),
            held_timeout: Duration::from_secs(10),
            held_limit: 1024,
            datagram_limit: 1024,
        }
    }

    /// The receive buffer's real size: the smallest `65535 << n` that is at least what was asked for.
    ///
    /// `smoltcp` takes the window field of its own SYN as scaled; with any other size a peer could send past the end of
    /// the buffer before the first scaled window replaced it.
    pub(crate) fn receive_capacity(&self) -> usize {
        let window = usize::from(u16::MAX);
        (0..=14)
            .map(|shift| window << shift)
            .find(|&size| size >= self.receive_buffer)
            .unwrap_or(window << 14)
    }
}
