//! The set of peers and the way of a packet through it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use gotatun::noise::errors::WireGuardError;
use gotatun::noise::handshake::parse_handshake_anon;
use gotatun::noise::index_table::IndexTable;
use gotatun::noise::rate_limiter::RateLimiter;
use gotatun::noise::{Tunn, TunnResult};
use gotatun::packet::{Packet, WgKind};
use gotatun::tun::MtuWatcher;
use gotatun::x25519::{PublicKey, StaticSecret};
use slab::Slab;
use wire::keys::{NodePrivate, NodePublic};

use crate::peers::{Decrypted, KEEPALIVE_SECONDS, Peer, PeerConfig, PeerId};

/// Handshake messages a peer may send per second before it must answer a cookie.
const HANDSHAKES_PER_SECOND: u64 = 50;
/// Timers are brought up to date before a packet when they are older than this.
const STALE: Duration = Duration::from_millis(250);
/// `gotatun` gives a silent peer up after 90 s; one with keep-alives is tried again this often.
const RETRY: Duration = Duration::from_secs(KEEPALIVE_SECONDS as u64);
/// Message types of WireGuard that carry our own session index at bytes 4..8.
const INITIATION: u8 = 1;
const RESPONSE: u8 = 2;

/// Why a datagram was not accepted. Each is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a WireGuard message.
    #[error("not a WireGuard message")]
    Malformed,
    /// From nobody we know.
    #[error("no such peer or session")]
    UnknownPeer,
    /// The keys don't fit, or it was seen before.
    #[error("not authentic or seen before")]
    NotAuthentic,
    /// Decrypted, but from an address that is not the peer's, or not an IPv6 packet.
    #[error("source address is not the peer's")]
    ForeignAddress,
}

/// What was refused so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// See [`Refused::Malformed`].
    pub malformed: u64,
    /// See [`Refused::UnknownPeer`].
    pub unknown_peer: u64,
    /// See [`Refused::NotAuthentic`].
    pub not_authentic: u64,
    /// See [`Refused::ForeignAddress`].
    pub foreign_address: u64,
}

/// All WireGuard sessions of one node.
pub struct Tunnel {
    private: StaticSecret,
    public: PublicKey,
    indices: IndexTable,
    limiter: Arc<RateLimiter>,
    peers: Slab<Peer>,
    by_key: BTreeMap<NodePublic, PeerId>,
    by_address: HashMap<Ipv6Addr, PeerId>,
    by_index: HashMap<u32, PeerId>,
    /// The index and peer of the last data message: a busy session is found without hashing.
    latest: Option<(u32, PeerId)>,
    mtu: MtuWatcher,
    counters: Counters,
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel").field("peers", &self.peers.len()).finish_non_exhaustive()
    }
}

impl Tunnel {
    /// A node without peers.
    pub fn new(private: &NodePrivate) -> Self {
        let private = StaticSecret::from(*private.as_bytes());
        let public = PublicKey::from(&private);
        Self {
            limiter: Arc::new(RateLimiter::new(&public, HANDSHAKES_PER_SECOND)),
            private,
            public,
            indices: IndexTable::from_os_rng(),
            peers: Slab::new(),
            by_key: BTreeMap::new(),
            by_address: HashMap::new(),
            by_index: HashMap::new(),
            latest: None,
            mtu: MtuWatcher::new(crate::MTU as u16),
            counters: Counters::default(),
        }
    }

    /// Replaces the set of peers. Unchanged peers keep their sessions; a new peer with keep-alives is called at once.
    ///
    /// An address claimed by two peers belongs to the first in the list.
    pub fn set_peers(&mut self, now: Instant, wanted: &[PeerConfig], send: &mut impl FnMut(PeerId, &[u8])) {
        let gone: Vec<PeerId> = self
            .by_key
            .iter()
            .filter(|(key, _)| !wanted.iter().any(|peer| peer.key == **key))
            .map(|(_, id)| *id)
            .collect();
        for id in gone {
            self.remove(id);
        }
        self.by_address.clear();
        for config in wanted {
            let id = match self.by_key.get(&config.key) {
                Some(id) => *id,
                None => self.add(now, config),
            };
            for address in &config.addresses {
                self.by_address.entry(*address).or_insert(id);
            }
            self.configure(now, id, config, send);
        }
    }

    /// Forgets the peer's session, as after the other process was replaced; the next packet starts a new one.
    pub fn reset(&mut self, key: &NodePublic) {
        if let Some(peer) = self.by_key.get(key).and_then(|id| self.peers.get_mut(id.0)) {
            peer.tunn.reset();
            peer.handshaking = false;
        }
    }

    /// A way to the peer was found: a handshake that is not answered yet is begun again, in case it had none before.
    pub fn retry(&mut self, now: Instant, key: &NodePublic, send: &mut impl FnMut(PeerId, &[u8])) {
        let Some(&id) = self.by_key.get(key) else { return };
        self.freshen(now, id, send);
        if self.peers.get(id.0).is_some_and(|peer| peer.handshaking && !peer.tunn.has_active_session()) {
            self.call(now, id, true, send);
        }
    }

    /// The peer that owns an address.
    pub fn peer_at(&self, address: &Ipv6Addr) -> Option<PeerId> {
        self.by_address.get(address).copied()
    }

    /// The peer with a key.
    pub fn peer(&self, key: &NodePublic) -> Option<PeerId> {
        self.by_key.get(key).copied()
    }

    /// The key of a peer; none once it was removed.
    pub fn key(&self, peer: PeerId) -> Option<NodePublic> {
        self.peers.get(peer.0).map(|peer| peer.config.key)
    }

    /// Time since the last completed handshake with a peer.
    pub fn last_handshake(&self, key: &NodePublic) -> Option<Duration> {
        self.by_key
            .get(key)
            .and_then(|id| self.peers.get(id.0))
            .and_then(|peer| peer.tunn.time_since_last_handshake())
    }

    /// Bytes of datagrams sent to and received from a peer.
    pub fn traffic(&self, key: &NodePublic) -> (u64, u64) {
        self.by_key
            .get(key)
            .and_then(|id| self.peers.get(id.0))
            .map_or((0, 0), |peer| (peer.sent_bytes, peer.received_bytes))
    }

    /// What was refused so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Encrypts one IP packet for a peer. Without a session the packet waits in a queue of 256 and a handshake starts.
    pub fn encapsulate(
        &mut self,
        now: Instant,
        id: PeerId,
        packet: BytesMut,
        send: &mut impl FnMut(PeerId, &[u8]),
    ) {
        self.freshen(now, id, send);
        let Some(peer) = self.peers.get_mut(id.0) else { return };
        let packet = peer.tunn.handle_outgoing_packet(Packet::from_bytes(packet), Some(&mut self.mtu));
        if let Some(message) = packet {
            self.emit(now, id, message, send);
        }
    }

    /// Takes one datagram. `from` is the peer it must be from where the way it came says so; it is only needed to tell
    /// whose handshake this is cheaply, since sessions prove themselves.
    ///
    /// Answers a decrypted packet, if there was one in it. What must be sent in reply goes to `send`.
    pub fn handle(
        &mut self,
        now: Instant,
        from: Option<PeerId>,
        datagram: BytesMut,
        send: &mut impl FnMut(PeerId, &[u8]),
    ) -> Result<Option<Decrypted>, Refused> {
        let result = self.accept(now, from, datagram, send);
        if let Err(refused) = &result {
            let counter = match refused {
                Refused::Malformed => &mut self.counters.malformed,
                Refused::UnknownPeer => &mut self.counters.unknown_peer,
                Refused::NotAuthentic => &mut self.counters.not_authentic,
                Refused::ForeignAddress => &mut self.counters.foreign_address,
            };
            *counter += 1;
        }
        result
    }

    /// When [`Tunnel::tick`] is due. Idle peers without a session need none, so an idle node sleeps.
    pub fn next_tick(&self) -> Option<Instant> {
        self.peers.iter().filter_map(|(_, peer)| peer.next_tick()).min()
    }

    /// Lets due timers act: handshake retries, rekeying, keep-alives.
    pub fn tick(&mut self, now: Instant, send: &mut impl FnMut(PeerId, &[u8])) {
        let due: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.next_tick().is_some_and(|at| at <= now))
            .map(|(index, _)| PeerId(index))
            .collect();
        for id in due {
            self.update(now, id, send);
        }
    }

    fn add(&mut self, now: Instant, config: &PeerConfig) -> PeerId {
        let tunn = Tunn::new(
            self.private.clone(),
            PublicKey::from(*config.key.as_bytes()),
            None,
            None,
            self.indices.clone(),
            Arc::clone(&self.limiter),
        );
        let id = PeerId(self.peers.insert(Peer {
            config: PeerConfig { keepalive: false, ..config.clone() },
            tunn,
            indices: VecDeque::new(),
            handshaking: false,
            last_initiation: None,
            repeats: 0,
            ticked: now,
            sent_bytes: 0,
            received_bytes: 0,
        }));
        self.by_key.insert(config.key, id);
        id
    }

    fn remove(&mut self, id: PeerId) {
        let Some(peer) = self.peers.try_remove(id.0) else { return };
        self.by_key.remove(&peer.config.key);
        for index in peer.indices {
            self.by_index.remove(&index);
        }
        self.latest = None;
    }

    fn configure(
        &mut self,
        now: Instant,
        id: PeerId,
        config: &PeerConfig,
        send: &mut impl FnMut(PeerId, &[u8]),
    ) {
        let Some(peer) = self.peers.get_mut(id.0) else { return };
        let call = config.keepalive && !peer.config.keepalive && !peer.tunn.has_active_session();
        if config.keepalive != peer.config.keepalive {
            peer.tunn.set_persistent_keepalive(config.keepalive.then_some(KEEPALIVE_SECONDS));
        }
        peer.config = config.clone();
        if call {
            // A keep-alive is due, and without a session that is an initiation.
            self.update(now, id, send);
        }
    }

    /// Starts a handshake; `again`: even if one is under way.
    fn call(&mut self, now: Instant, id: PeerId, again: bool, send: &mut impl FnMut(PeerId, &[u8])) {
        let Some(peer) = self.peers.get_mut(id.0) else { return };
        if let Some(initiation) = peer.tunn.format_handshake_initiation(again) {
            self.emit(now, id, initiation.into(), send);
        }
    }

    /// `gotatun` stamps what happens with the time of its last timer update, so that must not be long ago.
    fn freshen(&mut self, now: Instant, id: PeerId, send: &mut impl FnMut(PeerId, &[u8])) {
        if self.peers.get(id.0).is_some_and(|peer| now.saturating_duration_since(peer.ticked) >= STALE) {
            self.update(now, id, send);
        }
    }

    fn update(&mut self, now: Instant, id: PeerId, send: &mut impl FnMut(PeerId, &[u8])) {
        let Some(peer) = self.peers.get_mut(id.0) else { return };
        peer.ticked = now;
        if peer.next_repeat().is_some_and(|at| at <= now) {
            peer.repeats += 1;
            self.call(now, id, true, send);
        }
        let Some(peer) = self.peers.get_mut(id.0) else { return };
        match peer.tunn.update_timers() {
            Ok(Some(message)) => self.emit(now, id, message, send),
            Ok(None) => {}
            Err(_expired) => {
                peer.handshaking = false;
                let due = peer.last_initiation.is_none_or(|at| now.saturating_duration_since(at) >= RETRY);
                if peer.config.keepalive && due {
                    self.call(now, id, false, send);
                }
            }
        }
    }

    /// Hands a message to the owner and keeps track of the session index it announces.
    fn emit(&mut self, now: Instant, id: PeerId, message: WgKind, send: &mut impl FnMut(PeerId, &[u8])) {
        let packet: Packet = message.into();
        let bytes: &[u8] = &packet;
        let Some(peer) = self.peers.get_mut(id.0) else { return };
        peer.sent_bytes += bytes.len() as u64;
        if let (Some(&kind @ (INITIATION | RESPONSE)), Some(index)) = (bytes.first(), index_at(bytes, 4)) {
            if kind == INITIATION {
                if !std::mem::replace(&mut peer.handshaking, true) {
                    peer.repeats = 0;
                }
                peer.last_initiation = Some(now);
            }
            if let Some(forgotten) = peer.remember(index) {
                self.by_index.remove(&forgotten);
            }
            self.by_index.insert(index, id);
        }
        send(id, bytes);
    }

    fn accept(
        &mut self,
        now: Instant,
        from: Option<PeerId>,
        datagram: BytesMut,
        send: &mut impl FnMut(PeerId, &[u8]),
    ) -> Result<Option<Decrypted>, Refused> {
        let length = datagram.len() as u64;
        let message = Packet::from_bytes(datagram).try_into_wg().map_err(|_| Refused::Malformed)?;
        let id = match &message {
            WgKind::Data(data) => self.session(data.header.receiver_idx.get()),
            WgKind::HandshakeResp(response) => self.session(response.receiver_idx.get()),
            WgKind::CookieReply(reply) => self.session(reply.receiver_idx.get()),
            WgKind::HandshakeInit(_) => from,
        };
        let id = match (id, &message) {
            (Some(id), _) => id,
            (None, WgKind::HandshakeInit(initiation)) => {
                let half = parse_handshake_anon(&self.private, &self.public, initiation)
                    .map_err(|_| Refused::NotAuthentic)?;
                self.peer(&NodePublic::from_bytes(half.peer_static_public)).ok_or(Refused::UnknownPeer)?
            }
            (None, _) => return Err(Refused::UnknownPeer),
        };
        self.freshen(now, id, send);
        let peer = self.peers.get_mut(id.0).ok_or(Refused::UnknownPeer)?;
        peer.received_bytes += length;
        let handshake = !matches!(message, WgKind::Data(_));
        let message = if handshake {
            match self.limiter.verify_packet(peer.source(), message.into()) {
                Ok(message) => message,
                Err(TunnResult::WriteToNetwork(cookie)) => {
                    self.emit(now, id, cookie, send);
                    return Ok(None);
                }
                Err(_) => return Err(Refused::NotAuthentic),
            }
        } else {
            message
        };
        match peer.tunn.handle_incoming_packet(message) {
            TunnResult::Done => Ok(None),
            TunnResult::Err(error) => Err(refusal(&error)),
            TunnResult::WriteToNetwork(reply) => {
                if matches!(reply, WgKind::Data(_)) {
                    peer.handshaking = false;
                }
                self.emit(now, id, reply, send);
                self.flush(now, id, send);
                Ok(None)
            }
            TunnResult::WriteToTunnel(packet) => self.deliver(now, id, packet, send),
        }
    }

    fn deliver(
        &mut self,
        now: Instant,
        id: PeerId,
        packet: Packet,
        send: &mut impl FnMut(PeerId, &[u8]),
    ) -> Result<Option<Decrypted>, Refused> {
        let peer = self.peers.get_mut(id.0).ok_or(Refused::UnknownPeer)?;
        if peer.handshaking {
            // A responder's session is usable once the initiator's first message has come.
            peer.handshaking = false;
            self.flush(now, id, send);
        }
        if packet.is_empty() {
            self.flush(now, id, send);
            return Ok(None);
        }
        let source = wire::ip::Ipv6::parse(&packet).map(|ip| ip.src()).ok_or(Refused::ForeignAddress)?;
        let peer = self.peers.get(id.0).ok_or(Refused::UnknownPeer)?;
        if !peer.config.addresses.contains(&source) {
            return Err(Refused::ForeignAddress);
        }
        Ok(Some(Decrypted { peer: id, packet }))
    }

    /// Sends what waited for a session.
    fn flush(&mut self, now: Instant, id: PeerId, send: &mut impl FnMut(PeerId, &[u8])) {
        let Some(peer) = self.peers.get_mut(id.0) else { return };
        if !peer.tunn.has_active_session() {
            return;
        }
        let waiting: Vec<WgKind> = peer.tunn.get_queued_packets(&mut self.mtu).collect();
        for message in waiting {
            self.emit(now, id, message, send);
        }
    }

    fn session(&mut self, index: u32) -> Option<PeerId> {
        if let Some((latest, id)) = self.latest
            && latest == index
        {
            return Some(id);
        }
        let id = self.by_index.get(&index).copied()?;
        self.latest = Some((index, id));
        Some(id)
    }
}

fn index_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_le_bytes)
}

fn refusal(error: &WireGuardError) -> Refused {
    match error {
        WireGuardError::NoCurrentSession | WireGuardError::WrongIndex => Refused::UnknownPeer,
        WireGuardError::InvalidPacket | WireGuardError::IncorrectPacketLength => Refused::Malformed,
        _ => Refused::NotAuthentic,
    }
}
