//! What a stack reports: events, refusals, counters.

use std::net::{Ipv6Addr, SocketAddrV6};

/// A TCP connection of a [`Stack`](crate::Stack). Never reused for another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// Something that happened. Edges, not levels: each is reported once, and again only after the stated call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A peer wants to connect; answer with `accept` or `refuse`, or let it lapse.
    Incoming {
        /// Names the attempt.
        id: u64,
        /// The peer.
        from: SocketAddrV6,
        /// The address and port it wants.
        to: SocketAddrV6,
    },
    /// The handshake is complete.
    Connected(Flow),
    /// The peer answered our attempt with a reset.
    Refused(Flow),
    /// Data can be received. Reported again after a `recv` that emptied the buffer.
    Readable(Flow),
    /// Data can be sent. Reported when a `send` left the buffer full and room appeared since.
    Writable(Flow),
    /// The peer has finished sending and everything has been received. Sending may go on.
    Finished(Flow),
    /// The peer has cut the connection. What was not received yet may be lost.
    Reset(Flow),
    /// The connection is over: the peer was silent for too long.
    TimedOut(Flow),
    /// A UDP datagram.
    Datagram {
        /// Its sender.
        from: SocketAddrV6,
        /// Where it was sent to.
        to: SocketAddrV6,
        /// Its payload.
        bytes: Vec<u8>,
    },
    /// The answer to an ICMPv6 echo request.
    EchoReply {
        /// Who answered.
        from: Ipv6Addr,
        /// The identifier of the request.
        id: u16,
        /// The sequence number of the request.
        seq: u16,
    },
    /// The answer to a TSMP ping.
    TsmpPong {
        /// Who answered.
        from: Ipv6Addr,
        /// The data of the ping.
        data: [u8; 8],
    },
}

/// Why something could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The stack has no address to send from, or was asked to send from a foreign one.
    #[error("no source address for this destination")]
    NoSource,
    /// The destination's port is 0, or its address is unspecified or multicast.
    #[error("not a destination")]
    BadDestination,
    /// The payload does not fit one packet.
    #[error("datagram is larger than the tunnel's packets")]
    TooLarge,
    /// Too many packets are waiting to leave.
    #[error("too many packets are waiting to leave")]
    Full,
    /// Every local port towards this destination is taken.
    #[error("no free local port for this destination")]
    NoPort,
}

/// Counts of what was done with packets that went nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Not a well-formed IPv6 packet, or a malformed header inside one.
    pub malformed: u64,
    /// For an address that is not ours.
    pub foreign: u64,
    /// A next header this stack does not speak, extension headers and fragments included.
    pub unsupported: u64,
    /// TCP segments that belong to no connection.
    pub stray: u64,
    /// Connection attempts dropped because too many were held.
    pub held_overflow: u64,
    /// Connection attempts nobody answered in time.
    pub held_expired: u64,
    /// Datagrams dropped because too many were waiting.
    pub datagram_overflow: u64,
    /// Answers dropped because too many packets were waiting to leave.
    pub output_overflow: u64,
}
