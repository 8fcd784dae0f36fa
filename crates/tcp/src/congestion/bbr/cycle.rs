//! The cycle of probing for bandwidth: down, cruise, refill, up.

use std::time::{Duration, Instant};

use super::super::{Ack, RateSample};
use super::{Bbr, Bounds, FullPipe, Mode};

/// A probe comes after this, and up to a second more.
const WAIT: Duration = Duration::from_secs(2);
/// A Reno flow on the same path would have grown its window by one segment this often at least.
const MOST_ROUNDS: u64 = 63;

/// Segments that must be acknowledged for each the bound grows by, at the fastest.
const FASTEST: u64 = 8;
/// A probe that finds so much more has found a path it knew little of.
const DISCOVERY: f64 = 2.0;

/// Where in the cycle the sender is.
#[derive(Debug)]
pub(super) struct Cycle {
    /// When the current phase began.
    since: Instant,
    wait: Duration,
    /// The count of rounds when a probe is due for fairness to Reno.
    probe_round: u64,
    /// What is acknowledged now was sent in a probe, and has not been found too much.
    judging: bool,
    /// The first round after a probe is under way.
    stopping: bool,
    /// Rounds of probes since one went too far; the bound's growth doubles with each.
    up_rounds: u32,
    /// Bytes acknowledged that have not yet raised the bound.
    up_acked: u64,
    /// The estimate when the probe began.
    up_from: u64,
    /// Whether the probe still brings something.
    probe: FullPipe,
    random: u64,
}

impl Cycle {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            wait: WAIT,
            probe_round: u64::MAX,
            judging: false,
            stopping: false,
            up_rounds: 0,
            up_acked: 0,
            up_from: 0,
            probe: FullPipe::default(),
            random: 0x9E37_79B9_7F4A_7C15,
        }
    }

    /// Flows that share a bottleneck must not probe in step; what each has measured to the nanosecond keeps them apart.
    fn pick_wait(&mut self, ack: &Ack) {
        let noise = u64::from(ack.smoothed_rtt.subsec_nanos()) ^ ack.delivered.rotate_left(32);
        self.random = (self.random ^ noise).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        self.random ^= self.random >> 29;
        self.wait = WAIT + Duration::from_nanos(self.random % 1_000_000_000);
    }
}

impl Bbr {
    pub(super) fn start_down(&mut self, ack: &Ack) {
        self.mode = Mode::Down;
        self.cycle.since = ack.now;
        self.cycle.pick_wait(ack);
        let reno_rounds = (self.target() / self.mss).min(MOST_ROUNDS);
        self.cycle.probe_round = self.round.count + reno_rounds - self.cycle.random % 2;
        self.cycle.stopping = true;
        self.round.restart(ack.delivered);
    }

    /// Its first round ends with what is sent now, so that the probe's queue is not taken for one of others.
    pub(super) fn start_cruise(&mut self, ack: &Ack) {
        self.mode = Mode::Cruise;
        self.round.restart(ack.delivered);
    }

    fn start_refill(&mut self, ack: &Ack) {
        self.mode = Mode::Refill;
        self.bounds.release();
        self.cycle.up_acked = 0;
        self.round.restart(ack.delivered);
    }

    fn start_up(&mut self, ack: &Ack) {
        self.mode = Mode::Up;
        self.cycle.since = ack.now;
        self.cycle.judging = true;
        self.cycle.stopping = false;
        self.cycle.up_from = self.bandwidth();
        self.cycle.probe = FullPipe::default();
        self.round.restart(ack.delivered);
    }

    /// Whether the probe found much more than was known, and no queue.
    fn is_discovery(&self) -> bool {
        let more = self.bandwidth() as f64 >= self.cycle.up_from as f64 * DISCOVERY;
        more && !self.losses.round().queue_stands(self.path.min_rtt())
    }

    fn start_anew(&mut self) {
        self.mode = Mode::Startup;
        self.full = FullPipe::default();
        self.bounds = Bounds::none();
    }

    /// Moves through the cycle, and adapts the long run's bound to what probes find.
    pub(super) fn probe_bandwidth(&mut self, ack: &Ack) {
        if !self.full.is_reached() {
            return;
        }
        if let Some(rate) = &ack.rate {
            self.adapt_bound(ack, rate);
        }
        if self.mode == Mode::Up {
            self.bounds.admit_latest();
            self.watch_probe(ack);
        }
        match self.mode {
            Mode::Down | Mode::Cruise if self.is_time_to_probe(ack.now) => self.start_refill(ack),
            Mode::Down if self.is_drained(ack) => self.start_cruise(ack),
            Mode::Refill if self.round.passed => self.start_up(ack),
            Mode::Up if self.round.passed && self.is_discovery() => self.start_anew(),
            Mode::Up if self.is_probed(ack) => self.start_down(ack),
            _ => {}
        }
    }

    fn is_time_to_probe(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.cycle.since) > self.cycle.wait
            || self.round.count >= self.cycle.probe_round
    }

    fn is_drained(&self, ack: &Ack) -> bool {
        let empty = self.inflight(self.path.bandwidth(), 1.0);
        ack.in_flight <= empty.min(self.bounds.with_headroom().max(self.minimum()))
    }

    /// Whether the probe is over: it has made a queue, more is in flight than the quarter on top of what the path holds,
    /// and half a round trip (with whatever queue there is) has passed since a higher bandwidth would have begun to show.
    /// Or it brought nothing for three rounds. As long as the bound holds it back it has shown nothing yet.
    fn is_probed(&self, ack: &Ack) -> bool {
        let elapsed = ack.now.saturating_duration_since(self.cycle.since);
        let held = self.inflight(self.bandwidth(), Mode::Up.pacing_gain());
        let queued = self.losses.round().queue_stands(self.path.min_rtt());
        let full = queued && ack.in_flight_before > held + self.path.extra_acked();
        let over = full && elapsed > ack.smoothed_rtt * 3 / 2 || self.cycle.probe.is_reached();
        over && !self.is_bound(ack)
    }

    fn watch_probe(&mut self, ack: &Ack) {
        if self.is_bound(ack) {
            self.cycle.probe = FullPipe::default();
        } else if self.round.passed {
            self.cycle.probe.on_round(self.path.bandwidth(), true);
        }
    }

    /// The long run's bound, and nothing else, holds the sender back.
    fn is_bound(&self, ack: &Ack) -> bool {
        ack.in_flight_before + 3 * self.mss >= self.window && self.window >= self.bounds.long
    }

    fn adapt_bound(&mut self, ack: &Ack, rate: &RateSample) {
        if self.cycle.stopping && self.round.passed {
            self.cycle.stopping = false;
            self.cycle.judging = false;
            if !rate.app_limited {
                self.path.next_cycle();
            }
        }
        if self.losses.exceed(rate.lost, rate.sent_in_flight) {
            if self.cycle.judging {
                self.put_too_much(ack, rate);
            }
        } else if self.bounds.long != u64::MAX {
            self.bounds.long = self.bounds.long.max(rate.sent_in_flight);
            if self.mode == Mode::Up {
                self.raise_bound(ack);
            }
        }
    }

    fn put_too_much(&mut self, ack: &Ack, rate: &RateSample) {
        self.cycle.judging = false;
        self.cycle.up_rounds = 0;
        if !rate.app_limited {
            self.bounds.too_much(rate.sent_in_flight, self.target());
        }
        if self.mode == Mode::Up {
            self.start_down(ack);
        }
    }

    /// While the bound holds the probe back it grows, by one segment in the first round, two in the next, four then, up to
    /// an eighth. A probe goes on where the last one ended, unless that one went too far.
    fn raise_bound(&mut self, ack: &Ack) {
        if self.is_bound(ack) {
            self.cycle.up_acked += ack.acked;
            let slowest = self.window >> self.cycle.up_rounds.min(30);
            let acked_per_segment = slowest.max(FASTEST * self.mss).min(self.window);
            let segments = self.cycle.up_acked / acked_per_segment;
            self.cycle.up_acked -= segments * acked_per_segment;
            self.bounds.long += segments * self.mss;
        }
        if self.round.passed {
            self.cycle.up_rounds += 1;
        }
    }
}
