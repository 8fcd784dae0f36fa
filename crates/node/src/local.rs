//! One node: its peers' sessions, its paths, its stack, and the order in which they are served.
//!
//! Every pass of the loop is the same: inputs were taken; timers that are due act; then packets, stream data and answers
//! are moved until nothing moves any more; then what gathered leaves, one system call a batch.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use netstack::Stack;
use paths::{Class, Local, Output, Paths, PeerFacts, PeerRecord, Socket};
use tunnel::{PeerConfig, PeerId, Tunnel};
use wire::derpmap::DerpMap;
use wire::keys::{DiscoPrivate, DiscoPublic, NodePrivate, NodePublic};

use crate::command::{Command, NodeSettings, Peer, PortUse, Request, Stats};
use crate::datagrams::Datagrams;
use crate::engine::Mailbox;
use crate::events::{Answer, Event, Events, Failure, NodeId, RequestId};
use crate::interfaces::Network;
use crate::link::News;
use crate::outlet::{Exit, Outlet};
use crate::pings::Pings;
use crate::reactor::{Interest, Reactor, Source};
use crate::relays::{How, Relays};
use crate::streams::{Context, Purpose, Streams};
use crate::udp::{Batch, Port, Udp};

/// Rounds of moving data in one pass; work that is left makes the next pass start at once.
const ROUNDS: usize = 8;
/// While a socket is full, timers of flows that do not wait for it are looked at this often.
const STALL: Duration = Duration::from_millis(5);
/// Receives from one socket for one readiness.
const RECEIVES: usize = 4;

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
    pings: Pings,
    /// Requests for a check of the network.
    checks: Vec<RequestId>,
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
            pings: Pings::new(ping_seed),
            checks: Vec::new(),
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

    pub(crate) fn set_peers(&mut self, now: Instant, peers: Vec<Peer>) {
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
        let checks = std::mem::take(&mut self.checks);
        for request in checks.into_iter().chain(self.pings.requests()).chain(self.streams.requests()) {
            self.answer(request, Answer::Failed(Failure::Closed));
        }
        self.with_streams(now, reactor, Streams::abort);
        self.stack.give_up();
        self.outlet.begin();
        self.stack.poll(now, &mut Exit::new(now, &mut self.tunnel, &mut self.outlet));
        self.outlet.flush(now, reactor);
        self.outlet.relays.flush(reactor);
    }

    // ---- what the network says

    pub(crate) fn dialled(
        &mut self,
        now: Instant,
        reactor: &Reactor,
        region: u16,
        generation: u64,
        result: Result<dial::Connected, dial::DialError>,
    ) {
        match self.outlet.relays.dialled(now, region, generation, result, reactor) {
            None => {}
            Some(Ok(websocket)) => {
                if let Some(reason) = websocket {
                    self.tell(Event::ForcedWebsocket { region, reason });
                }
                self.outlet.paths.relay_up(now, region);
                self.stack.kick(now);
            }
            Some(Err(text)) => self.relay_lost(now, region, text),
        }
    }

    fn relay_lost(&mut self, now: Instant, region: u16, text: String) {
        self.outlet.paths.relay_down(now, region);
        self.tell(Event::RelayProblem { region, text });
    }

    pub(crate) fn measured(&mut self, now: Instant, region: u16, measured: Option<dial::Measured>) {
        let v6 = measured.is_some_and(|measured| measured.peer.is_ipv6());
        self.outlet.paths.relay_latency(now, region, measured.map(|measured| measured.latency), v6);
    }

    pub(crate) fn portal(&mut self, found: bool) {
        self.outlet.paths.captive_portal(found);
    }

    pub(crate) fn resolved(&mut self, now: Instant, region: u16, addresses: Vec<SocketAddr>) {
        self.outlet.paths.stun_resolved(now, region, addresses);
    }

    pub(crate) fn udp_ready(&mut self, now: Instant, port: Port, interest: Interest, scratch: &mut Scratch) {
        if interest.write {
            self.outlet.writable(now);
        }
        if !interest.read {
            return;
        }
        for _ in 0..RECEIVES {
            let Some(udp) = self.outlet.socket(port) else { return };
            match udp.receive(&mut scratch.udp) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The error of an earlier send; it says nothing about what can be received.
                Err(_) => continue,
            }
            let mut proven: Option<(PeerId, SocketAddr)> = None;
            let socket = port.socket();
            scratch.udp.drain(|from, datagram| self.datagram(now, socket, from, datagram, &mut proven));
            if let Some((peer, from)) = proven
                && let Some(key) = self.tunnel.key(peer)
            {
                self.outlet.paths.note_received(now, &key, from);
                self.outlet.paths.note_session(now, &key);
            }
        }
    }

    fn datagram(
        &mut self,
        now: Instant,
        socket: Socket,
        from: SocketAddr,
        datagram: BytesMut,
        proven: &mut Option<(PeerId, SocketAddr)>,
    ) {
        match self.outlet.paths.handle_udp_by(now, socket, from, &datagram) {
            Class::Consumed => {}
            Class::Drop => self.refused += 1,
            Class::WireGuard(key) => {
                let peer = key.and_then(|key| self.tunnel.peer(&key));
                if let Some(sender) = self.decrypt(now, peer, datagram) {
                    *proven = Some((sender, from));
                }
            }
        }
    }

    /// Decrypts a datagram into the stack; answers its sender.
    fn decrypt(&mut self, now: Instant, from: Option<PeerId>, datagram: BytesMut) -> Option<PeerId> {
        self.received_packets += 1;
        self.received_bytes += datagram.len() as u64;
        let outlet = &mut self.outlet;
        let outcome =
            self.tunnel.handle(now, from, datagram, &mut |peer, reply| outlet.push(now, peer, reply));
        let mut decrypted = outcome.ok().flatten()?;
        self.stack.inject(now, decrypted.bytes_mut());
        Some(decrypted.peer)
    }

    pub(crate) fn relay_ready(&mut self, now: Instant, region: u16, scratch: &mut Scratch) {
        let mut packets: Vec<(NodePublic, BytesMut)> = Vec::new();
        let mut news: Vec<News> = Vec::new();
        let outcome = self.outlet.relays.receive(
            now,
            region,
            &mut scratch.relay,
            &mut |from, payload| packets.push((from, BytesMut::from(&*payload))),
            &mut |item| news.push(item),
        );
        let mut proven: Option<NodePublic> = None;
        for (from, packet) in packets {
            if self.relayed(now, region, from, packet) && proven.replace(from) != Some(from) {
                self.outlet.paths.note_session(now, &from);
            }
        }
        for item in news {
            match item {
                News::PeerGone(peer) => self.outlet.paths.relay_peer_gone(now, region, peer),
                News::Restarting(after) => {
                    self.outlet.paths.relay_restarting(now, region, after);
                    let text = format!("the relay restarts and is back in {:.1} s", after.as_secs_f64());
                    self.tell(Event::RelayProblem { region, text });
                }
                News::Health(text) => self.tell(Event::RelayProblem { region, text }),
            }
        }
        if let Err(text) = outcome {
            self.relay_lost(now, region, text);
        }
    }

    /// Answers whether it was a packet of the peer's session.
    fn relayed(&mut self, now: Instant, region: u16, from: NodePublic, packet: BytesMut) -> bool {
        match self.outlet.paths.handle_relayed(now, region, from, &packet) {
            Class::Consumed => false,
            Class::Drop => {
                self.refused += 1;
                false
            }
            Class::WireGuard(key) => {
                let peer = key.and_then(|key| self.tunnel.peer(&key));
                self.decrypt(now, peer, packet).is_some()
            }
        }
    }

    pub(crate) fn stream_ready(&mut self, now: Instant, reactor: &Reactor, token: u32, hung_up: bool) {
        self.with_streams(now, reactor, |streams, cx| streams.ready(cx, token, hung_up));
    }

    pub(crate) fn service_ready(&mut self, now: Instant, reactor: &Reactor, index: u32) {
        self.with_streams(now, reactor, |streams, cx| streams.service_ready(cx, index));
    }

    pub(crate) fn datagrams_ready(&mut self, now: Instant, index: u32) {
        self.datagrams.ready(now, index, &mut self.stack);
    }

    // ---- one pass

    /// Serves everything that is due and moves all that can be moved.
    pub(crate) fn run(&mut self, now: Instant, reactor: &Reactor) {
        self.outlet.begin();
        self.timers(now, reactor);
        if self.stalled_until.is_some() {
            self.flush_relays(now, reactor);
        }
        for _ in 0..ROUNDS {
            self.drain_paths(now, reactor);
            let mut exit = Exit::new(now, &mut self.tunnel, &mut self.outlet);
            self.stack.poll(now, &mut exit);
            self.stalled_until = exit.refused().then(|| now + STALL);
            if !self.drain_stack(now, reactor) {
                break;
            }
        }
        self.outlet.flush(now, reactor);
        self.flush_relays(now, reactor);
        self.drain_paths(now, reactor);
        self.outlet.flush(now, reactor);
    }

    fn flush_relays(&mut self, now: Instant, reactor: &Reactor) {
        for (region, text) in self.outlet.relays.flush(reactor) {
            self.relay_lost(now, region, text);
        }
    }

    fn timers(&mut self, now: Instant, reactor: &Reactor) {
        if self.outlet.paths.next_timeout().is_some_and(|at| at <= now) {
            self.outlet.paths.handle_timeout(now);
        }
        if self.tunnel.next_tick().is_some_and(|at| at <= now) {
            let outlet = &mut self.outlet;
            self.tunnel.tick(now, &mut |peer, datagram| outlet.push(now, peer, datagram));
        }
        for (region, text) in self.outlet.relays.handle_timeout(now) {
            self.relay_lost(now, region, text);
        }
        let (id, events) = (self.id, &self.events);
        self.pings
            .poll(now, &mut self.stack, |request, answer| events.push(id, Event::Done { request, answer }));
        if self.datagrams.next_timeout().is_some_and(|at| at <= now) {
            self.datagrams.handle_timeout(now);
        }
        if self.streams.next_timeout().is_some_and(|at| at <= now) {
            self.with_streams(now, reactor, Streams::handle_timeout);
        }
    }

    /// When the node wants to run again, should nothing happen before.
    pub(crate) fn next_timeout(&mut self, now: Instant) -> Option<Instant> {
        [
            self.outlet.paths.next_timeout(),
            self.tunnel.next_tick(),
            self.outlet.relays.next_timeout(),
            self.pings.next(),
            self.datagrams.next_timeout(),
            self.streams.next_timeout(),
            self.stack_due(now),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The stack asks for a turn at once while packets wait. If they wait for a full socket, its readiness brings the turn.
    fn stack_due(&mut self, now: Instant) -> Option<Instant> {
        let due = self.stack.poll_at(now)?;
        Some(self.stalled_until.map_or(due, |until| due.max(until)))
    }

    fn drain_paths(&mut self, now: Instant, reactor: &Reactor) {
        while let Some(output) = self.outlet.paths.poll() {
            match output {
                Output::Udp { to, bytes, socket } => self.outlet.send(now, socket, to, bytes),
                Output::OpenSocket(socket) => self.outlet.open_socket(socket, reactor),
                Output::CloseSocket(socket) => self.outlet.close_socket(socket),
                Output::Relay { region, to, bytes } => self.outlet.relays.send(now, region, &to, &bytes),
                Output::OpenRelay(region) => self.outlet.relays.open(now, region),
                Output::CloseRelay(region) => self.outlet.relays.close(region),
                Output::Prefer { region, home } => self.outlet.relays.prefer(region, home),
                Output::MeasureRelay(region) => self.outlet.relays.measure(region),
                Output::ResolveStun { region, host, port } => self.resolve(region, host, port),
                Output::Event(event) => self.path_event(now, event),
            }
        }
    }

    fn path_event(&mut self, now: Instant, event: paths::Event) {
        match event {
            paths::Event::Self_ { home, latencies, endpoints } => {
                self.tell(Event::SelfChanged { home, latencies, endpoints });
            }
            paths::Event::PathChanged { peer, path } => {
                let outlet = &mut self.outlet;
                self.tunnel.retry(now, &peer, &mut |id, datagram| outlet.push(now, id, datagram));
                self.stack.kick(now);
                self.tell(Event::PathChanged { peer, path });
            }
            paths::Event::Pong { id, latency, path, .. } => self.answer(id, Answer::Pong { latency, path }),
            paths::Event::PingTimeout { id } => self.answer(id, Answer::Failed(Failure::Timeout)),
            paths::Event::Report(report) => {
                self.tell(Event::Report(Box::new(report)));
                for request in std::mem::take(&mut self.checks) {
                    self.answer(request, Answer::Checked);
                }
            }
        }
    }

    fn resolve(&self, region: u16, host: String, port: u16) {
        let (node, mailbox) = (self.id, self.mailbox.clone());
        let _ = thread::Builder::new().name("coder-resolve".into()).spawn(move || {
            let addresses =
                (host.as_str(), port).to_socket_addrs().map(Iterator::collect).unwrap_or_default();
            mailbox.send(Command::Resolved(node, region, addresses));
        });
    }

    /// Acts on the stack's events; answers whether there were any.
    fn drain_stack(&mut self, now: Instant, reactor: &Reactor) -> bool {
        let mut any = false;
        while let Some(event) = self.stack.next_event() {
            any = true;
            self.stack_event(now, reactor, event);
        }
        any
    }

    fn stack_event(&mut self, now: Instant, reactor: &Reactor, event: netstack::Event) {
        use netstack::Event as Happened;
        match event {
            Happened::Incoming { id, from, to } => {
                let port_use = self.settings.ports.get(&to.port()).copied().unwrap_or(self.settings.default);
                self.with_streams(now, reactor, |streams, cx| {
                    streams.incoming(cx, id, from, to.port(), port_use)
                });
            }
            Happened::Connected(flow) => {
                self.with_streams(now, reactor, |streams, cx| streams.connected(cx, flow))
            }
            Happened::Readable(flow) | Happened::Writable(flow) => {
                self.with_streams(now, reactor, |streams, cx| streams.pump(cx, flow));
            }
            Happened::Finished(flow) => {
                self.with_streams(now, reactor, |streams, cx| streams.finished(cx, flow))
            }
            Happened::Refused(flow) => {
                self.with_streams(now, reactor, |streams, cx| streams.lost(cx, flow, Failure::Refused));
            }
            Happened::Reset(flow) => {
                self.with_streams(now, reactor, |streams, cx| streams.lost(cx, flow, Failure::Reset));
            }
            Happened::TimedOut(flow) => {
                self.with_streams(now, reactor, |streams, cx| streams.lost(cx, flow, Failure::Timeout));
            }
            Happened::Datagram { from, to, bytes } => {
                if self.settings.default == PortUse::Splice {
                    self.datagrams.forward(now, self.id, reactor, from, to, &bytes);
                }
            }
            Happened::EchoReply { id, .. } => {
                let (node, events) = (self.id, &self.events);
                self.pings.echo_reply(now, id, |request, answer| {
                    events.push(node, Event::Done { request, answer })
                });
            }
            Happened::TsmpPong { from, data } => self.tsmp_pong(now, from, data),
        }
    }

    fn tsmp_pong(&mut self, now: Instant, from: Ipv6Addr, data: [u8; 8]) {
        let (node, events) = (self.id, &self.events);
        let done = |request, answer| events.push(node, Event::Done { request, answer });
        self.pings.tsmp_pong(now, from, data, done);
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
