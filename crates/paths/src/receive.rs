//! What arrives: datagrams by UDP and by relay are told apart, and disco is acted on.

use std::net::SocketAddr;
use std::time::Instant;

use wire::disco::{self, Message, TxId};
use wire::keys::{DiscoPublic, NodePublic};
use wire::stun;

use crate::Paths;
use crate::choice::Candidate;
use crate::config::{MAX_ENDPOINTS, PING_BACK_GAP, PING_GAP, PONG_BURST, PONG_EVERY};
use crate::endpoints::{acceptable, canonical};
use crate::output::{Class, Event, Output, Path, Socket};
use crate::peer::{Allowance, Around, Peer, Purpose};
use crate::sockets::OWN;
use crate::voice::source_of;

/// How a disco packet came.
#[derive(Clone, Copy)]
pub(crate) enum Came {
    Udp(SocketAddr, Socket),
    Relay(u16, NodePublic),
}

impl Came {
    fn path(self) -> Path {
        match self {
            Self::Udp(from, _) => Path::Direct(from),
            Self::Relay(region, _) => Path::Relay(region),
        }
    }
}

impl Came {
    fn socket(self) -> Socket {
        match self {
            Self::Udp(_, socket) => socket,
            Self::Relay(..) => OWN,
        }
    }
}

impl Paths {
    /// Takes a datagram. `from` may be v4-mapped.
    #[inline]
    pub fn handle_udp(&mut self, now: Instant, from: SocketAddr, packet: &[u8]) -> Class {
        self.handle_udp_by(now, OWN, from, packet)
    }

    /// The same for a datagram that came by a certain socket.
    #[inline]
    pub fn handle_udp_by(&mut self, now: Instant, socket: Socket, from: SocketAddr, packet: &[u8]) -> Class {
        if !self.sockets.is_open(socket) {
            return Class::Drop;
        }
        if stun::is_stun(packet) {
            return self.handle_stun(now, packet);
        }
        let from = canonical(from);
        if disco::is_disco(packet) {
            self.handle_disco(now, Came::Udp(from, socket), packet);
            return Class::Consumed;
        }
        let source = self.sources.get(&from);
        if source.is_none() && self.block_direct {
            self.refusals.blocked += 1;
            return Class::Drop;
        }
        Class::WireGuard(source)
    }

    /// Takes a packet from a region's relay, which vouches for `from`.
    pub fn handle_relayed(&mut self, now: Instant, region: u16, from: NodePublic, packet: &[u8]) -> Class {
        if !self.peers.contains_key(&from) {
            self.refusals.unknown_relayed += 1;
            return Class::Drop;
        }
        if self.relays.heard(region, from) {
            self.settle(now, &from);
        }
        if disco::is_disco(packet) {
            self.handle_disco(now, Came::Relay(region, from), packet);
            return Class::Consumed;
        }
        Class::WireGuard(Some(from))
    }

    /// WireGuard packets of `peer` that came from `from` authenticated. Call at most once per batch. It calls off a suspicion
    /// of that path, but does not prolong trust in it: that we hear the peer does not prove that it hears us.
    #[inline]
    pub fn note_received(&mut self, now: Instant, peer: &NodePublic, from: SocketAddr) {
        let Some(known) = self.peers.get_mut(peer) else { return };
        if known.best.is_some_and(|best| best.addr == canonical(from)) && known.suspicion.note_heard() {
            self.settle(now, peer);
        }
    }

    /// Packets of `peer` authenticated, whichever way they came. Call at most once per batch.
    #[inline]
    pub fn note_session(&mut self, now: Instant, peer: &NodePublic) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.authenticated = Some(now);
        }
    }

    fn handle_stun(&mut self, now: Instant, packet: &[u8]) -> Class {
        match self.netcheck.handle_stun(packet) {
            Some(seen) => {
                self.endpoints.seen(now, seen);
                self.expiry = self.endpoints.next_expiry(now);
                self.after_check(now);
            }
            None if self.hairpin_arrived(packet) => self.after_check(now),
            None => self.refusals.stray_stun += 1,
        }
        Class::Consumed
    }

    /// Opens a disco packet and acts on it. A sender that is no peer costs a lookup, not a box.
    pub(crate) fn handle_disco(&mut self, now: Instant, came: Came, packet: &[u8]) {
        let Some(sender) = disco::sender(packet) else { return };
        let Some(nodes) = self.by_disco.get(&sender) else {
            self.refusals.unknown_disco += 1;
            return;
        };
        let nodes: Vec<NodePublic> = match came {
            Came::Udp(..) if self.block_direct => {
                self.refusals.blocked += 1;
                return;
            }
            Came::Udp(..) => nodes.iter().copied().collect(),
            Came::Relay(_, node) => nodes.iter().copied().filter(|key| *key == node).collect(),
        };
        let opened = nodes.first().and_then(|key| self.peers.get_mut(key)).map(|peer| {
            let shared = peer.shared(&self.voice);
            disco::open(shared, packet)
        });
        match opened {
            Some(Ok(Message::Ping { tx, node_key, .. })) => {
                self.handle_ping(now, came, sender, &nodes, tx, node_key)
            }
            Some(Ok(Message::Pong { tx, .. })) => self.handle_pong(now, came, &nodes, tx, packet.len()),
            Some(Ok(Message::CallMeMaybe { endpoints })) => self.handle_call(now, came, &endpoints),
            // A newer peer's message; nothing is wrong with it.
            Some(Err(disco::DiscoError::UnknownType(_))) => {}
            Some(Err(_)) | None => self.refusals.bad_disco += 1,
        }
    }

    fn handle_ping(
        &mut self,
        now: Instant,
        came: Came,
        sender: DiscoPublic,
        nodes: &[NodePublic],
        tx: TxId,
        claimed: Option<NodePublic>,
    ) {
        if let Came::Udp(from, _) = came
            && let Some(node) = self.node_behind(sender, nodes, claimed)
        {
            self.sources.remember(from, node);
        }
        let mut answered = false;
        for node in nodes {
            let outcome = self.with_peer(now, node, |peer, around| peer.pinged(around, came, tx, !answered));
            answered |= outcome == Some(Pinged::Answered);
            self.refusals.flooded += u64::from(outcome == Some(Pinged::Flooded));
        }
    }

    /// The node a ping by UDP surely is from: the one it names if that has the disco key, else the only one that has.
    fn node_behind(
        &self,
        sender: DiscoPublic,
        nodes: &[NodePublic],
        claimed: Option<NodePublic>,
    ) -> Option<NodePublic> {
        let named = claimed.filter(|key| self.peers.get(key).is_some_and(|peer| peer.disco == sender));
        named.or(if let [only] = nodes { Some(*only) } else { None })
    }

    fn handle_pong(&mut self, now: Instant, came: Came, nodes: &[NodePublic], tx: TxId, size: usize) {
        for node in nodes {
            let knows = self.peers.get(node).is_some_and(|peer| peer.knows_ping(&tx));
            if !knows {
                continue;
            }
            let proved = self.with_peer(now, node, |peer, around| peer.ponged(around, came, tx, size));
            if let (Came::Udp(from, _), Some(true)) = (came, proved) {
                self.sources.remember(from, *node);
            }
            return;
        }
    }

    fn handle_call(&mut self, now: Instant, came: Came, endpoints: &[SocketAddr]) {
        let Came::Relay(_, node) = came else {
            self.refusals.bad_disco += 1;
            return;
        };
        if !self.block_direct {
            self.with_peer(now, &node, |peer, around| peer.offered(around, endpoints));
        }
    }
}

#[derive(PartialEq, Eq)]
enum Pinged {
    Answered,
    /// The same ping again, or one whose answer another peer's record already sent.
    Ignored,
    Flooded,
}

impl Peer {
    fn pinged(&mut self, around: &mut Around<'_>, came: Came, tx: TxId, answer: bool) -> Pinged {
        let now = around.now;
        let (path, socket) = (came.path(), came.socket());
        self.birthday.heard(now, socket);
        let mut fresh = false;
        let granted = match path {
            Path::Relay(_) if self.relay_ping == Some(tx) => return Pinged::Ignored,
            Path::Relay(_) => {
                self.relay_ping = Some(tx);
                self.relay_pongs.take(now, PONG_BURST, PONG_EVERY)
            }
            Path::Direct(from) => match self.learn(now, from, tx) {
                Learned::Again => return Pinged::Ignored,
                Learned::Full => false,
                Learned::New { pongs, opened } => {
                    fresh = opened;
                    pongs.take(now, PONG_BURST, PONG_EVERY)
                }
            },
        };
        if !granted {
            return Pinged::Flooded;
        }
        if answer {
            if let Path::Relay(region) = path {
                around.relays.used(now, region, &mut around.voice.out);
            }
            self.say_by(around, path, socket, &Message::pong(tx, source_of(path)));
        }
        self.reached_by(now, path, socket);
        self.ping_back(around, path, fresh);
        if answer { Pinged::Answered } else { Pinged::Ignored }
    }

    /// A ping that came through the peer's NAT and ours shows where to try at once, if we are looking; our own earlier ones
    /// may have met a closed NAT.
    fn ping_back(&mut self, around: &mut Around<'_>, path: Path, fresh: bool) {
        let Path::Direct(from) = path else { return };
        let now = around.now;
        let looking = self.is_active(now) && self.trusted(now).is_none();
        let last = self.endpoints.get(&from).and_then(|endpoint| endpoint.last_ping);
        if looking && (fresh || last.is_none_or(|last| now >= last + PING_GAP)) {
            self.ping(around, path, Purpose::Discovery);
        }
    }

    fn learn(&mut self, now: Instant, from: SocketAddr, tx: TxId) -> Learned<'_> {
        if !acceptable(&from) {
            return Learned::Full;
        }
        let Some(endpoint) = self.candidate(from) else { return Learned::Full };
        if endpoint.pinged_us.is_some_and(|(_, last)| last == tx) {
            return Learned::Again;
        }
        let before = endpoint.pinged_us.replace((now, tx));
        let opened = before.is_none_or(|(at, _)| now >= at + PING_BACK_GAP);
        Learned::New { pongs: &mut endpoint.pongs, opened }
    }

    /// Returns whether the pong proved a direct path.
    fn ponged(&mut self, around: &mut Around<'_>, came: Came, tx: TxId, size: usize) -> bool {
        self.birthday.heard(around.now, came.socket());
        let Some(sent) = self.sent.remove(&tx) else { return self.guess_answered(around, came, tx) };
        let latency = around.now.saturating_duration_since(sent.at);
        if let Purpose::User(id) = sent.purpose
            && let Some(at) = self.user_pings.iter().position(|(waiting, _)| *waiting == id)
        {
            self.user_pings.remove(at);
            let pong = Event::Pong { id, peer: self.key, latency, path: sent.path };
            around.voice.out.push_back(Output::Event(pong));
        }
        let (Path::Direct(_), Path::Direct(addr)) = (came.path(), sent.path) else { return false };
        let Some(endpoint) = self.endpoints.get_mut(&addr) else { return false };
        endpoint.proved(around.now, latency, size);
        if self.trusted(around.now) != Some(addr) {
            self.reach(addr, sent.socket);
        }
        self.proved(around.now, Candidate { addr, latency });
        true
    }

    /// Whether a ping of this number waits for its pong.
    fn knows_ping(&self, tx: &TxId) -> bool {
        self.sent.contains_key(tx) || self.birthday.knows(tx)
    }

    /// A small ping of birthday probing found a hole: a padded one may now prove the path. Nothing is proved yet.
    fn guess_answered(&mut self, around: &mut Around<'_>, came: Came, tx: TxId) -> bool {
        let Some((addr, socket)) = self.birthday.answered(&tx) else { return false };
        if around.block_direct || !matches!(came, Came::Udp(..)) {
            return false;
        }
        let Some(endpoint) = self.candidate(addr) else { return false };
        endpoint.guessed = true;
        endpoint.pinged_us.get_or_insert((around.now, tx));
        self.reached_by(around.now, Path::Direct(addr), socket);
        self.birthday.won();
        self.ping(around, Path::Direct(addr), Purpose::Discovery);
        false
    }

    /// A message of the peer came from `path` to one of our sockets: try that one, unless the path is proved already.
    fn reached_by(&mut self, now: Instant, path: Path, socket: Socket) {
        if let Path::Direct(addr) = path
            && self.trusted(now) != Some(addr)
        {
            self.reach(addr, socket);
        }
    }

    fn reach(&mut self, addr: SocketAddr, socket: Socket) {
        if let Some(endpoint) = self.endpoints.get_mut(&addr) {
            endpoint.socket = socket;
        }
        if socket != OWN {
            self.birthday.won();
        }
    }

    /// A call-me-maybe: its list replaces that of the one before.
    fn offered(&mut self, around: &mut Around<'_>, all: &[SocketAddr]) {
        self.endpoints.values_mut().for_each(|endpoint| endpoint.called = false);
        let offered = all.iter().copied().map(canonical).filter(acceptable).take(MAX_ENDPOINTS);
        for addr in offered {
            if let Some(endpoint) = self.candidate(addr) {
                endpoint.called = true;
            }
        }
        self.drop_dead(around.now);
        self.called(around);
        self.announced(around, all);
    }
}

enum Learned<'a> {
    New {
        pongs: &'a mut Allowance,
        /// The address was silent before.
        opened: bool,
    },
    Again,
    Full,
}
