//! Several nodes, a relay and STUN servers in one simulated network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use paths::{Class, Config, Event, Local, Output, Path, Paths, PeerRecord, Route, Socket};
use sim::{Arrival, Host, Kind, Network};
use wire::derpmap::{DerpMap, Region, RelayNode};
use wire::keys::{DiscoPrivate, DiscoPublic, NodePublic};
use wire::{disco, stun};

pub const REGION: u16 = 999;
/// Bytes of a ping without padding.
const SMALL_PING: usize = 124;
const DIAL: Duration = Duration::from_millis(5);

pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub fn node_key(number: u8) -> NodePublic {
    NodePublic::from_bytes([number; 32])
}

pub fn disco_private(number: u8) -> DiscoPrivate {
    DiscoPrivate::from_bytes([number; 32])
}

pub fn relay_region(id: u16) -> Region {
    let node = RelayNode {
        name: format!("{id}b"),
        region_id: id,
        host: "relay.test".into(),
        stun_port: -1,
        ..<_>::default()
    };
    Region { id, embedded: id == REGION, nodes: vec![node], ..<_>::default() }
}

pub fn stun_region(id: u16, server: SocketAddr) -> Region {
    let node = RelayNode {
        name: format!("{id}stun0"),
        region_id: id,
        host: "stun.test".into(),
        ipv4: server.ip().to_string(),
        stun_port: i64::from(server.port()),
        stun_only: true,
        ..<_>::default()
    };
    Region { id, nodes: vec![node], ..<_>::default() }
}

pub fn map_of(regions: impl IntoIterator<Item = Region>) -> DerpMap {
    DerpMap { regions: regions.into_iter().map(|region| (region.id, region)).collect(), ..<_>::default() }
}

/// What a node put on the wire.
#[derive(Clone, Debug, PartialEq)]
pub struct Sight {
    pub at: Duration,
    pub from: usize,
    pub by: &'static str,
    pub kind: &'static str,
    pub size: usize,
}

pub struct Node {
    pub paths: Paths,
    pub host: Host,
    pub key: NodePublic,
    pub disco: DiscoPublic,
    pub home: u16,
    pub endpoints: Vec<SocketAddr>,
    pub events: Vec<(Duration, Event)>,
    /// Extra sockets that are open.
    pub sockets: BTreeSet<Socket>,
    /// When data arrived, and whether directly.
    pub data: Vec<(Duration, bool)>,
}

enum Later {
    Up(usize, u16),
    Measured(usize, u16),
}

pub struct World {
    pub net: Network,
    pub nodes: Vec<Node>,
    pub sights: Vec<Sight>,
    stuns: Vec<Host>,
    map: DerpMap,
    later: BTreeMap<(Instant, u64), Later>,
    count: u64,
}

impl World {
    /// Two STUN servers and the given nodes, introduced to each other, with half a second to settle.
    pub fn new(kinds: &[Kind]) -> Self {
        Self::seeded(kinds, 7)
    }

    /// The same with other chance.
    pub fn seeded(kinds: &[Kind], seed: u64) -> Self {
        let mut world = Self::unmet(kinds, true, seed);
        world.run(ms(500));
        world.introduce();
        world
    }

    pub fn strangers(kinds: &[Kind], with_stun: bool) -> Self {
        Self::unmet(kinds, with_stun, 7)
    }

    fn unmet(kinds: &[Kind], with_stun: bool, seed: u64) -> Self {
        let start = Instant::now();
        let mut net = Network::new(start, seed);
        let stuns: Vec<Host> = (0..2).map(|_| net.add_host(Kind::Open)).collect();
        let mut regions = vec![relay_region(REGION)];
        if with_stun {
            let servers = stuns.iter().zip(1000..);
            regions.extend(servers.map(|(host, id)| stun_region(id, net.address(*host))));
        }
        let map = map_of(regions);
        let nodes = Vec::new();
        let (sights, later) = (Vec::new(), BTreeMap::new());
        let mut world = Self { net, nodes, sights, stuns, map: map.clone(), later, count: 0 };
        for (kind, number) in kinds.iter().zip(1..) {
            world.add(*kind, number, seed, &map);
        }
        world
    }

    /// Two nodes behind one NAT, introduced.
    pub fn neighbours(kind: Kind, hairpin: bool) -> Self {
        let mut world = Self::unmet(&[kind], true, 7);
        let host = world.net.add_neighbour(world.nodes[0].host);
        world.net.set_hairpin(host, hairpin);
        let map = world.map.clone();
        world.settle(host, 2, 7, &map);
        world.run(ms(500));
        world.introduce();
        world
    }

    fn add(&mut self, kind: Kind, number: u8, seed: u64, map: &DerpMap) {
        let host = self.net.add_host(kind);
        self.settle(host, number, seed, map);
    }

    fn settle(&mut self, host: Host, number: u8, seed: u64, map: &DerpMap) {
        let now = self.net.now();
        let (key, disco) = (node_key(number), disco_private(number));
        let public = disco.public();
        let config = Config { disco, node: key, seed: seed * 1000 + u64::from(number), block_direct: false };
        let mut paths = Paths::new(config, now);
        paths.set_local(now, local(self.net.address(host)));
        paths.set_map(now, map.clone());
        let (events, data) = (Vec::new(), Vec::new());
        self.nodes.push(Node {
            paths,
            host,
            key,
            disco: public,
            home: 0,
            endpoints: Vec::new(),
            sockets: BTreeSet::new(),
            events,
            data,
        });
        self.drain(self.nodes.len() - 1);
    }

    /// Gives every node the present record of every other.
    pub fn introduce(&mut self) {
        let now = self.net.now();
        let record = |n: &Node| PeerRecord {
            key: n.key,
            disco: n.disco,
            home: n.home,
            endpoints: n.endpoints.clone(),
        };
        let records: Vec<PeerRecord> = self.nodes.iter().map(record).collect();
        for node in 0..self.nodes.len() {
            let others: Vec<_> = records.iter().filter(|r| r.key != self.nodes[node].key).cloned().collect();
            self.nodes[node].paths.set_peers(now, &others);
            self.drain(node);
        }
    }

    /// Sends one WireGuard-like packet.
    pub fn send(&mut self, from: usize, to: usize) -> Route {
        let now = self.net.now();
        let peer = self.nodes[to].key;
        let route = self.nodes[from].paths.route(now, &peer);
        let bytes = vec![4, 0, 0, 0, 1, 2, 3, 4];
        if let Some(addr) = route.udp {
            self.see(from, "udp", &bytes);
            self.net.send_by(self.nodes[from].host, route.socket, addr, bytes.clone());
        }
        if let Some(region) = route.relay {
            self.see(from, "derp", &bytes);
            self.net.send_relayed(self.nodes[from].host, region, self.nodes[to].host, bytes);
        }
        self.drain(from);
        route
    }

    /// Lets both ends send to each other every `every`, for `time`.
    pub fn converse(&mut self, a: usize, b: usize, every: Duration, time: Duration) {
        let until = self.net.now() + time;
        while self.net.now() < until {
            self.send(a, b);
            self.send(b, a);
            self.run(every);
        }
    }

    pub fn run(&mut self, time: Duration) {
        let until = self.net.now() + time;
        loop {
            let timer = self.nodes.iter().filter_map(|node| node.paths.next_timeout()).min();
            let later = self.later.keys().next().map(|(at, _)| *at);
            let next = [timer, later].into_iter().flatten().min().map_or(until, |at| at.min(until));
            if let Some(arrival) = self.net.next_arrival(next) {
                self.arrive(arrival);
                continue;
            }
            self.wake();
            if self.net.now() >= until {
                return;
            }
        }
    }

    pub fn act(&mut self, node: usize, act: impl FnOnce(&mut Paths, Instant)) {
        act(&mut self.nodes[node].paths, self.net.now());
        self.drain(node);
    }

    /// The last path the node told for the peer.
    pub fn path(&self, node: usize, peer: usize) -> Option<Path> {
        let key = self.nodes[peer].key;
        self.nodes[node].events.iter().rev().find_map(|(_, event)| match event {
            Event::PathChanged { peer, path } if *peer == key => Some(*path),
            _ => None,
        })
    }

    pub fn is_direct(&self, node: usize, peer: usize) -> bool {
        matches!(self.path(node, peer), Some(Path::Direct(_)))
    }

    /// When a node first told a direct (or relayed) path at or after `since`.
    pub fn when(&self, node: usize, direct: bool, since: Duration) -> Option<Duration> {
        let mut changes = self.nodes[node].events.iter().filter(|(at, _)| *at >= since);
        changes.find_map(|(at, event)| match event {
            Event::PathChanged { path, .. } => (matches!(path, Path::Direct(_)) == direct).then_some(*at),
            _ => None,
        })
    }

    pub fn roam(&mut self, node: usize) {
        let host = self.nodes[node].host;
        self.net.move_host(host);
        let address = self.net.address(host);
        self.act(node, |paths, now| assert!(paths.set_local(now, local(address))));
    }

    fn wake(&mut self) {
        let now = self.net.now();
        while let Some(entry) = self.later.first_entry()
            && entry.key().0 <= now
        {
            match entry.remove() {
                Later::Up(node, region) => self.act(node, |paths, now| paths.relay_up(now, region)),
                Later::Measured(node, region) => {
                    self.act(node, |paths, now| paths.relay_latency(now, region, Some(ms(20)), false));
                }
            }
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].paths.next_timeout().is_some_and(|at| at <= now) {
                self.act(node, |paths, now| paths.handle_timeout(now));
                let next = self.nodes[node].paths.next_timeout();
                assert!(next.is_none_or(|at| at > now), "a busy loop");
            }
        }
    }

    fn arrive(&mut self, arrival: Arrival) {
        let now = self.net.now();
        let at = self.net.elapsed();
        match arrival {
            Arrival::Datagram { host, from, bytes, .. } if self.stuns.contains(&host) => {
                if let Ok(tx) = stun::parse_request(&bytes) {
                    self.net.send(host, from, stun::response(tx, from));
                }
            }
            Arrival::Datagram { host, socket, from, bytes } => {
                let Some(index) = self.nodes.iter().position(|node| node.host == host) else { return };
                let node = &mut self.nodes[index];
                if let Class::WireGuard(peer) = node.paths.handle_udp_by(now, socket, from, &bytes) {
                    node.data.push((at, true));
                    if let Some(peer) = peer {
                        node.paths.note_received(now, &peer, from);
                        node.paths.note_session(now, &peer);
                    }
                }
                self.drain(index);
            }
            Arrival::Relayed { host, region, from, bytes } => {
                let index = self.nodes.iter().position(|node| node.host == host).unwrap();
                let sender = self.nodes.iter().find(|node| node.host == from).unwrap().key;
                let node = &mut self.nodes[index];
                if let Class::WireGuard(_) = node.paths.handle_relayed(now, region, sender, &bytes) {
                    node.data.push((at, false));
                    node.paths.note_session(now, &sender);
                }
                self.drain(index);
            }
        }
    }

    fn drain(&mut self, index: usize) {
        let at = self.net.elapsed();
        while let Some(output) = self.nodes[index].paths.poll() {
            let host = self.nodes[index].host;
            match output {
                Output::Udp { to, bytes, socket } => {
                    self.see(index, "udp", &bytes);
                    self.net.send_by(host, socket, to, bytes);
                }
                Output::OpenSocket(socket) => _ = self.nodes[index].sockets.insert(socket),
                Output::CloseSocket(socket) => _ = self.nodes[index].sockets.remove(&socket),
                Output::Relay { region, to, bytes } => {
                    self.see(index, "derp", &bytes);
                    let to = self.nodes.iter().find(|node| node.key == to).unwrap().host;
                    self.net.send_relayed(host, region, to, bytes);
                }
                Output::OpenRelay(region) => self.later(DIAL, Later::Up(index, region)),
                Output::MeasureRelay(region) => self.later(ms(20), Later::Measured(index, region)),
                Output::Event(event) => {
                    let node = &mut self.nodes[index];
                    if let Event::Self_ { home, endpoints, .. } = &event {
                        node.home = *home;
                        node.endpoints.clone_from(endpoints);
                    }
                    node.events.push((at, event));
                }
                Output::CloseRelay(_) | Output::Prefer { .. } | Output::ResolveStun { .. } => {}
            }
        }
    }

    fn later(&mut self, after: Duration, what: Later) {
        self.count += 1;
        self.later.insert((self.net.now() + after, self.count), what);
    }

    fn see(&mut self, from: usize, by: &'static str, bytes: &[u8]) {
        let kind = match bytes.len() {
            _ if stun::is_stun(bytes) => "stun",
            _ if !disco::is_disco(bytes) => "data",
            disco::PADDED_PACKET => "ping or pong",
            SMALL_PING => "small ping",
            _ => "call-me-maybe",
        };
        self.sights.push(Sight { at: self.net.elapsed(), from, by, kind, size: bytes.len() });
    }
}

pub fn local(address: SocketAddr) -> Local {
    Local { addresses: vec![address.ip()], port_v4: Some(address.port()), port_v6: None }
}
