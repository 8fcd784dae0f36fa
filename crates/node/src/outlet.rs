//! The way out of a node: each encrypted datagram joins its peer's batch, a batch leaves in one system call.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Instant;

use bytes::BytesMut;
use netstack::Sink;
use paths::{LONG, Paths, Route, Socket};
use tunnel::{PeerId, Tunnel};
use wire::keys::NodePublic;

use crate::events::NodeId;
use crate::reactor::{Interest, Reactor, Source};
use crate::relays::Relays;
use crate::udp::{MAX_BATCH, Port, Udp};

/// Batches that wait for a full socket; beyond these datagrams are lost, as on any full link.
const BLOCKED_LIMIT: usize = 32;

/// Datagrams of one size for one address; only the last may be shorter.
struct Batch {
    peer: PeerId,
    port: Port,
    to: SocketAddr,
    bytes: Vec<u8>,
    segment: usize,
    count: usize,
}

/// Where a peer's packets go in this pass of the loop.
struct Chosen {
    peer: PeerId,
    route: Route,
    /// A long packet is among them.
    long: bool,
}

struct Waiting {
    port: Port,
    to: SocketAddr,
    bytes: Vec<u8>,
    segment: usize,
}

/// Sockets, relays and the rules of which to use.
pub(crate) struct Outlet {
    node: NodeId,
    pub(crate) paths: Paths,
    pub(crate) relays: Relays,
    v4: Option<Udp>,
    v6: Option<Udp>,
    extra: BTreeMap<Socket, Udp>,
    keys: HashMap<PeerId, NodePublic>,
    /// Routes looked up in this pass of the loop.
    routes: Vec<Chosen>,
    batches: Vec<Batch>,
    spare: Vec<Vec<u8>>,
    waiting: VecDeque<Waiting>,
    pub(crate) sent_packets: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) dropped: u64,
}

impl Outlet {
    pub(crate) fn new(node: NodeId, paths: Paths, relays: Relays, v4: Option<Udp>, v6: Option<Udp>) -> Self {
        Self {
            node,
            paths,
            relays,
            v4,
            v6,
            extra: BTreeMap::new(),
            keys: HashMap::new(),
            routes: Vec::new(),
            batches: Vec::new(),
            spare: Vec::new(),
            waiting: VecDeque::new(),
            sent_packets: 0,
            sent_bytes: 0,
            dropped: 0,
        }
    }

    pub(crate) fn sockets(&self) -> impl Iterator<Item = (&Udp, Port)> {
        self.v4.iter().map(|udp| (udp, Port::V4)).chain(self.v6.iter().map(|udp| (udp, Port::V6)))
    }

    pub(crate) fn socket(&self, port: Port) -> Option<&Udp> {
        match port {
            Port::V4 => self.v4.as_ref(),
            Port::V6 => self.v6.as_ref(),
            Port::Extra(socket) => self.extra.get(&socket),
        }
    }

    /// Binds a socket `paths` asked for. Where the system has none left, what would go by it is lost.
    pub(crate) fn open_socket(&mut self, socket: Socket, reactor: &Reactor) {
        let Ok(udp) = Udp::bind_small(false, 0) else { return };
        if reactor.add(&udp, Source::Udp(self.node, Port::Extra(socket)), Interest::READ).is_ok() {
            self.extra.insert(socket, udp);
        }
    }

    pub(crate) fn close_socket(&mut self, socket: Socket) {
        self.extra.remove(&socket);
        self.waiting.retain(|waiting| waiting.port != Port::Extra(socket));
    }

    /// Tells which key a peer has; the sessions' ids mean nothing to `paths`.
    pub(crate) fn set_keys(&mut self, keys: impl Iterator<Item = (PeerId, NodePublic)>) {
        self.keys = keys.collect();
        self.routes.clear();
    }

    /// Forgets the routes of the last pass.
    pub(crate) fn begin(&mut self) {
        self.routes.clear();
    }

    fn route(&mut self, now: Instant, peer: PeerId) -> Route {
        if let Some(chosen) = self.routes.iter().find(|chosen| chosen.peer == peer) {
            return chosen.route;
        }
        let route = self.keys.get(&peer).map(|key| self.paths.route(now, key)).unwrap_or_default();
        self.routes.push(Chosen { peer, route, long: false });
        route
    }

    fn note_long(&mut self, now: Instant, peer: PeerId) {
        let chosen = self.routes.iter_mut().find(|chosen| chosen.peer == peer && !chosen.long);
        if let (Some(chosen), Some(key)) = (chosen, self.keys.get(&peer)) {
            chosen.long = true;
            self.paths.note_long(now, key);
        }
    }

    /// Whether packets for a peer should wait: its socket or its relay connection is full.
    fn congested(&mut self, now: Instant, peer: PeerId) -> bool {
        let route = self.route(now, peer);
        match (route.udp, route.relay) {
            (Some(_), _) if !self.waiting.is_empty() => true,
            (None, Some(region)) => self.relays.congested(region),
            _ => false,
        }
    }

    /// Takes one encrypted datagram for a peer.
    pub(crate) fn push(&mut self, now: Instant, peer: PeerId, datagram: &[u8]) {
        let route = self.route(now, peer);
        self.sent_packets += 1;
        self.sent_bytes += datagram.len() as u64;
        if let (Some(region), Some(key)) = (route.relay, self.keys.get(&peer)) {
            self.relays.send(now, region, key, datagram);
        }
        if let Some(to) = route.udp {
            if datagram.len() >= LONG {
                self.note_long(now, peer);
            }
            self.batch(now, peer, Port::of(route.socket, to), to, datagram);
        }
    }

    fn batch(&mut self, now: Instant, peer: PeerId, port: Port, to: SocketAddr, datagram: &[u8]) {
        let limit = self.socket(port).map_or(1, Udp::max_segments);
        let place =
            self.batches.iter().position(|batch| batch.peer == peer && batch.to == to && batch.port == port);
        let index = match place {
            Some(index) => {
                let batch = &self.batches[index];
                let fits = batch.bytes.len() + datagram.len() <= MAX_BATCH && batch.count < limit;
                let regular = batch.bytes.len() == batch.count * batch.segment;
                if !(fits && regular && datagram.len() <= batch.segment) {
                    self.leave(now, index);
                    self.start(peer, port, to, datagram.len())
                } else {
                    index
                }
            }
            None => self.start(peer, port, to, datagram.len()),
        };
        let batch = &mut self.batches[index];
        batch.bytes.extend_from_slice(datagram);
        batch.count += 1;
    }

    fn start(&mut self, peer: PeerId, port: Port, to: SocketAddr, segment: usize) -> usize {
        let bytes = self.spare.pop().unwrap_or_default();
        self.batches.push(Batch { peer, port, to, bytes, segment, count: 0 });
        self.batches.len() - 1
    }

    fn leave(&mut self, now: Instant, index: usize) {
        let batch = self.batches.swap_remove(index);
        self.transmit(now, batch.port, batch.to, batch.bytes, batch.segment);
    }

    /// Sends every batch and what the relays have.
    pub(crate) fn flush(&mut self, now: Instant, reactor: &Reactor) {
        while let Some(batch) = self.batches.pop() {
            self.transmit(now, batch.port, batch.to, batch.bytes, batch.segment);
        }
        let own = self.v4.iter_mut().map(|udp| (udp, Port::V4));
        let own = own.chain(self.v6.iter_mut().map(|udp| (udp, Port::V6)));
        let extra = self.extra.iter_mut().map(|(socket, udp)| (udp, Port::Extra(*socket)));
        for (udp, port) in own.chain(extra) {
            let blocked = self.waiting.iter().any(|waiting| waiting.port == port);
            if blocked != udp.blocked {
                udp.blocked = blocked;
                reactor.set(
                    udp.as_fd(),
                    Source::Udp(self.node, port),
                    Interest { read: true, write: blocked },
                );
            }
        }
    }

    /// Sends one datagram of `paths`' own.
    pub(crate) fn send(&mut self, now: Instant, socket: Socket, to: SocketAddr, bytes: Vec<u8>) {
        let segment = bytes.len();
        self.transmit(now, Port::of(socket, to), to, bytes, segment);
    }

    /// A socket has room again.
    pub(crate) fn writable(&mut self, now: Instant) {
        for waiting in std::mem::take(&mut self.waiting) {
            self.transmit(now, waiting.port, waiting.to, waiting.bytes, waiting.segment);
        }
    }

    fn transmit(&mut self, now: Instant, port: Port, to: SocketAddr, bytes: Vec<u8>, segment: usize) {
        let Some(udp) = self.socket(port) else { return };
        let full = if self.waiting.is_empty() {
            match udp.send(to, &bytes, segment.max(1)) {
                Ok(()) => false,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
                Err(_) => {
                    self.paths.udp_failed(now, to);
                    false
                }
            }
        } else {
            true
        };
        if !full {
            self.recycle(bytes);
        } else if self.waiting.len() < BLOCKED_LIMIT {
            self.waiting.push_back(Waiting { port, to, bytes, segment });
        } else {
            self.dropped += 1;
        }
    }

    fn recycle(&mut self, mut bytes: Vec<u8>) {
        if self.spare.len() < 4 && bytes.capacity() <= 2 * MAX_BATCH {
            bytes.clear();
            self.spare.push(bytes);
        }
    }
}

/// Where the stack's packets go: each is written once, then encrypted into its peer's batch.
pub(crate) struct Exit<'a> {
    pub(crate) now: Instant,
    pub(crate) tunnel: &'a mut Tunnel,
    pub(crate) outlet: &'a mut Outlet,
    packet: BytesMut,
    to: Option<PeerId>,
    latest: Option<(Ipv6Addr, Option<PeerId>)>,
    refused: bool,
}

impl<'a> Exit<'a> {
    pub(crate) fn new(now: Instant, tunnel: &'a mut Tunnel, outlet: &'a mut Outlet) -> Self {
        Self { now, tunnel, outlet, packet: BytesMut::new(), to: None, latest: None, refused: false }
    }

    /// Whether a packet had to stay because its socket is full.
    pub(crate) fn refused(&self) -> bool {
        self.refused
    }

    fn peer(&mut self, destination: &Ipv6Addr) -> Option<PeerId> {
        if let Some((address, peer)) = &self.latest
            && address == destination
        {
            return *peer;
        }
        let peer = self.tunnel.peer_at(destination);
        self.latest = Some((*destination, peer));
        peer
    }
}

impl Sink for Exit<'_> {
    fn buffer(&mut self, destination: &Ipv6Addr) -> Option<&mut [u8]> {
        let peer = self.peer(destination);
        if let Some(peer) = peer
            && self.outlet.congested(self.now, peer)
        {
            self.refused = true;
            return None;
        }
        self.to = peer;
        if self.packet.len() != tunnel::MTU {
            self.packet = BytesMut::zeroed(tunnel::MTU);
        }
        Some(&mut self.packet)
    }

    /// A packet for an address that is no peer's goes nowhere.
    fn commit(&mut self, len: usize) {
        let Some(peer) = self.to.take() else { return };
        let mut packet = std::mem::take(&mut self.packet);
        packet.truncate(len);
        let (now, outlet) = (self.now, &mut *self.outlet);
        self.tunnel.encapsulate(now, peer, packet, &mut |peer, datagram| outlet.push(now, peer, datagram));
    }
}
