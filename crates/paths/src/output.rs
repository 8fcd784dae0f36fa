//! What a [`Paths`](crate::Paths) asks for and tells.

use std::collections::BTreeMap;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::Duration;

use wire::keys::NodePublic;

/// Something for the shell to do. Outputs are independent; each is safe to lose.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send a datagram (disco or STUN), with don't-fragment set: padded pings prove that full packets fit.
    Udp {
        /// Destination.
        to: SocketAddr,
        /// Payload.
        bytes: Vec<u8>,
        /// Which socket to send it from.
        socket: Socket,
    },
    /// Bind another IPv4 UDP socket to any port. What arrives by it is said with its name. Should that fail, what is sent
    /// by it is lost.
    OpenSocket(Socket),
    /// Close it.
    CloseSocket(Socket),
    /// Send a packet through a relay. Drop it if that connection is not up.
    Relay {
        /// Whose connection.
        region: u16,
        /// Destination.
        to: NodePublic,
        /// Payload.
        bytes: Vec<u8>,
    },
    /// Dial the region's relay once, then call `relay_up` or `relay_down`. Redialling is decided here, not there.
    OpenRelay(u16),
    /// Hang up (or stop dialling); no `relay_down` is needed.
    CloseRelay(u16),
    /// Tell the region's relay whether it is our home. Repeated when its connection comes up, if it is.
    Prefer {
        /// Whose connection.
        region: u16,
        /// Whether it is our home.
        home: bool,
    },
    /// Measure the latency of a region's relay, then call `relay_latency`.
    MeasureRelay(u16),
    /// Look a name up, then call `stun_resolved` with `port` at each address.
    ResolveStun {
        /// Region the server is in.
        region: u16,
        /// Name.
        host: String,
        /// UDP port.
        port: u16,
    },
    /// News for the node's owner.
    Event(Event),
}

/// News.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Our own record changed; peers need to know.
    Self_ {
        /// Our home region; 0 for none.
        home: u16,
        /// Latency in seconds of each relay measured, by `<region>-v4` or `<region>-v6`.
        latencies: BTreeMap<String, f64>,
        /// Where we may be reached directly, in the order to be tried.
        endpoints: Vec<SocketAddr>,
    },
    /// Packets to `peer` now go this way. Direct means proved; until then, and again after, it is the relay's.
    PathChanged {
        /// The peer.
        peer: NodePublic,
        /// The way.
        path: Path,
    },
    /// First answer to a user's ping.
    Pong {
        /// The id given to `ping`.
        id: u64,
        /// The peer.
        peer: NodePublic,
        /// Round trip.
        latency: Duration,
        /// The way the ping went.
        path: Path,
    },
    /// A user's ping got no answer in 5 s, or could not be sent.
    PingTimeout {
        /// The id given to `ping`.
        id: u64,
    },
    /// A check of the network ended.
    Report(Report),
}

/// Names a UDP socket of the node: 0 is its own of the address's family, others are opened by [`Output::OpenSocket`].
pub type Socket = u16;

/// One way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// UDP to this address.
    Direct(SocketAddr),
    /// Through this region's relay.
    Relay(u16),
}

/// Where to send a batch: by every way that is set. Neither: there is no way now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// UDP address.
    pub udp: Option<SocketAddr>,
    /// The socket to send that from.
    pub socket: Socket,
    /// Region of the relay connection.
    pub relay: Option<u16>,
}

/// What an arrived packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It was ours; nothing left to do but drain.
    Consumed,
    /// WireGuard's, from this peer if the source is known; then a packet of another peer is to be refused.
    WireGuard(Option<NodePublic>),
    /// Nobody's.
    Drop,
}

/// What a check of the network found. Unknown is `None`; what is never tested here stays so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// A STUN answer came.
    pub udp: bool,
    /// A STUN answer came over IPv4.
    pub ipv4: bool,
    /// A STUN answer came over IPv6.
    pub ipv6: bool,
    /// A STUN request over IPv4 could be sent.
    pub ipv4_can_send: bool,
    /// A STUN request over IPv6 could be sent.
    pub ipv6_can_send: bool,
    /// There is an IPv6 socket.
    pub os_has_ipv6: bool,
    /// An ICMP echo answer came; never sent here.
    pub icmpv4: bool,
    /// STUN servers saw us at different addresses: a symmetric NAT.
    pub mapping_varies_by_dest_ip: Option<bool>,
    /// Our router leads packets for its own outside address back in. Tested by full checks behind a NAT.
    pub hair_pinning: Option<bool>,
    /// Not tested.
    pub upnp: Option<bool>,
    /// Not tested.
    pub pmp: Option<bool>,
    /// Not tested.
    pub pcp: Option<bool>,
    /// Something in between answers in a relay's place. Asked when a relay cannot be measured.
    pub captive_portal: Option<bool>,
    /// Our home region after this check; 0 for none.
    pub preferred_derp: u16,
    /// Latency of each relay measured.
    pub region_latency: BTreeMap<u16, Duration>,
    /// Those of them reached over IPv4.
    pub region_v4_latency: BTreeMap<u16, Duration>,
    /// Those of them reached over IPv6.
    pub region_v6_latency: BTreeMap<u16, Duration>,
    /// Our address as the first IPv4 STUN server saw it.
    pub global_v4: Option<SocketAddrV4>,
    /// Our address as the last IPv6 STUN server saw it.
    pub global_v6: Option<SocketAddrV6>,
}

/// Packets refused, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Disco from a key that is no peer's.
    pub unknown_disco: u64,
    /// Disco whose box or message does not open, or that came by a way it may not.
    pub bad_disco: u64,
    /// Disco over UDP, or WireGuard from an unproved address, while direct paths are forbidden.
    pub blocked: u64,
    /// STUN nobody asked for.
    pub stray_stun: u64,
    /// Relayed packets from a key that is no peer's.
    pub unknown_relayed: u64,
    /// Pings left unanswered because their source sent too many.
    pub flooded: u64,
}
