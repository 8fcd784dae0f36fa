//! One node: its peers' sessions, its paths, its stack, and the order in which they are served.
//!
//! Every pass of the loop is the same: inputs were taken; timers that are due act; then packets, stream data and answers
//! are moved until nothing moves any more; then what gathered leaves, one system call a batch.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use netstack::Stack;
use paths::{Local, Paths, PeerFacts, PeerRecord};
use tunnel::{PeerConfig, PeerId, Tunnel};
use wire::derpmap::DerpMap;
use wire::keys::{DiscoPrivate, DiscoPublic, NodePrivate, NodePublic};

use crate::callers::Callers;
use crate::command::{DatagramCounts, NodeSettings, Peer, Request, Stats};
use crate::datagrams::Datagrams;
use crate::engine::Mailbox;
use crate::events::{Answer, Event, Events, Failure, NodeId, RequestId};
use crate::interfaces::Network;
use crate::outlet::{Exit, Outlet};
use crate::pings::Pings;
use crate::reactor::{Interest, Reactor, Source};
use crate::relays::{How, Relays};
use crate::streams::{Context, Purpose, Streams};
use crate::udp::{Batch, Port, Udp};

mod arrivals;
mod pass;

/// Buffers of the data thread, borrowed by one node at a time.
pub(crate) struct Scratch {
    pub(crate) udp: Batch,
    pub(crate) relay: Vec<u8>,
}

/// A node and all it owns.
pub(crate) struct Node {
    id: NodeId,
    key: NodePublic,
    disco: DiscoPublic,
    settings: NodeSettings,
    peers: Vec<Peer>,
    tunnel: Tunnel,
    stack: Stack,
    outlet: Outlet,
    streams: Streams,
    datagrams: Datagrams,
    callers: Callers,
    pings: Pings,
    /// Requests for a check of the network.
    checks: Vec<RequestId>,
    /// Regions whose trouble was told, and is not over.
    troubled: BTreeSet<u16>,
    mailbox: Mailbox,
    events: Arc<Events>,
    /// The sink took no more: until then only readiness makes the stack run again.
    stalled_until: Option<Instant>,
    received_packets: u64,
    received_bytes: u64,
    refused: u64,
}

impl Node {
    /// Makes the keys and binds the sockets; runs on the caller's thread.
    pub(crate) fn new(
        id: NodeId,
        settings: NodeSettings,
        mailbox: Mailbox,
        events: Arc<Events>,
    ) -> io::Result<Self> {
        let now = Instant::now();
        let private = NodePrivate::generate();
        let disco = DiscoPrivate::generate();
        let (key, disco_public) = (private.public(), disco.public());
        let v4 = Udp::bind(false, settings.listen_port).ok();
        let v6 = Udp::bind(true, v4.as_ref().map_or(settings.listen_port, Udp::port))
            .or_else(|_| Udp::bind(true, 0))
            .ok();
        if settings.listen_port != 0
            && v4.as_ref().or(v6.as_ref()).map(Udp::port) != Some(settings.listen_port)
        {
            return Err(io::Error::from(io::ErrorKind::AddrInUse));
        }
        let (paths_seed, stack_seed, ping_seed) = (random()?, random()?, random()?);
        let config =
            paths::Config { disco, node: key, seed: paths_seed, block_direct: settings.block_direct };
        let how = How {
            force_websocket: settings.force_websockets,
            headers: settings.headers.clone(),
            proxies: settings.proxies.clone(),
            roots: settings.roots.clone(),
            identity: settings.identity.clone(),
        };
        let relays = Relays::new(id, private.clone(), mailbox.clone(), how);
        let outlet = Outlet::new(id, Paths::new(config, now), relays, v4, v6);
        Ok(Self {
            id,
            key,
            disco: disco_public,
            peers: Vec::new(),
            tunnel: Tunnel::new(&private),
            stack: Stack::new(netstack::Config::new(settings.addresses.clone()), stack_seed, now),
            outlet,
            streams: Streams::default(),
            datagrams: Datagrams::default(),
            callers: Callers::new(random()?),
            pings: Pings::new(ping_seed),
            checks: Vec::new(),
            troubled: BTreeSet::new(),
            settings,
            mailbox,
            events,
            stalled_until: None,
            received_packets: 0,
            received_bytes: 0,
            refused: 0,
        })
    }

    pub(crate) fn id(&self) -> NodeId {
        self.id
    }

    pub(crate) fn key(&self) -> NodePublic {
        self.key
    }

    pub(crate) fn disco(&self) -> DiscoPublic {
        self.disco
    }

    /// Joins the loop.
    pub(crate) fn enter(&mut self, now: Instant, reactor: &Reactor, network: &Network) {
        for (udp, port) in self.outlet.sockets() {
            let _ = reactor.add(udp, Source::Udp(self.id, port), Interest::READ);
        }
        self.set_local(now, network);
    }

    /// Answers whether it is news.
    fn set_local(&mut self, now: Instant, network: &Network) -> bool {
        let local = Local {
            addresses: network.addresses.clone(),
            port_v4: self.outlet.socket(Port::V4).map(Udp::port),
            port_v6: self.outlet.socket(Port::V6).map(Udp::port),
        };
        self.outlet.paths.set_local(now, local)
    }

    /// The network is another one, or may be: the machine moved or slept. The sockets are bound to no address, so they stay.
    /// `removed` are addresses that were taken away, though they may be back.
    pub(crate) fn network_changed(&mut self, now: Instant, network: &Network, removed: &[IpAddr]) {
        if !self.set_local(now, network) {
            self.outlet.paths.network_changed(now);
        }
        for (region, text) in self.outlet.relays.network_changed(now, &network.addresses, removed) {
            self.relay_lost(now, region, text);
        }
        self.stack.kick(now);
        self.tell(Event::NetworkChanged);
    }

    /// Something about the network changed that we cannot see.
    pub(crate) fn network_stirred(&mut self, now: Instant) {
        self.outlet.paths.network_stirred(now);
    }

    // ---- what Python says

    pub(crate) fn set_map(&mut self, now: Instant, map: DerpMap) {
        self.outlet.relays.set_map(map.clone());
        self.outlet.paths.set_map(now, map);
    }

    pub(crate) fn set_block_direct(&mut self, now: Instant, block: bool) {
        self.outlet.paths.set_block_direct(now, block);
    }

    pub(crate) fn set_mapped(&mut self, now: Instant, mapped: &[SocketAddr]) {
        self.outlet.paths.set_mapped(now, mapped);
    }

    pub(crate) fn set_force_websockets(&mut self, force: bool) {
        self.outlet.relays.set_force_websocket(force);
    }

    /// A peer that is left out is gone at once, and so are all streams to it.
    pub(crate) fn set_peers(&mut self, now: Instant, reactor: &Reactor, peers: Vec<Peer>) {
        self.end_streams(now, reactor, &peers);
        let records: Vec<PeerRecord> = peers
            .iter()
            .map(|peer| PeerRecord {
                key: peer.key,
                disco: peer.disco,
                home: peer.home,
                endpoints: peer.endpoints.clone(),
            })
            .collect();
        self.outlet.paths.set_peers(now, &records);
        // Another disco key under the same node key is another process: the old session means nothing to it.
        for old in &self.peers {
            if peers.iter().any(|new| new.key == old.key && new.disco != old.disco) {
                self.tunnel.reset(&old.key);
            }
        }
        let configs: Vec<PeerConfig> = peers
            .iter()
            .map(|peer| PeerConfig {
                key: peer.key,
                addresses: peer.addresses.clone(),
                keepalive: peer.keepalive,
            })
            .collect();
        let mut first: Vec<(PeerId, Vec<u8>)> = Vec::new();
        self.tunnel.set_peers(now, &configs, &mut |peer, datagram| first.push((peer, datagram.to_vec())));
        let tunnel = &self.tunnel;
        self.outlet
            .set_keys(configs.iter().filter_map(|config| Some((tunnel.peer(&config.key)?, config.key))));
        for (peer, datagram) in first {
            self.outlet.push(now, peer, &datagram);
        }
        self.peers = peers;
    }

    /// Cuts the streams to addresses that none of `staying` has. Their peers hear of it while there is still a session.
    fn end_streams(&mut self, now: Instant, reactor: &Reactor, staying: &[Peer]) {
        let stays: BTreeSet<&Ipv6Addr> = staying.iter().flat_map(|peer| &peer.addresses).collect();
        let known = self.peers.iter().flat_map(|peer| &peer.addresses);
        let gone: Vec<Ipv6Addr> = known.filter(|address| !stays.contains(address)).copied().collect();
        if gone.is_empty() {
            return;
        }
        self.with_streams(now, reactor, |streams, cx| streams.abort_to(cx, &gone));
        self.outlet.begin();
        self.stack.poll(now, &mut Exit::new(now, &mut self.tunnel, &mut self.outlet));
        self.outlet.flush(now, reactor);
    }

    pub(crate) fn request(&mut self, now: Instant, reactor: &Reactor, request: RequestId, what: Request) {
        match what {
            Request::Ping(address) => {
                match self.tunnel.peer_at(&address).and_then(|peer| self.tunnel.key(peer)) {
                    Some(key) => self.outlet.paths.ping(now, &key, request),
                    None => self.answer(request, Answer::Failed(Failure::NoPeer)),
                }
            }
            Request::Check => {
                self.checks.push(request);
                self.outlet.paths.check(now);
            }
            Request::Reach(address) => self.pings.reach(now, request, address),
            Request::Echo(address) => self.pings.echo(now, request, address, &mut self.stack),
            Request::Connect(to) => self.open(now, reactor, request, to, Purpose::Descriptor),
            Request::Splice(to, fd) => self.open(now, reactor, request, to, Purpose::Splice(fd)),
            Request::Datagrams(to, socket) => {
                if let Err(error) = self.callers.open(self.id, reactor, request, to, socket) {
                    self.answer(request, Answer::Failed(Failure::System(error.to_string())));
                }
            }
            Request::Speedtest { peer, duration, direction } => {
                self.open(now, reactor, request, peer, Purpose::Speedtest(direction, duration));
            }
        }
    }

    fn open(
        &mut self,
        now: Instant,
        reactor: &Reactor,
        request: RequestId,
        to: SocketAddrV6,
        purpose: Purpose,
    ) {
        self.with_streams(now, reactor, |streams, cx| streams.open(cx, request, to, purpose));
    }

    pub(crate) fn cancel(&mut self, now: Instant, reactor: &Reactor, request: RequestId) {
        self.pings.cancel(request);
        self.checks.retain(|waiting| *waiting != request);
        self.callers.cancel(reactor, request);
        self.with_streams(now, reactor, |streams, cx| streams.cancel(cx, request));
    }

    pub(crate) fn stats(&self, reply: &SyncSender<Stats>) {
        let tunnel = self.tunnel.counters();
        let _ = reply.try_send(Stats {
            received_bytes: self.received_bytes,
            sent_bytes: self.outlet.sent_bytes,
            received_packets: self.received_packets,
            sent_packets: self.outlet.sent_packets,
            refused: self.refused
                + tunnel.malformed
                + tunnel.unknown_peer
                + tunnel.not_authentic
                + tunnel.foreign_address,
            streams: self.streams.len() as u64,
        });
    }

    pub(crate) fn datagram_counts(&self, request: RequestId, reply: &SyncSender<Option<DatagramCounts>>) {
        let _ = reply.try_send(self.callers.counts(request));
    }

    pub(crate) fn last_handshake(&self, peer: &NodePublic, reply: &SyncSender<Option<Duration>>) {
        let _ = reply.try_send(self.tunnel.last_handshake(peer));
    }

    pub(crate) fn udp_ports(&self, reply: &SyncSender<(u16, u16)>) {
        let number = |port| self.outlet.socket(port).map_or(0, Udp::port);
        let _ = reply.try_send((number(Port::V4), number(Port::V6)));
    }

    pub(crate) fn peer_paths(&self, now: Instant, peer: &NodePublic, reply: &SyncSender<Option<PeerFacts>>) {
        let _ = reply.try_send(self.outlet.paths.facts(now, peer));
    }

    /// Fails what still waits and tells peers of streams that end with the node, as far as sockets take it at once.
    pub(crate) fn close(mut self, now: Instant, reactor: &Reactor) {
        let mut requests = std::mem::take(&mut self.checks);
        requests.extend(self.callers.close(reactor));
        for request in requests.into_iter().chain(self.pings.requests()).chain(self.streams.requests()) {
            self.answer(request, Answer::Failed(Failure::Closed));
        }
        self.with_streams(now, reactor, Streams::abort);
        self.stack.give_up();
        self.outlet.begin();
        self.stack.poll(now, &mut Exit::new(now, &mut self.tunnel, &mut self.outlet));
        self.outlet.flush(now, reactor);
        self.outlet.relays.flush(reactor);
    }

    fn with_streams(
        &mut self,
        now: Instant,
        reactor: &Reactor,
        act: impl FnOnce(&mut Streams, &mut Context<'_>),
    ) {
        let mut cx = Context { now, node: self.id, stack: &mut self.stack, reactor, events: &self.events };
        act(&mut self.streams, &mut cx);
    }

    fn answer(&self, request: RequestId, answer: Answer) {
        self.tell(Event::Done { request, answer });
    }

    fn tell(&self, event: Event) {
        self.events.push(self.id, event);
    }
}

fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(u64::from_ne_bytes(bytes))
}
