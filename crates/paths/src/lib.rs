//! Which way a packet goes: our endpoints, disco, the choice of path, the home relay. Sans-IO: no socket, no clock.
//!
//! # Driving it
//! [`Paths`] is one node's. Feed it what happens (`handle_*`, `relay_*`, `set_*`, each with the time now), and after every
//! call drain [`Paths::poll`] until it is empty. Call [`Paths::handle_timeout`] at [`Paths::next_timeout`], or later.
//! `now` never goes back. Before a batch is sent to a peer ask [`Paths::route`]; send the batch first, then drain.
//!
//! Say [`Paths::set_local`] first: to a family without a socket nothing is sent. A relay is dialled when
//! [`Output::OpenRelay`] says so, once; whether and when to dial again is decided here.
//!
//! # How a path is found
//! A packet for a peer without a proved direct path goes by relay, and by UDP as well if there was one. Sending starts
//! *discovery* (`discovery.rs`): pings to every endpoint, and a call-me-maybe by relay. A pong proves a path for 6.5 s;
//! of the proved the better one is used (`choice.rs`) and kept alive by a heartbeat while packets flow. A path that
//! goes silent is given up before its time (`suspicion.rs`). Where the peer's packets and pings come from is learned on
//! arrival (`receive.rs`). What *we* can be reached at is found by asking STUN servers (`netcheck.rs`, `endpoints.rs`), which
//! relay is home by measuring them (`home.rs`), and which connection leads to a peer is kept in `relay_routes.rs`.
//!
//! # What a stranger can do
//! Nothing that costs: disco from a key that is no peer's is dropped before any arithmetic. What a peer can do is
//! bounded: endpoints per peer, pings on their way, pongs per source, sources remembered.

#![forbid(unsafe_code)]

mod birthday;
mod chance;
mod checks;
pub mod choice;
pub mod config;
mod discovery;
mod endpoints;
pub mod facts;
mod hairpin;
pub mod home;
mod netcheck;
mod output;
mod peer;
mod peers;
mod receive;
mod relay_routes;
mod servers;
mod sockets;
mod sources;
mod suspicion;
mod voice;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use wire::derpmap::DerpMap;
use wire::keys::{DiscoPublic, NodePublic};

pub use config::{Config, LONG, Local, PeerRecord};
pub use facts::{EndpointFacts, PeerFacts, Why};
pub use output::{Class, Event, Output, Path, Refusals, Report, Route, Socket};
pub use sockets::OWN as OWN_SOCKET;

use checks::Told;
use endpoints::{Endpoints, canonical};
use hairpin::Hairpin;
use home::History;
use netcheck::Netcheck;
use peer::{Around, Peer};
use relay_routes::Relays;
use sockets::Sockets;
use sources::Sources;
use voice::Voice;

/// The paths of one node to all its peers.
pub struct Paths {
    voice: Voice,
    peers: BTreeMap<NodePublic, Peer>,
    by_disco: BTreeMap<DiscoPublic, BTreeSet<NodePublic>>,
    /// Every peer's next deadline.
    deadlines: BTreeSet<(Instant, NodePublic)>,
    sources: Sources,
    relays: Relays,
    sockets: Sockets,
    endpoints: Endpoints,
    block_direct: bool,
    map: DerpMap,
    scores: BTreeMap<u16, f64>,
    netcheck: Netcheck,
    hairpin: Option<Hairpin>,
    check_at: Option<Instant>,
    last_check: Option<Instant>,
    full_wanted: bool,
    history: History,
    /// Regions that may be home.
    homes: BTreeSet<u16>,
    /// The first home is chosen by then.
    home_by: Option<Instant>,
    /// A first measurement came; only a short while is left for others.
    home_grace: bool,
    told: Option<Told>,
    /// When the endpoints next change by time alone.
    expiry: Option<Instant>,
    refusals: Refusals,
}

impl Paths {
    /// A node without peers, map or sockets.
    pub fn new(config: Config, _now: Instant) -> Self {
        let block_direct = config.block_direct;
        Self {
            voice: Voice::new(config),
            peers: BTreeMap::new(),
            by_disco: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            sources: Sources::default(),
            relays: Relays::default(),
            sockets: Sockets::default(),
            endpoints: Endpoints::default(),
            block_direct,
            map: DerpMap::default(),
            scores: BTreeMap::new(),
            netcheck: Netcheck::default(),
            hairpin: None,
            check_at: None,
            last_check: None,
            full_wanted: false,
            history: History::default(),
            homes: BTreeSet::new(),
            home_by: None,
            home_grace: false,
            told: None,
            expiry: None,
            refusals: Refusals::default(),
        }
    }

    /// Takes the DERP map; an equal one is ignored. Connections of regions that are gone or different close. A map with a
    /// single relay has its home at once, one with several within a second.
    pub fn set_map(&mut self, now: Instant, map: DerpMap) {
        if self.map == map && self.last_check.is_some() {
            return;
        }
        let differs = |(id, region): &(&u16, _)| self.map.regions.get(id).is_some_and(|old| old != *region);
        let changed: BTreeSet<u16> = map.regions.iter().filter(differs).map(|(id, _)| *id).collect();
        let known = servers::relay_regions(&map);
        self.homes = servers::home_regions(&map);
        let (measured, homes) = (servers::measured_regions(&map), self.homes.clone());
        self.netcheck.set_map(servers::stun_servers(&map), measured, homes);
        self.scores = map.home_params.as_ref().map(|params| params.region_score.clone()).unwrap_or_default();
        self.map = map;
        self.history.clear();
        let only_one = self.homes.len() == 1;
        self.relays.set_known(known, &changed, &mut self.voice.out);
        if only_one {
            self.choose_first_home(now);
            self.tell_self(now);
        }
        self.settle_all(now);
        self.check_now(now);
    }

    /// Takes the complete set of peers. Peers not in it are forgotten, others keep what is known of them.
    pub fn set_peers(&mut self, now: Instant, records: &[PeerRecord]) {
        let kept: BTreeSet<NodePublic> = records.iter().map(|record| record.key).collect();
        let gone: Vec<NodePublic> = self.peers.keys().filter(|key| !kept.contains(key)).copied().collect();
        gone.iter().for_each(|key| self.remove_peer(key));
        for record in records {
            let old = self.peers.get(&record.key).map(|peer| peer.disco);
            if old.is_some_and(|old| old != record.disco) {
                self.sources.forget_node(&record.key);
            }
            self.unindex_disco(&record.key, old);
            self.by_disco.entry(record.disco).or_default().insert(record.key);
            self.peers.entry(record.key).or_insert_with(|| Peer::new(record));
            self.with_peer(now, &record.key, |peer, around| peer.update(record, around));
        }
    }

    /// Takes our sockets and interface addresses. A change has the network checked again; returns whether there was one.
    pub fn set_local(&mut self, now: Instant, local: Local) -> bool {
        let changed = self.endpoints.set_local(local);
        if changed {
            self.recheck_changed_network(now);
        }
        changed
    }

    /// Whether the user chose the port of the IPv4 socket. It is then advertised behind a symmetric NAT too, in case the
    /// user forwarded it.
    pub fn set_fixed_port(&mut self, now: Instant, fixed: bool) {
        self.endpoints.set_fixed_port(fixed);
        self.tell_self(now);
    }

    /// Takes the endpoints granted by port mapping, in place of those before. They are the first we advertise.
    pub fn set_mapped(&mut self, now: Instant, mapped: &[SocketAddr]) {
        self.endpoints.set_mapped(mapped);
        self.tell_self(now);
    }

    /// Starts a full check of the network, unless one runs; its end is told by [`Event::Report`].
    pub fn check(&mut self, now: Instant) {
        if !self.netcheck.is_running_full() {
            self.check_now(now);
        }
    }

    /// Forbids or allows direct paths. Forbidden: no endpoints are told or used, disco by UDP is ignored.
    pub fn set_block_direct(&mut self, now: Instant, block: bool) {
        if self.block_direct == block {
            return;
        }
        self.block_direct = block;
        self.each_peer(now, |peer, around| peer.apply_record(around));
        self.tell_self(now);
    }

    /// The connection to a region's relay is up.
    pub fn relay_up(&mut self, now: Instant, region: u16) {
        if self.relays.up(now, region, &mut self.voice.out) {
            self.each_peer(now, |peer, around| peer.call_again(around, region));
        } else {
            self.settle_all(now);
        }
    }

    /// The connection to a region's relay broke, or could not be made.
    pub fn relay_down(&mut self, now: Instant, region: u16) {
        if self.relays.down(now, region, &mut self.voice.chance) {
            self.settle_all(now);
            self.check_soon(now, true);
        }
    }

    /// A region's relay says that it restarts: it is not dialled again before `wait` has passed, or [`config::REDIAL_MAX`].
    pub fn relay_restarting(&mut self, now: Instant, region: u16, wait: Duration) {
        self.relays.restarting(now, region, wait);
    }

    /// A region's relay says that a peer is not connected to it.
    pub fn relay_peer_gone(&mut self, now: Instant, region: u16, key: NodePublic) {
        self.relays.peer_gone(region, &key);
        self.settle(now, &key);
    }

    /// Answers [`Output::MeasureRelay`]; `None` if the relay could not be reached. `v6`: it was over IPv6.
    pub fn relay_latency(&mut self, now: Instant, region: u16, latency: Option<Duration>, v6: bool) {
        self.netcheck.relay_latency(region, latency, v6);
        self.after_check(now);
    }

    /// While a relay could not be measured: whether something in between answers in its place. Said before `relay_latency`.
    pub fn captive_portal(&mut self, found: bool) {
        self.netcheck.captive_portal(found);
    }

    /// Answers [`Output::ResolveStun`]; empty if the name did not resolve.
    pub fn stun_resolved(&mut self, now: Instant, region: u16, addrs: Vec<SocketAddr>) {
        self.netcheck.resolved(now, region, &addrs, &self.endpoints, &mut self.voice);
        self.after_check(now);
    }

    /// Where the batch that is about to be sent to a peer goes. Counts as activity. Cheap while a direct path is proved.
    #[inline]
    pub fn route(&mut self, now: Instant, peer: &NodePublic) -> Route {
        let Some(known) = self.peers.get_mut(peer) else { return Route::default() };
        let mut around = Around {
            now,
            voice: &mut self.voice,
            relays: &mut self.relays,
            endpoints: &self.endpoints,
            netcheck: &mut self.netcheck,
            sockets: &mut self.sockets,
            block_direct: self.block_direct,
        };
        let (route, changed) = known.route(&mut around);
        if changed {
            self.settle(now, peer);
            self.keep_checking(now);
        }
        route
    }

    /// Something of at least [`LONG`] bytes is sent to a peer by UDP. Call at most once per batch.
    #[inline]
    pub fn note_long(&mut self, now: Instant, peer: &NodePublic) {
        if let Some(known) = self.peers.get_mut(peer)
            && known.suspicion.note_long(now)
        {
            self.settle(now, peer);
        }
    }

    /// A datagram to `to` could not be sent: that path is forgotten.
    pub fn udp_failed(&mut self, now: Instant, to: SocketAddr) {
        let to = canonical(to);
        self.netcheck.udp_failed(to);
        let users = self.peers.values().filter(|peer| peer.best.is_some_and(|best| best.addr == to));
        for key in users.map(|peer| peer.key).collect::<Vec<_>>() {
            self.with_peer(now, &key, |peer, _| peer.forget_best(Why::Unsendable));
        }
        self.after_check(now);
    }

    /// Pings a peer for a user; answered by [`Event::Pong`] or, after 5 s, [`Event::PingTimeout`] with this id.
    pub fn ping(&mut self, now: Instant, peer: &NodePublic, id: u64) {
        if self.with_peer(now, peer, |peer, around| peer.user_ping(around, id)).is_none() {
            self.voice.out.push_back(Output::Event(Event::PingTimeout { id }));
        }
    }

    /// Sockets were rebound, or the machine woke or moved: nothing that was proved holds.
    pub fn network_changed(&mut self, now: Instant) {
        self.recheck_changed_network(now);
    }

    /// Something about the network changed that shows in none of our addresses: ours outside may be others.
    pub fn network_stirred(&mut self, now: Instant) {
        self.netcheck.doubt();
        self.check_soon(now, false);
    }

    /// Does everything that is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.relays.handle_timeout(now, &mut self.voice.out);
        self.netcheck.handle_timeout(now, &mut self.voice);
        self.expire_hairpin(now);
        self.after_check(now);
        while let Some(&(at, key)) = self.deadlines.first()
            && at <= now
        {
            self.with_peer(now, &key, |peer, around| peer.handle_timeout(around));
        }
        self.check_if_due(now);
        self.expiry = self.endpoints.next_expiry(now);
    }

    /// When to call [`Self::handle_timeout`] next.
    pub fn next_timeout(&self) -> Option<Instant> {
        let peers = self.deadlines.first().map(|(at, _)| *at);
        let own = [
            self.relays.next_timeout(),
            self.netcheck.next_timeout(),
            self.hairpin.as_ref().map(|test| test.until),
            self.check_at,
            self.home_by,
            self.expiry,
        ];
        own.into_iter().chain([peers]).flatten().min()
    }

    /// The next thing to do; `None` when all is said.
    pub fn poll(&mut self) -> Option<Output> {
        self.voice.out.pop_front()
    }

    /// Packets refused so far.
    pub fn refusals(&self) -> Refusals {
        self.refusals
    }

    fn recheck_changed_network(&mut self, now: Instant) {
        self.endpoints.forget_external();
        self.netcheck.reset();
        self.relays.hurry(now);
        self.each_peer(now, |peer, around| peer.start_over(around));
        self.check_now(now);
    }
}
