//! One peer: its configuration, its session, and when that session next wants attention.

use std::collections::VecDeque;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use gotatun::noise::Tunn;
use gotatun::packet::Packet;
use wire::keys::NodePublic;

/// Seconds between keep-alives to a peer configured with them.
pub(crate) const KEEPALIVE_SECONDS: u16 = 25;
/// A session's timers are looked at this often while a handshake is under way …
const TICK_HANDSHAKE: Duration = Duration::from_millis(250);
/// … and this often while a session lives.
const TICK_SESSION: Duration = Duration::from_secs(1);
/// WireGuard repeats an unanswered initiation after 5 s. Nothing can be sent before the first session, so there it is
/// repeated this long after the one before as well.
const REPEATS: [Duration; 3] =
    [Duration::from_millis(500), Duration::from_millis(1000), Duration::from_millis(2000)];
/// Our session indices that may still be named in a datagram: eight sessions and some handshakes.
const INDICES_KEPT: usize = 16;

/// Names a configured peer until the peer is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub(crate) usize);

/// What the owner wants of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// The peer's WireGuard key.
    pub key: NodePublic,
    /// Addresses the peer may send from and is reached at.
    pub addresses: Vec<Ipv6Addr>,
    /// Send a keep-alive every 25 s, and open the session at once.
    pub keepalive: bool,
}

/// An IP packet a peer sent, already checked against the peer's addresses.
#[derive(Debug)]
pub struct Decrypted {
    /// The sender.
    pub peer: PeerId,
    pub(crate) packet: Packet,
}

impl Decrypted {
    /// The packet's bytes, WireGuard's padding included.
    pub fn bytes_mut(&mut self) -> &mut BytesMut {
        self.packet.buf_mut()
    }
}

pub(crate) struct Peer {
    pub(crate) config: PeerConfig,
    pub(crate) tunn: Tunn,
    /// Our own session indices, oldest first, as the index table of [`crate::Tunnel`] holds them.
    pub(crate) indices: VecDeque<u32>,
    pub(crate) handshaking: bool,
    pub(crate) last_initiation: Option<Instant>,
    /// Initiations sent again, ahead of WireGuard's own timer, since the handshake began.
    pub(crate) repeats: usize,
    pub(crate) ticked: Instant,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
}

impl Peer {
    /// The handshake limiter counts by tailnet address: real addresses mean nothing behind a relay.
    pub(crate) fn source(&self) -> SocketAddr {
        (self.config.addresses.first().copied().unwrap_or(Ipv6Addr::UNSPECIFIED), 0).into()
    }

    /// When the timers must be looked at again; none for a peer without a session and without keep-alives.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        if self.handshaking {
            Some(self.ticked + TICK_HANDSHAKE).into_iter().chain(self.next_repeat()).min()
        } else if self.tunn.has_active_session() || self.config.keepalive {
            Some(self.ticked + TICK_SESSION)
        } else {
            None
        }
    }

    /// When an unanswered first handshake is to be repeated although WireGuard's own timer would wait longer.
    pub(crate) fn next_repeat(&self) -> Option<Instant> {
        let wait =
            REPEATS.get(self.repeats).filter(|_| self.handshaking && !self.tunn.has_active_session())?;
        Some(self.last_initiation? + *wait)
    }

    /// Remembers an index of ours; answers the one that is forgotten for it.
    pub(crate) fn remember(&mut self, index: u32) -> Option<u32> {
        self.indices.push_back(index);
        if self.indices.len() > INDICES_KEPT { self.indices.pop_front() } else { None }
    }
}
