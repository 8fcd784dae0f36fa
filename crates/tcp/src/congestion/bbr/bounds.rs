//! What congestion has taught: how much may be in flight in the long run, and until the next probe.

use super::super::RateSample;
use super::super::bytes_per_second;

/// What a congested round leaves, at least.
const BETA: f64 = 0.7;
/// Part of the bound left free for others while cruising.
const HEADROOM: f64 = 0.15;

/// See the [module](self). No bound is `u64::MAX`.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    /// In flight, in the long run.
    pub(super) long: u64,
    /// In flight, until the next probe.
    short: u64,
    /// Bytes per second, until the next probe.
    bandwidth: u64,
    /// The best rate and the largest amount delivered this round.
    latest_rate: u64,
    latest_delivered: u64,
}

impl Bounds {
    pub(super) fn none() -> Self {
        Self { long: u64::MAX, short: u64::MAX, bandwidth: u64::MAX, latest_rate: 0, latest_delivered: 0 }
    }

    /// The most bytes per second.
    pub(super) fn bandwidth(&self) -> u64 {
        self.bandwidth
    }

    /// The most in flight; `reserved` when some is left free for others.
    pub(super) fn in_flight(&self, reserved: bool) -> u64 {
        if reserved { self.with_headroom().min(self.short) } else { self.long.min(self.short) }
    }

    /// The long run's bound less the headroom.
    pub(super) fn with_headroom(&self) -> u64 {
        if self.long == u64::MAX { u64::MAX } else { (self.long as f64 * (1.0 - HEADROOM)) as u64 }
    }

    /// The best rate of the round, and the largest amount delivered over one flight.
    pub(super) fn latest(&self) -> (u64, u64) {
        (self.latest_rate, self.latest_delivered)
    }

    /// Takes a sample of the current round.
    pub(super) fn measure(&mut self, rate: &RateSample) {
        self.latest_rate = self.latest_rate.max(bytes_per_second(rate.delivered as f64, rate.interval));
        self.latest_delivered = self.latest_delivered.max(rate.delivered);
    }

    /// Begins another round with the sample that ended the last.
    pub(super) fn next_round(&mut self, rate: &RateSample) {
        self.latest_rate = 0;
        self.latest_delivered = 0;
        self.measure(rate);
    }

    /// A round was congested: no more than was delivered, but no less than seven tenths of what was allowed.
    pub(super) fn lower(&mut self, bandwidth: u64, window: u64) {
        let cut = |bound: u64, initial: u64| (bound.min(initial) as f64 * BETA) as u64;
        self.bandwidth = self.latest_rate.max(cut(self.bandwidth, bandwidth));
        self.short = self.latest_delivered.max(cut(self.short, window));
    }

    /// Widens the bounds for a probe. Twice the bandwidth is no limit to a probe after contention, but after the link
    /// has become much slower it keeps the old estimate from flooding it again.
    pub(super) fn release(&mut self) {
        self.short = u64::MAX;
        self.bandwidth = self.bandwidth.saturating_mul(2);
    }

    /// A probe delivered this much: it may be sent.
    pub(super) fn admit_latest(&mut self) {
        self.bandwidth = self.bandwidth.max(self.latest_rate);
    }

    /// A flight of this size lost too much.
    pub(super) fn too_much(&mut self, in_flight: u64, target: u64) {
        self.long = in_flight.max((target as f64 * BETA) as u64);
    }

    /// As wide as `before` again, at least.
    pub(super) fn undo(&mut self, before: &Self) {
        self.long = self.long.max(before.long);
        self.short = self.short.max(before.short);
        self.bandwidth = self.bandwidth.max(before.bandwidth);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn sample(delivered: u64) -> RateSample {
        let interval = Duration::from_millis(100);
        RateSample { delivered, interval, prior_delivered: 0, sent_in_flight: 0, lost: 0, app_limited: false }
    }

    #[test]
    fn congestion_leaves_what_was_delivered_or_seven_tenths() {
        let mut bounds = Bounds::none();
        bounds.measure(&sample(900));
        bounds.lower(10_000, 1000);
        assert_eq!((bounds.bandwidth(), bounds.in_flight(false)), (9000, 900));
        bounds.next_round(&sample(100));
        bounds.lower(10_000, 1000);
        assert_eq!((bounds.bandwidth(), bounds.in_flight(false)), (6300, 630));
    }

    #[test]
    fn a_probe_may_double_the_bandwidth_and_admit_more() {
        let mut bounds = Bounds::none();
        bounds.release();
        assert_eq!(bounds.bandwidth(), u64::MAX);
        bounds.measure(&sample(100));
        bounds.lower(1000, 1000);
        bounds.release();
        assert_eq!((bounds.bandwidth(), bounds.in_flight(false)), (2000, u64::MAX));
        bounds.measure(&sample(300));
        bounds.admit_latest();
        assert_eq!(bounds.bandwidth(), 3000);
    }

    #[test]
    fn a_cruise_leaves_room_below_the_long_bound() {
        let mut bounds = Bounds::none();
        assert_eq!(bounds.in_flight(true), u64::MAX);
        bounds.too_much(1000, 500);
        assert_eq!((bounds.in_flight(true), bounds.in_flight(false)), (850, 1000));
        bounds.too_much(100, 1000);
        assert_eq!(bounds.long, 700, "not below what the target needs");
    }

    #[test]
    fn undoing_widens_only() {
        let mut bounds = Bounds::none();
        bounds.too_much(1000, 500);
        let before = bounds.clone();
        bounds.too_much(800, 500);
        bounds.lower(1000, 1000);
        bounds.undo(&before);
        assert_eq!((bounds.long, bounds.bandwidth()), (1000, u64::MAX));
        bounds.long = 2000;
        bounds.undo(&before);
        assert_eq!(bounds.long, 2000);
    }
}
