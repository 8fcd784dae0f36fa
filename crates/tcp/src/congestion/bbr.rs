//! BBR, version 3 (IETF draft-ietf-ccwg-bbr), with another rule for what loss means.
//!
//! The sender keeps a model of the path, its bandwidth and its round trip without a queue, and sends at that rate with about
//! two bandwidth-delay products as the limit. Every few seconds it looks for more bandwidth by sending a quarter faster for
//! a round or two, lets the queue that made drain, and cruises. It looks for a shorter round trip when none was seen for five
//! seconds.
//!
//! # When loss is congestion
//!
//! The draft takes any loss in a round for a reason to slow down until the next probe, and 2 % in a probe for a reason to
//! bound what is in flight. On a path that loses 3 % by itself, be it a radio link or an overloaded tunnel, that costs most
//! of the bandwidth and helps nobody. Version 1 ignored loss, and inflicted much on others at shallow queues. Here:
//!
//! - A round is *quiet* when its shortest round trip is within a sixteenth and 0.5 ms of the path's, so that no queue
//!   stood, and at least four fifths of the estimated bandwidth were delivered. Loss in a quiet round is no congestion.
//!   While the sender does not probe, it is averaged as the path's *own loss*.
//! - Any other round is congested when a queue stood throughout and it lost more than the path's own by two standard
//!   deviations, or not half of the estimate was delivered although it was sent; or when its loss exceeds the own loss by
//!   2 % of the flight on top of that. Then the bounds until the next probe fall, as in the draft.
//! - A probe put too much in flight when its loss exceeds the own loss by the same margin. Random loss does not grow
//!   with the sender's rate, an overflowing queue's or a policer's does: the comparison of probe and cruise tells them apart.
//! - Start-up and probes end when a queue stands or too much is lost; that the rate did not grow may be due to the peer's
//!   window or a busy machine. Should start-up have ended too early, a probe that finds twice as much without a queue starts
//!   up anew.
//!
//! Where no loss is the path's own, this is nearly the draft's rule.

use std::time::{Duration, Instant};

use super::{Ack, Controller, INITIAL_SEGMENTS, Round, bytes_per_second};
use bounds::Bounds;
use cycle::Cycle;
use full::FullPipe;
use losses::Losses;
use path::Path;

mod bounds;
mod cycle;
mod full;
mod losses;
mod path;

/// Sent slower than the estimate by this, so that a queue drains in the long run.
const PACING_MARGIN: f64 = 0.01;
const STARTUP_GAIN: f64 = 2.77;
const MIN_SEGMENTS: u64 = 4;
/// A queue is kept so short to see the path's round trip for this long.
const PROBE_RTT_TIME: Duration = Duration::from_millis(200);

/// What the sender is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Doubles its rate each round until the path is full.
    Startup,
    /// Lets the queue of start-up drain.
    Drain,
    /// Lets the queue of a probe drain.
    Down,
    /// Sends at the estimate.
    Cruise,
    /// Fills the pipe before a probe.
    Refill,
    /// Looks for more bandwidth.
    Up,
    /// Looks for a shorter round trip; until when, once little enough is in flight.
    ProbeRtt(Option<Instant>),
}

impl Mode {
    fn pacing_gain(self) -> f64 {
        match self {
            Self::Startup => STARTUP_GAIN,
            Self::Drain => 0.5,
            Self::Down => 0.9,
            Self::Cruise | Self::Refill | Self::ProbeRtt(_) => 1.0,
            Self::Up => 1.25,
        }
    }

    fn window_gain(self) -> f64 {
        match self {
            Self::Startup | Self::Drain | Self::Down | Self::Cruise | Self::Refill => 2.0,
            Self::Up => 2.25,
            Self::ProbeRtt(_) => 0.5,
        }
    }

    /// It sends more than the estimate on purpose, so that loss is no reason to bound what follows.
    fn is_probing(self) -> bool {
        matches!(self, Self::Startup | Self::Refill | Self::Up)
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct Bbr {
    mss: u64,
    mode: Mode,
    round: Round,
    path: Path,
    losses: Losses,
    bounds: Bounds,
    /// As they were before the last episode of loss, until that is known to be real.
    before: Option<Bounds>,
    full: FullPipe,
    cycle: Cycle,
    window: u64,
    /// To be restored after a timeout or a probe of the round trip.
    prior_window: u64,
    pacing_rate: Option<u64>,
    /// Nothing was in flight: pace at the estimate, and the next acknowledgement needs no probe of the round trip.
    restarting: bool,
}

impl Bbr {
    /// A controller for segments of `mss` bytes.
    pub fn new(mss: u64, now: Instant) -> Self {
        Self {
            mss,
            mode: Mode::Startup,
            round: Round::default(),
            path: Path::new(now),
            losses: Losses::new(mss),
            bounds: Bounds::none(),
            before: None,
            full: FullPipe::default(),
            cycle: Cycle::new(now),
            window: INITIAL_SEGMENTS * mss,
            prior_window: 0,
            pacing_rate: None,
            restarting: false,
        }
    }

    /// The bandwidth to work with.
    fn bandwidth(&self) -> u64 {
        self.path.bandwidth().min(self.bounds.bandwidth())
    }

    /// The bandwidth-delay product, times `gain`.
    fn inflight(&self, bandwidth: u64, gain: f64) -> u64 {
        (bandwidth as f64 * self.path.min_rtt().as_secs_f64() * gain) as u64
    }

    /// What a flight is measured against.
    fn target(&self) -> u64 {
        self.inflight(self.bandwidth(), 1.0).min(self.window)
    }

    /// What a millisecond carries, in which segments may leave together.
    fn quantum(&self) -> u64 {
        (self.pacing_rate.unwrap_or(0) / 1000).clamp(2 * self.mss, 64 * 1024)
    }

    fn minimum(&self) -> u64 {
        MIN_SEGMENTS * self.mss
    }

    /// A round has passed: learns from its losses.
    fn judge_round(&mut self, app_limited: bool, in_flight: u64) {
        let round = self.losses.round();
        let min_rtt = self.path.min_rtt();
        let expected = (self.bandwidth() as f64 * self.mode.pacing_gain().min(1.0)) as u64;
        let rate = if app_limited { expected } else { self.bounds.latest().0 };
        let quiet = round.is_quiet(min_rtt, rate, expected);
        if quiet && matches!(self.mode, Mode::Cruise | Mode::Refill) {
            self.losses.learn();
        }
        if quiet || self.mode.is_probing() {
            return;
        }
        let of = round.lost + round.delivered;
        // While a probe's queue drains, a queue says nothing of others.
        let queued = self.mode == Mode::Cruise && round.queue_stands(min_rtt);
        let contended = queued && self.losses.exceed_own(round.lost, of);
        // What was sent must be on its way, or a busy machine did not send it.
        let sent = in_flight >= self.inflight(expected, 1.0);
        let collapsed = sent && round.is_collapse(min_rtt, rate, expected);
        if contended || collapsed || self.losses.exceed(round.lost, of) {
            self.bounds.lower(self.path.bandwidth(), self.window);
        }
    }

    /// A round of start-up has passed: is the pipe full?
    fn judge_startup(&mut self, app_limited: bool) {
        let round = self.losses.round();
        let queued = round.queue_stands(self.path.min_rtt());
        let lossy = self.losses.exceed(round.lost, round.lost + round.delivered);
        self.full.on_loss(lossy);
        // What is sent beyond the capacity makes a queue or is lost; without either, something else held the sender back.
        self.full.on_round(self.path.bandwidth(), !app_limited && (queued || lossy));
        if queued && self.full.is_overflowing() {
            let bdp = self.inflight(self.bandwidth(), 1.0);
            self.bounds.long = bdp.max(self.bounds.latest().1);
            self.full.reach();
        } else if self.full.is_flooding() {
            self.full.reach();
        }
    }

    fn leave_startup(&mut self, ack: &Ack) {
        if self.round.passed && !self.full.is_reached() {
            self.judge_startup(ack.rate.is_some_and(|rate| rate.app_limited));
        }
        if self.mode == Mode::Startup && self.full.is_reached() {
            self.mode = Mode::Drain;
        }
        if self.mode == Mode::Drain && ack.in_flight <= self.inflight(self.bandwidth(), 1.0) {
            self.start_down(ack);
        }
    }

    fn probe_rtt(&mut self, ack: &Ack) {
        let mode = self.mode;
        match mode {
            Mode::ProbeRtt(None) if ack.in_flight <= self.probe_rtt_window() => {
                self.mode = Mode::ProbeRtt(Some(ack.now + PROBE_RTT_TIME));
                self.round.restart(ack.delivered);
            }
            Mode::ProbeRtt(Some(until)) if ack.now >= until && self.round.passed => self.end_probe_rtt(ack),
            Mode::ProbeRtt(_) => {}
            _ if self.path.probe_due() && !self.restarting && self.full.is_reached() => {
                self.prior_window = self.prior_window.max(self.window);
                self.mode = Mode::ProbeRtt(None);
            }
            _ => {}
        }
        self.restarting = false;
    }

    fn end_probe_rtt(&mut self, ack: &Ack) {
        self.path.rtt_probed(ack.now);
        self.restore_window();
        self.bounds.release();
        self.start_down(ack);
        self.start_cruise(ack);
    }

    fn restore_window(&mut self) {
        self.window = self.window.max(self.prior_window);
        self.prior_window = 0;
    }

    fn probe_rtt_window(&self) -> u64 {
        self.inflight(self.bandwidth(), 0.5).max(self.minimum())
    }

    fn pace(&mut self, gain: f64) {
        let bandwidth = self.bandwidth();
        if bandwidth == 0 {
            return;
        }
        let rate = (gain * bandwidth as f64 * (1.0 - PACING_MARGIN)) as u64;
        if self.full.is_reached() || self.pacing_rate.is_none_or(|now| rate > now) {
            self.pacing_rate = Some(rate);
        }
    }

    fn set_window(&mut self, ack: &Ack) {
        let aggregated = self.inflight(self.bandwidth(), self.mode.window_gain()) + self.path.extra_acked();
        let most = aggregated.max(3 * self.quantum()).max(self.minimum());
        if self.full.is_reached() {
            self.window = (self.window + ack.acked).min(most);
        } else if self.window < most || ack.delivered < INITIAL_SEGMENTS * self.mss {
            self.window += ack.acked;
        }
        let bound = match self.mode {
            Mode::Startup | Mode::Drain => u64::MAX,
            Mode::Down | Mode::Refill | Mode::Up => self.bounds.in_flight(false),
            Mode::Cruise => self.bounds.in_flight(true),
            Mode::ProbeRtt(_) => self.bounds.in_flight(true).min(self.probe_rtt_window()),
        };
        self.window = self.window.min(bound).max(self.minimum());
    }
}

impl Controller for Bbr {
    fn window(&self) -> u64 {
        self.window
    }

    fn pacing_rate(&self) -> Option<u64> {
        self.pacing_rate
    }

    fn on_sent(&mut self, now: Instant, _bytes: u64, _in_flight: u64, idle: bool) {
        if idle {
            self.restarting = true;
            self.path.restart_bunch(now);
            if self.full.is_reached() {
                self.pace(1.0);
            }
        }
    }

    fn on_ack(&mut self, ack: &Ack) {
        self.round.on_ack(ack);
        self.path.on_ack(ack, self.round.count, self.window);
        self.losses.on_ack(ack);
        if let Some(rate) = &ack.rate {
            self.bounds.measure(rate);
        }
        if self.pacing_rate.is_none() {
            let initial = STARTUP_GAIN * (INITIAL_SEGMENTS * self.mss) as f64;
            self.pacing_rate = Some(bytes_per_second(initial, ack.smoothed_rtt));
        }
        let passed = self.round.passed;
        if passed {
            self.judge_round(ack.rate.is_some_and(|rate| rate.app_limited), ack.in_flight_before);
        }
        self.leave_startup(ack);
        self.probe_bandwidth(ack);
        self.probe_rtt(ack);
        if let (true, Some(rate)) = (passed, &ack.rate) {
            self.bounds.next_round(rate);
            self.losses.next_round(ack.delivered, ack.total_lost);
        }
        self.pace(self.mode.pacing_gain());
        self.set_window(ack);
    }

    fn on_congestion(&mut self, _now: Instant, _in_flight: u64) {
        self.before = Some(self.bounds.clone());
    }

    fn on_recovered(&mut self, _now: Instant) {
        if !matches!(self.mode, Mode::ProbeRtt(_)) {
            self.restore_window();
        }
    }

    /// Silence says nothing of the capacity: the model stays, and the window returns to what it was once things arrive.
    fn on_timeout(&mut self, _now: Instant, _in_flight: u64) {
        self.prior_window = self.prior_window.max(self.window);
        self.window = self.minimum();
    }

    fn on_spurious(&mut self, now: Instant) {
        if let Some(before) = self.before.take() {
            self.bounds.undo(&before);
        }
        self.full.resume();
        self.on_recovered(now);
    }

    fn name(&self) -> &'static str {
        "bbr"
    }
}
