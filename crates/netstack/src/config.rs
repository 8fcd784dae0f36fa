//! What a stack is told once.

use std::net::Ipv6Addr;
use std::time::Duration;

use tcp::HEADER_LEN;
use tcp::congestion::Congestion;
use wire::ip;

/// Settings of a [`Stack`](crate::Stack).
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's own addresses; packets to any other are dropped. The first one is the source of outgoing traffic
    /// unless another shares a longer prefix with the destination.
    pub addresses: Vec<Ipv6Addr>,
    /// Largest IPv6 packet in bytes, 1280 to 65535.
    pub mtu: usize,
    /// Largest receive buffer of a connection in bytes. It starts small and grows while the application keeps up; memory
    /// is held only for what waits in it.
    pub receive_buffer: usize,
    /// Largest send buffer of a connection in bytes. It grows with the congestion window; memory is held only for what
    /// waits in it.
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
    /// Who decides how much a connection has on its way, and how fast it sends.
    pub congestion: Congestion,
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
        let tcp = tcp::Config::default();
        Self {
            addresses,
            mtu: 1280,
            receive_buffer: tcp.receive_buffer,
            send_buffer: tcp.send_buffer,
            connect_timeout: tcp.connect_timeout,
            user_timeout: tcp.user_timeout,
            retransmit_limit: tcp.retransmit_limit,
            keepalive: tcp.keepalive,
            congestion: tcp.congestion,
            held_timeout: Duration::from_secs(10),
            held_limit: 1024,
            datagram_limit: 1024,
        }
    }

    /// What a connection is told of these.
    pub(crate) fn tcp(&self) -> tcp::Config {
        tcp::Config {
            mss: u16::try_from(self.mtu - ip::HEADER_LEN - HEADER_LEN).unwrap_or(u16::MAX),
            receive_buffer: self.receive_buffer,
            send_buffer: self.send_buffer,
            connect_timeout: self.connect_timeout,
            user_timeout: self.user_timeout,
            retransmit_limit: self.retransmit_limit,
            keepalive: self.keepalive,
            congestion: self.congestion,
        }
    }
}
