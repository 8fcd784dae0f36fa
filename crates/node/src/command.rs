//! What the data thread is told: by Python through the engine, and by the short-lived threads that dial and resolve.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use dial::{Identity, ProxyRules, TrustRoots};
use paths::PeerFacts;
use speedtest::Direction;
use wire::derpmap::DerpMap;
use wire::keys::{DiscoPublic, NodePublic};

use crate::events::{NodeId, RequestId};
use crate::local::Node;

/// What answers a TCP port of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortUse {
    /// Python takes the stream as a descriptor.
    Python,
    /// The speed test's server.
    Speedtest,
    /// The same port on this machine's loopback.
    Splice,
    /// Nothing: the caller sees a refusal.
    Refuse,
}

/// Everything a node is made with.
#[derive(Clone)]
pub struct NodeSettings {
    /// Its addresses inside the tunnel.
    pub addresses: Vec<Ipv6Addr>,
    /// What answers which TCP port …
    pub ports: BTreeMap<u16, PortUse>,
    /// … and all the others. [`PortUse::Splice`] also forwards UDP.
    pub default: PortUse,
    /// UDP port to bind; 0 for any.
    pub listen_port: u16,
    /// Relay only.
    pub block_direct: bool,
    /// Reach relays by WebSocket without trying the plain upgrade.
    pub force_websockets: bool,
    /// Headers for requests to relays. May hold secrets.
    pub headers: Vec<(String, String)>,
    /// Which relays are reached through an HTTP proxy.
    pub proxies: ProxyRules,
    /// Whose certificates are accepted from relays.
    pub roots: TrustRoots,
    /// Our own, for relays that ask for one.
    pub identity: Option<Identity>,
}

impl std::fmt::Debug for NodeSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeSettings")
            .field("addresses", &self.addresses)
            .field("default", &self.default)
            .field("block_direct", &self.block_direct)
            .finish_non_exhaustive()
    }
}

/// A peer as Python configures it.
#[derive(Clone, Debug, PartialEq)]
pub struct Peer {
    /// WireGuard and relay key.
    pub key: NodePublic,
    /// Disco key.
    pub disco: DiscoPublic,
    /// Home region.
    pub home: u16,
    /// Where it may be reached directly.
    pub endpoints: Vec<SocketAddr>,
    /// Its addresses inside the tunnel.
    pub addresses: Vec<Ipv6Addr>,
    /// Open the session at once and keep it open.
    pub keepalive: bool,
}

/// Something with an answer that may take a while.
#[derive(Debug)]
pub enum Request {
    /// A disco ping to the peer that has the address.
    Ping(Ipv6Addr),
    /// TSMP pings with growing gaps until one is answered: the tunnel works.
    Reach(Ipv6Addr),
    /// One ICMP echo.
    Echo(Ipv6Addr),
    /// A stream, as a descriptor.
    Connect(SocketAddrV6),
    /// A stream, joined to a local socket.
    Splice(SocketAddrV6, OwnedFd),
    /// What comes to a UDP socket of this machine goes to this address, and answers to whoever asked, until the request is
    /// cancelled or the node closes.
    Datagrams(SocketAddrV6, OwnedFd),
    /// A full check of the network, now; the answer follows its [`Event::Report`](crate::Event::Report).
    Check,
    /// A speed test against the peer's port 3.
    Speedtest {
        /// Whom to test.
        peer: SocketAddrV6,
        /// For how long.
        duration: Duration,
        /// Which way.
        direction: Direction,
    },
}

/// Figures of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of datagrams received from peers, all ways together.
    pub received_bytes: u64,
    /// Bytes of datagrams sent to peers.
    pub sent_bytes: u64,
    /// Datagrams received.
    pub received_packets: u64,
    /// Datagrams sent.
    pub sent_packets: u64,
    /// Datagrams that were refused, whatever the reason.
    pub refused: u64,
    /// Open streams.
    pub streams: u64,
}

/// What came through a [`Request::Datagrams`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramCounts {
    /// Callers that are remembered now …
    pub open: u64,
    /// … and all there were.
    pub opened: u64,
    /// Datagrams that could not be sent on, in either direction.
    pub lost: u64,
    /// Bytes to the peer …
    pub sent: u64,
    /// … and from it.
    pub received: u64,
}

pub(crate) enum Command {
    Add(Box<Node>),
    Remove(NodeId),
    SetMap(NodeId, DerpMap),
    SetPeers(NodeId, Vec<Peer>),
    SetBlockDirect(NodeId, bool),
    SetForceWebsockets(NodeId, bool),
    SetMapped(NodeId, Vec<SocketAddr>),
    Request(NodeId, RequestId, Request),
    Cancel(NodeId, RequestId),
    Stats(NodeId, SyncSender<Stats>),
    DatagramCounts(NodeId, RequestId, SyncSender<Option<DatagramCounts>>),
    LastHandshake(NodeId, NodePublic, SyncSender<Option<Duration>>),
    UdpPorts(NodeId, SyncSender<(u16, u16)>),
    PeerPaths(NodeId, NodePublic, SyncSender<Option<PeerFacts>>),
    Dialled(NodeId, u16, u64, Result<dial::Connected, dial::DialError>),
    Measured(NodeId, u16, Option<dial::Measured>),
    Portal(NodeId, bool),
    Resolved(NodeId, u16, Vec<SocketAddr>),
    Stop,
}
