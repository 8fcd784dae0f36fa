//! What the network is like: our addresses as STUN servers see them, and how far the relays are.
//!
//! A check asks STUN servers and has the relays measured. It ends when all have answered or were given up. Several
//! servers are asked because a NAT that shows them different addresses (a symmetric one) can be told only so. STUN
//! latency is not kept: a public server near by says nothing about a relay.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use wire::stun;

use crate::config::{
    CHECK_TIMEOUT, ENDPOINTS_FRESH, FULL_CHECK_EVERY, MAX_RESOLVED, MAX_STUN_SERVERS, STUN_PATIENCE,
    STUN_RETRY, STUN_TRIES,
};
use crate::endpoints::{Endpoints, canonical};
use crate::home::Latencies;
use crate::output::{Output, Report};
use crate::servers::{Place, Server};
use crate::sockets::OWN;
use crate::voice::Voice;

/// Regions whose STUN servers a check asks that is not a full one.
const INCREMENTAL_REGIONS: usize = 3;

/// The checks of one node; at most one runs.
#[derive(Debug, Default)]
pub(crate) struct Netcheck {
    servers: Vec<Server>,
    relays: BTreeSet<u16>,
    /// Regions that checks in between look at: what may be home.
    usual: BTreeSet<u16>,
    /// Answers of the resolver, by region.
    resolved: BTreeMap<u16, Vec<SocketAddr>>,
    running: Option<Check>,
    last_full: Option<Instant>,
    last_stun: Option<Instant>,
    /// Last known latency of each relay.
    latencies: Latencies,
    /// Those of them measured over IPv6.
    over_v6: BTreeSet<u16>,
    /// What the last test of hairpin found.
    hair_pinning: Option<bool>,
}

#[derive(Debug)]
struct Check {
    full: bool,
    started: Instant,
    targets: BTreeMap<SocketAddr, Target>,
    sent: BTreeMap<stun::TxId, SocketAddr>,
    /// Lookups without an answer, by region.
    lookups: BTreeMap<u16, usize>,
    stun_over: bool,
    measuring: BTreeSet<u16>,
    measured: Latencies,
    hairpin: Part,
    report: Report,
}

/// A part of a check that only full ones have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Not begun; what it needs may still come.
    Wanted,
    Running,
    Over,
}

#[derive(Debug)]
struct Target {
    tries: u8,
    /// Of the next try, or of giving up after the last. `None`: over.
    next: Option<Instant>,
    failed: bool,
}

/// What happened since the caller last looked.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// The STUN half is over: our endpoints are as good as they get.
    pub(crate) stun_over: bool,
    /// All is over: the report, and the latencies it measured.
    pub(crate) finished: Option<(Report, Latencies)>,
}

impl Netcheck {
    pub(crate) fn set_map(&mut self, servers: Vec<Server>, relays: BTreeSet<u16>, usual: BTreeSet<u16>) {
        self.usual = usual;
        self.latencies.retain(|region, _| relays.contains(region));
        self.servers = servers;
        self.relays = relays;
        self.resolved.clear();
        self.last_full = None;
    }

    /// The network is another one.
    pub(crate) fn reset(&mut self) {
        self.resolved.clear();
        self.last_full = None;
        self.last_stun = None;
        self.hair_pinning = None;
    }

    /// A path went dark: our NAT may have given us another address.
    pub(crate) fn doubt(&mut self) {
        self.last_stun = None;
    }

    pub(crate) fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// Whether a relay was last measured over IPv6.
    pub(crate) fn is_over_v6(&self, region: u16) -> bool {
        self.over_v6.contains(&region)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(crate) fn is_running_full(&self) -> bool {
        self.running.as_ref().is_some_and(|check| check.full)
    }

    /// Whether our endpoints are known well enough to be told.
    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        self.servers.is_empty() || self.last_stun.is_some_and(|at| now < at + ENDPOINTS_FRESH)
    }

    /// Whether the map names a server or a relay. Without one a check finds nothing, which is no finding.
    pub(crate) fn has_anyone_to_ask(&self) -> bool {
        !self.servers.is_empty() || !self.relays.is_empty()
    }

    /// Relays of the running check that have not been measured yet.
    pub(crate) fn is_measuring(&self) -> bool {
        self.running.as_ref().is_some_and(|check| !check.measuring.is_empty())
    }

    /// What the running check has measured so far.
    pub(crate) fn measured(&self) -> Option<&Latencies> {
        self.running.as_ref().map(|check| &check.measured)
    }

    /// Starts a check; one that runs is abandoned. Without `full` only some servers and relays are asked, unless the last
    /// full one is too old.
    pub(crate) fn start(
        &mut self,
        now: Instant,
        full: bool,
        home: u16,
        endpoints: &Endpoints,
        voice: &mut Voice,
    ) {
        let full = full || self.last_full.is_none_or(|at| now >= at + FULL_CHECK_EVERY);
        if full {
            self.resolved.clear();
        }
        let mut check = Check::new(now, full);
        check.report.os_has_ipv6 = endpoints.local().port_v6.is_some();
        check.measuring = self.relays_to_measure(full, home);
        voice.out.extend(check.measuring.iter().copied().map(Output::MeasureRelay));
        let regions = self.regions_to_ask(full, home);
        for server in self.servers.iter().filter(|server| regions.contains(&server.region)) {
            match (&server.place, self.resolved.get(&server.region)) {
                (Place::Known(addrs), _) => check.aim(now, addrs, endpoints),
                (Place::Name(_), Some(addrs)) => check.aim(now, addrs, endpoints),
                (Place::Name(host), None) => {
                    *check.lookups.entry(server.region).or_default() += 1;
                    let (region, host, port) = (server.region, host.clone(), server.port);
                    voice.out.push_back(Output::ResolveStun { region, host, port });
                }
            }
        }
        check.send_due(now, voice);
        self.running = Some(check);
    }

    pub(crate) fn resolved(
        &mut self,
        now: Instant,
        region: u16,
        addrs: &[SocketAddr],
        endpoints: &Endpoints,
        voice: &mut Voice,
    ) {
        let servers = self.servers.iter().filter(|s| s.region == region && matches!(s.place, Place::Name(_)));
        let servers: Vec<&Server> = servers.collect();
        let allowed =
            addrs.iter().copied().map(canonical).filter(|addr| servers.iter().any(|s| s.allows(*addr)));
        let allowed: Vec<SocketAddr> = allowed.take(MAX_RESOLVED).collect();
        if servers.is_empty() {
            return;
        }
        // A late answer helps the next check.
        let cached = self.resolved.entry(region).or_default();
        cached.extend(allowed.iter().filter(|addr| !cached.contains(addr)).copied().collect::<Vec<_>>());
        cached.truncate(MAX_STUN_SERVERS);
        let Some(check) = &mut self.running else { return };
        if let Some(waiting) = check.lookups.get_mut(&region) {
            *waiting -= 1;
            check.lookups.retain(|_, waiting| *waiting > 0);
        }
        check.aim(now, &allowed, endpoints);
        check.send_due(now, voice);
    }

    /// Takes a STUN packet. `Some(address)`: a server saw us there; `None`: nothing we asked for.
    pub(crate) fn handle_stun(&mut self, packet: &[u8]) -> Option<SocketAddr> {
        let (tx, seen) = stun::parse_response(packet).ok()?;
        let check = self.running.as_mut()?;
        let target = check.sent.remove(&tx)?;
        let seen = canonical(seen);
        if seen.port() == 0 || seen.ip().is_unspecified() || seen.is_ipv4() != target.is_ipv4() {
            return None;
        }
        check.sent.retain(|_, to| *to != target);
        if let Some(target) = check.targets.get_mut(&target) {
            target.next = None;
        }
        note_address(&mut check.report, seen);
        Some(seen)
    }

    pub(crate) fn report(&self) -> Option<&Report> {
        self.running.as_ref().map(|check| &check.report)
    }

    pub(crate) fn relay_latency(&mut self, region: u16, latency: Option<Duration>, v6: bool) {
        if !self.relays.contains(&region) {
            return;
        }
        if latency.is_some() && v6 {
            self.over_v6.insert(region);
        } else {
            self.over_v6.remove(&region);
        }
        if let Some(check) = &mut self.running
            && check.measuring.remove(&region)
            && let Some(latency) = latency
        {
            check.measured.insert(region, latency);
        }
        match latency {
            Some(latency) => self.latencies.insert(region, latency),
            None => self.latencies.remove(&region),
        };
    }

    /// Our outside address, if the running check has found it and has yet to test hairpin.
    pub(crate) fn hairpin_wanted(&mut self) -> Option<SocketAddrV4> {
        let check = self.running.as_mut().filter(|check| check.hairpin == Part::Wanted)?;
        let outside = check.report.global_v4?;
        check.hairpin = Part::Running;
        Some(outside)
    }

    /// The hairpin test of the running check is over.
    pub(crate) fn note_hairpin(&mut self, outcome: Option<bool>) {
        if let Some(check) = &mut self.running {
            check.hairpin = Part::Over;
            check.report.hair_pinning = outcome;
        }
        self.hair_pinning = outcome;
    }

    /// One relay could not be reached; one that is replaced is enough.
    pub(crate) fn captive_portal(&mut self, found: bool) {
        if let Some(check) = &mut self.running {
            let before = check.report.captive_portal.unwrap_or(false);
            check.report.captive_portal = Some(before || found);
        }
    }

    /// A datagram could not be sent; if it was a request, that server is given up.
    pub(crate) fn udp_failed(&mut self, to: SocketAddr) {
        if let Some(target) = self.running.as_mut().and_then(|check| check.targets.get_mut(&to)) {
            target.failed = true;
            target.next = None;
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, voice: &mut Voice) {
        let Some(check) = &mut self.running else { return };
        if now >= check.started + STUN_PATIENCE {
            check.lookups.clear();
        }
        check.send_due(now, voice);
    }

    /// To be looked at after every call above.
    pub(crate) fn progress(&mut self, now: Instant) -> Progress {
        let Some(check) = &mut self.running else { return Progress::default() };
        let timed_out = now >= check.started + CHECK_TIMEOUT;
        let mut progress = Progress::default();
        if !check.stun_over && (timed_out || check.stun_is_over()) {
            check.stun_over = true;
            self.last_stun = Some(now);
            progress.stun_over = true;
        }
        let hairpin_over = check.hairpin != Part::Running;
        if timed_out || (check.stun_over && check.measuring.is_empty() && hairpin_over) {
            progress.finished = self.running.take().map(|check| self.finish(now, check));
        }
        progress
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let check = self.running.as_ref()?;
        let stun = check.targets.values().filter_map(|target| target.next);
        let lookups = (!check.lookups.is_empty()).then(|| check.started + STUN_PATIENCE);
        stun.chain(lookups).chain([check.started + CHECK_TIMEOUT]).min()
    }

    fn finish(&mut self, now: Instant, check: Check) -> (Report, Latencies) {
        if check.full {
            self.last_full = Some(now);
        }
        for region in &check.measuring {
            self.latencies.remove(region);
        }
        let sent =
            |v4: bool| check.targets.iter().any(|(to, t)| to.is_ipv4() == v4 && t.tries > 0 && !t.failed);
        let mut report = check.report;
        report.hair_pinning = report.hair_pinning.or(self.hair_pinning);
        report.ipv4_can_send = sent(true);
        report.ipv6_can_send = sent(false);
        report.region_latency.clone_from(&check.measured);
        for (region, latency) in &check.measured {
            let v6 = self.over_v6.contains(region);
            let family = if v6 { &mut report.region_v6_latency } else { &mut report.region_v4_latency };
            family.insert(*region, *latency);
        }
        (report, check.measured)
    }

    fn relays_to_measure(&self, full: bool, home: u16) -> BTreeSet<u16> {
        if full {
            return self.relays.clone();
        }
        if self.relays.len() < 2 {
            return BTreeSet::new();
        }
        let usual = self.latencies.iter().filter(|(region, _)| self.usual.contains(region));
        let mut fastest: Vec<(Duration, u16)> = usual.map(|(&region, &l)| (l, region)).collect();
        fastest.sort_unstable();
        let fastest = fastest.into_iter().map(|(_, region)| region).take(INCREMENTAL_REGIONS);
        fastest.chain([home]).filter(|region| self.relays.contains(region)).collect()
    }

    fn regions_to_ask(&self, full: bool, home: u16) -> BTreeSet<u16> {
        let all: BTreeSet<u16> = self.servers.iter().map(|server| server.region).collect();
        if full {
            return all;
        }
        let far = Duration::MAX;
        let mut order: Vec<u16> = all.into_iter().collect();
        order.sort_by_key(|region| {
            (*region != home, self.latencies.get(region).copied().unwrap_or(far), *region)
        });
        order.into_iter().take(INCREMENTAL_REGIONS).collect()
    }
}

impl Check {
    fn new(now: Instant, full: bool) -> Self {
        Self {
            full,
            started: now,
            targets: BTreeMap::new(),
            sent: BTreeMap::new(),
            lookups: BTreeMap::new(),
            stun_over: false,
            measuring: BTreeSet::new(),
            measured: Latencies::new(),
            hairpin: if full { Part::Wanted } else { Part::Over },
            report: Report::default(),
        }
    }

    fn aim(&mut self, now: Instant, addrs: &[SocketAddr], endpoints: &Endpoints) {
        for &addr in addrs.iter().filter(|addr| endpoints.can_send(**addr)) {
            if self.targets.len() < MAX_STUN_SERVERS {
                self.targets.entry(addr).or_insert(Target { tries: 0, next: Some(now), failed: false });
            }
        }
    }

    fn send_due(&mut self, now: Instant, voice: &mut Voice) {
        for (&to, target) in &mut self.targets {
            if target.next.is_none_or(|next| now < next) {
                continue;
            }
            if target.tries >= STUN_TRIES {
                target.next = None;
                continue;
            }
            let tx = stun::TxId(voice.chance.bytes());
            self.sent.insert(tx, to);
            voice.out.push_back(Output::Udp { to, bytes: stun::request(tx).to_vec(), socket: OWN });
            let wait = STUN_RETRY.saturating_mul(1 << u32::from(target.tries));
            target.tries += 1;
            target.next = Some(now + if target.tries < STUN_TRIES { wait } else { STUN_PATIENCE });
        }
    }

    fn stun_is_over(&self) -> bool {
        self.lookups.is_empty() && self.targets.values().all(|target| target.next.is_none())
    }
}

fn note_address(report: &mut Report, seen: SocketAddr) {
    report.udp = true;
    match seen {
        SocketAddr::V4(v4) => {
            report.ipv4 = true;
            match report.global_v4 {
                None => report.global_v4 = Some(v4),
                Some(first) if first != v4 => report.mapping_varies_by_dest_ip = Some(true),
                Some(_) => _ = report.mapping_varies_by_dest_ip.get_or_insert(false),
            }
        }
        SocketAddr::V6(v6) => {
            report.ipv6 = true;
            report.global_v6 = Some(v6);
        }
    }
}
