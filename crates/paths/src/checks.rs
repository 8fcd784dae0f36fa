//! When to check the network, and what follows: our endpoints, our home, our record.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::Paths;
use crate::config::{HOME_GRACE, HOME_PATIENCE, RECHECK};
use crate::home::Latencies;
use crate::output::{Event, Output, Report};

/// Least time between checks that nobody forces.
const CHECK_GAP: Duration = Duration::from_secs(5);

/// What our record last said.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Told {
    home: u16,
    regions: Vec<u16>,
    endpoints: Vec<SocketAddr>,
}

impl Paths {
    /// Starts a full check now.
    pub(crate) fn check_now(&mut self, now: Instant) {
        self.start_check(now, true);
    }

    /// Has a check done soon, as often as that may be.
    pub(crate) fn check_soon(&mut self, now: Instant, full: bool) {
        self.full_wanted |= full;
        if !self.netcheck.is_running() || full {
            let at = self.last_check.map_or(now, |last| now.max(last + CHECK_GAP));
            self.check_at = Some(self.check_at.map_or(at, |planned| planned.min(at)));
        }
    }

    /// Has the checks of a node in use go on.
    pub(crate) fn keep_checking(&mut self, now: Instant) {
        if self.check_at.is_none() {
            self.check_at = Some(now + self.voice.chance.between(RECHECK.0, RECHECK.1));
        }
    }

    /// Starts the check that is due, unless the node fell asleep.
    pub(crate) fn check_if_due(&mut self, now: Instant) {
        if self.check_at.is_none_or(|at| now < at) {
            return;
        }
        self.check_at = None;
        let in_use = self.peers.values().any(|peer| peer.is_active(now) || peer.call_by.is_some());
        if in_use || self.full_wanted {
            self.start_check(now, self.full_wanted);
            self.keep_checking(now);
        }
    }

    fn start_check(&mut self, now: Instant, full: bool) {
        self.full_wanted = false;
        self.end_hairpin(None);
        self.last_check = Some(now);
        self.netcheck.start(now, full, self.relays.home(), &self.endpoints, &mut self.voice);
        self.after_check(now);
    }

    /// Draws the consequences of whatever just happened to the running check.
    pub(crate) fn after_check(&mut self, now: Instant) {
        if let Some(report) = self.netcheck.report() {
            let v4 = report.global_v4.map(SocketAddr::V4);
            let v6 = report.global_v6.map(SocketAddr::V6);
            self.endpoints.set_global(v4, v6, report.mapping_varies_by_dest_ip);
        }
        self.test_hairpin(now);
        self.choose_first_home(now);
        let progress = self.netcheck.progress(now);
        if progress.stun_over {
            self.make_waiting_calls(now);
        }
        if let Some((report, latencies)) = progress.finished {
            self.finish_check(now, report, latencies);
        }
        self.tell_self(now);
    }

    fn finish_check(&mut self, now: Instant, mut report: Report, latencies: Latencies) {
        let chosen = self.history.choose(now, latencies, self.relays.home(), &self.homes, &self.scores);
        if chosen != 0 {
            self.move_home(now, chosen);
        }
        report.preferred_derp = self.relays.home();
        if self.netcheck.has_anyone_to_ask() {
            self.voice.out.push_back(Output::Event(Event::Report(report)));
        }
    }

    /// A home is needed before there is a report: one relay needs no choosing, several are given a moment.
    pub(crate) fn choose_first_home(&mut self, now: Instant) {
        if self.relays.home() != 0 || self.homes.is_empty() {
            self.home_by = None;
            self.home_grace = false;
            return;
        }
        if self.homes.len() > 1 {
            let by = *self.home_by.get_or_insert(now + HOME_PATIENCE);
            let measured = self.netcheck.measured().is_some_and(|measured| !measured.is_empty());
            if measured && self.netcheck.is_measuring() && !self.home_grace {
                self.home_grace = true;
                self.home_by = Some(by.min(now + HOME_GRACE));
            }
            let waiting = self.netcheck.is_measuring() && self.home_by.is_some_and(|by| now < by);
            if waiting {
                return;
            }
        }
        let none = Latencies::new();
        let measured = self.netcheck.measured().unwrap_or(&none);
        let weighted = |region: &u16, latency: &Duration| {
            let score = self.scores.get(region).copied().filter(|score| *score > 0.0).unwrap_or(1.0);
            latency.as_secs_f64() * score
        };
        let fastest = measured
            .iter()
            .filter(|(region, _)| self.homes.contains(region))
            .map(|(region, latency)| (weighted(region, latency), *region));
        let fastest = fastest.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, region)| region);
        let any: Vec<u16> = self.homes.iter().copied().collect();
        if let Some(region) = fastest.or_else(|| self.voice.chance.pick(&any)) {
            self.home_by = None;
            self.home_grace = false;
            self.move_home(now, region);
        }
    }

    fn move_home(&mut self, now: Instant, region: u16) {
        if region == self.relays.home() {
            return;
        }
        self.relays.set_home(now, region, &mut self.voice.out);
        self.settle_all(now);
    }

    fn make_waiting_calls(&mut self, now: Instant) {
        let waiting = self.peers.values().filter(|peer| peer.call_by.is_some()).map(|peer| peer.key);
        for key in waiting.collect::<Vec<_>>() {
            self.with_peer(now, &key, |peer, around| peer.call(around));
        }
    }

    /// Tells our record if it changed in what matters to peers; latencies alone jitter, and do not.
    pub(crate) fn tell_self(&mut self, now: Instant) {
        let endpoints = if self.block_direct { Vec::new() } else { self.endpoints.list(now) };
        let latencies = self.netcheck.latencies();
        let told = Told { home: self.relays.home(), regions: latencies.keys().copied().collect(), endpoints };
        if self.told.as_ref() == Some(&told) {
            return;
        }
        let family = |region: &u16| if self.netcheck.is_over_v6(*region) { "v6" } else { "v4" };
        let seconds =
            latencies.iter().map(|(region, l)| (format!("{region}-{}", family(region)), l.as_secs_f64()));
        let latencies: BTreeMap<String, f64> = seconds.collect();
        let (home, endpoints) = (told.home, told.endpoints.clone());
        self.told = Some(told);
        self.voice.out.push_back(Output::Event(Event::Self_ { home, latencies, endpoints }));
    }
}
