//! What is known about the way to one peer, for people who ask why it is what it is.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use wire::keys::NodePublic;

use crate::Paths;
use crate::output::Path;
use crate::peer::{Endpoint, Peer};

/// Bytes of the IPv4 and UDP headers around a payload.
const OVERHEAD_V4: usize = 20 + 8;
/// Bytes of the IPv6 and UDP headers around a payload.
const OVERHEAD_V6: usize = 40 + 8;

/// Why packets to a peer go the way they go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Why {
    /// No direct path was proved yet.
    #[default]
    Unproved,
    /// A direct path was proved while there was none.
    Proved,
    /// A better direct path was proved.
    Better,
    /// Packets and pings on the path got no answer.
    Silent,
    /// No pong came in time to prolong the trust in the path.
    Expired,
    /// A ping was lost on a path no longer trusted.
    Lost,
    /// The system refused to send to the address.
    Unsendable,
    /// Direct paths were forbidden on this side.
    Forbidden,
    /// Our network changed.
    Network,
    /// The peer no longer names the address.
    Withdrawn,
    /// The peer is another process than before.
    Restarted,
    /// Another relay leads to the peer.
    Relay,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unproved => "no direct path is proved yet",
            Self::Proved => "a direct path was proved",
            Self::Better => "a better direct path was proved",
            Self::Silent => "the direct path went silent",
            Self::Expired => "no pong came in time",
            Self::Lost => "a ping was lost",
            Self::Unsendable => "the system could not send to the address",
            Self::Forbidden => "direct paths are switched off on this side",
            Self::Network => "this side's network changed",
            Self::Withdrawn => "the peer no longer has the address",
            Self::Restarted => "the peer restarted",
            Self::Relay => "another relay leads to the peer",
        })
    }
}

/// How a peer's path came to be what it is.
#[derive(Debug, Default)]
pub(crate) struct Track {
    /// Why the path is what it is; becomes news when it changes.
    why: Why,
    changed: Option<(Instant, Why)>,
    /// When the present session began: the first send after a silence.
    active_since: Option<Instant>,
    first_direct: Option<Duration>,
}

impl Track {
    pub(crate) fn note(&mut self, why: Why) {
        self.why = why;
    }

    pub(crate) fn began(&mut self, now: Instant) {
        self.active_since = Some(now);
        self.first_direct = None;
    }

    /// A direct path is proved.
    pub(crate) fn direct(&mut self, now: Instant) {
        if let Some(since) = self.active_since {
            self.first_direct.get_or_insert(now.saturating_duration_since(since));
        }
    }

    /// Packets now go another way.
    pub(crate) fn moved(&mut self, now: Instant, from: Option<Path>, to: Path) {
        let why = match (from, to) {
            (Some(Path::Relay(_)), Path::Relay(_)) => Why::Relay,
            _ => self.why,
        };
        self.changed = Some((now, why));
    }
}

/// Who told of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The peer's record names it.
    Advertised,
    /// The peer's last call-me-maybe named it.
    CallMeMaybe,
    /// A ping came from there.
    Learned,
}

/// One address of a peer. Ages count back from now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointFacts {
    /// The address.
    pub addr: SocketAddr,
    /// Who told of it.
    pub source: Source,
    /// Since our last ping to it.
    pub last_ping: Option<Duration>,
    /// Since its last pong.
    pub last_pong: Option<Duration>,
    /// Since the last ping from it.
    pub last_heard: Option<Duration>,
    /// Round trip of the last pong.
    pub latency: Option<Duration>,
    /// It is the best known path.
    pub best: bool,
    /// It is the best and proved now: packets go there only.
    pub trusted: bool,
    /// Bytes of the largest IP packet (headers included) that a ping and its pong proved.
    pub mtu: Option<usize>,
}

/// What is known of the way to one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerFacts {
    /// Its addresses, in order.
    pub endpoints: Vec<EndpointFacts>,
    /// The way packets go now.
    pub path: Option<Path>,
    /// The region whose relay leads to it; in use while nothing is trusted.
    pub relay: Option<u16>,
    /// Since the way last changed, and why it did.
    pub changed: Option<(Duration, Why)>,
    /// Since the first packet of the present session; `None` while the session sleeps.
    pub active: Option<Duration>,
    /// From that first packet to the first proof of a direct path.
    pub first_direct: Option<Duration>,
    /// Direct paths are forbidden on this side.
    pub block_direct: bool,
}

impl Paths {
    /// What is known of the way to a peer; `None` if there is no such peer.
    pub fn facts(&self, now: Instant, key: &NodePublic) -> Option<PeerFacts> {
        let peer = self.peers.get(key)?;
        let trusted = peer.trusted(now);
        let relay = self.relays.route(key, peer.home);
        let track = &peer.track;
        let active = track.active_since.filter(|_| peer.is_active(now));
        Some(PeerFacts {
            endpoints: peer.endpoints.iter().map(|(addr, e)| endpoint(peer, now, *addr, e)).collect(),
            path: trusted.map(Path::Direct).or(relay.map(Path::Relay)),
            relay,
            changed: track.changed.map(|(at, why)| (now.saturating_duration_since(at), why)),
            active: active.map(|since| now.saturating_duration_since(since)),
            first_direct: track.first_direct,
            block_direct: self.block_direct,
        })
    }
}

fn endpoint(peer: &Peer, now: Instant, addr: SocketAddr, endpoint: &Endpoint) -> EndpointFacts {
    let age = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
    let source = match endpoint {
        Endpoint { called: true, .. } => Source::CallMeMaybe,
        Endpoint { in_record: true, .. } => Source::Advertised,
        Endpoint { .. } => Source::Learned,
    };
    let overhead = if addr.is_ipv4() { OVERHEAD_V4 } else { OVERHEAD_V6 };
    let proof = endpoint.proof.as_ref();
    EndpointFacts {
        addr,
        source,
        last_ping: age(endpoint.last_ping),
        last_pong: age(proof.map(|proof| proof.at)),
        last_heard: age(endpoint.pinged_us.map(|(at, _)| at)),
        latency: proof.map(|proof| proof.latency),
        best: peer.best.is_some_and(|best| best.addr == addr),
        trusted: peer.trusted(now) == Some(addr),
        mtu: proof.map(|proof| proof.largest + overhead),
    }
}

/// What pongs proved of an address.
#[derive(Debug)]
pub(crate) struct Proof {
    at: Instant,
    latency: Duration,
    /// Bytes of the largest pong.
    largest: usize,
}

impl Proof {
    pub(crate) fn at(&self) -> Instant {
        self.at
    }
}

impl Endpoint {
    /// A pong of `size` bytes answered our ping to this address.
    pub(crate) fn proved(&mut self, now: Instant, latency: Duration, size: usize) {
        let largest = self.proof.as_ref().map_or(0, |proof| proof.largest).max(size);
        self.proof = Some(Proof { at: now, latency, largest });
    }
}
