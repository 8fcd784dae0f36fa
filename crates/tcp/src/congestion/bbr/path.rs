//! What was measured of the path: bandwidth, round trip, and how bunched acknowledgements come.

use std::time::{Duration, Instant};

use super::super::{Ack, bytes_per_second};

/// How long a shortest round trip is believed.
const MIN_RTT_LIFE: Duration = Duration::from_secs(10);
/// How long without one as short until the sender drains its queue to look again.
const PROBE_RTT_AFTER: Duration = Duration::from_secs(5);
/// A round trip longer by no more than this part is as short.
const AS_SHORT_DIVISOR: u32 = 64;
/// Rounds in each of the two halves of the aggregation filter.
const AGGREGATION_ROUNDS: u64 = 5;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Path {
    /// Most delivered per second in this probing cycle and in the last.
    bandwidth: [u64; 2],
    min_rtt: Option<(Duration, Instant)>,
    /// The same over the shorter time after which it is probed.
    recent_rtt: Option<(Duration, Instant)>,
    probe_due: bool,
    bunch_start: Instant,
    bunch: u64,
    /// Most delivered beyond what the bandwidth explains, in the current and the last few rounds.
    extra: [u64; 2],
    extra_until: u64,
}

impl Path {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            bandwidth: [0; 2],
            min_rtt: None,
            recent_rtt: None,
            probe_due: false,
            bunch_start: now,
            bunch: 0,
            extra: [0; 2],
            extra_until: AGGREGATION_ROUNDS,
        }
    }

    /// Bytes per second the path has lately carried at most.
    pub(super) fn bandwidth(&self) -> u64 {
        self.bandwidth[0].max(self.bandwidth[1])
    }

    /// The round trip without a queue; zero before the first sample.
    pub(super) fn min_rtt(&self) -> Duration {
        self.min_rtt.map_or(Duration::ZERO, |(rtt, _)| rtt)
    }

    /// Whether the shortest round trip was not seen for so long that the queue should be drained to see it.
    pub(super) fn probe_due(&self) -> bool {
        self.probe_due
    }

    /// Bytes the window needs on top, so that the sender need not stop between bunches of acknowledgements.
    pub(super) fn extra_acked(&self) -> u64 {
        self.extra[0].max(self.extra[1])
    }

    /// A probing cycle is over: forgets the one before it.
    pub(super) fn next_cycle(&mut self) {
        if self.bandwidth[0] > 0 {
            self.bandwidth = [0, self.bandwidth[0]];
        }
    }

    /// The round trip was just probed.
    pub(super) fn rtt_probed(&mut self, now: Instant) {
        self.recent_rtt = self.recent_rtt.map(|(rtt, _)| (rtt, now));
    }

    /// Acknowledgements do not bunch because the sender paused.
    pub(super) fn restart_bunch(&mut self, now: Instant) {
        self.bunch_start = now;
        self.bunch = 0;
    }

    pub(super) fn on_ack(&mut self, ack: &Ack, round: u64, window: u64) {
        if let Some(rate) = ack.rate {
            let sample = bytes_per_second(rate.delivered as f64, rate.interval);
            if sample >= self.bandwidth() || !rate.app_limited {
                self.bandwidth[0] = self.bandwidth[0].max(sample);
            }
        }
        self.measure_bunch(ack, round, window);
        self.measure_rtt(ack);
    }

    fn measure_bunch(&mut self, ack: &Ack, round: u64, window: u64) {
        if round >= self.extra_until {
            self.extra = [0, self.extra[0]];
            self.extra_until = round + AGGREGATION_ROUNDS;
        }
        let elapsed = ack.now.saturating_duration_since(self.bunch_start).as_secs_f64();
        let expected = (self.bandwidth() as f64 * elapsed) as u64;
        if self.bunch <= expected {
            self.restart_bunch(ack.now);
            self.bunch = ack.acked;
            self.extra[0] = self.extra[0].max(self.bunch.min(window));
            return;
        }
        self.bunch += ack.acked;
        self.extra[0] = self.extra[0].max((self.bunch - expected).min(window));
    }

    fn measure_rtt(&mut self, ack: &Ack) {
        let since = |seen: Option<(Duration, Instant)>| {
            seen.map_or(Duration::MAX, |(_, at)| ack.now.saturating_duration_since(at))
        };
        self.probe_due = self.recent_rtt.is_some() && since(self.recent_rtt) > PROBE_RTT_AFTER;
        let Some(rtt) = ack.rtt else { return };
        match &mut self.recent_rtt {
            Some((recent, at)) if rtt >= *recent && !self.probe_due => {
                if rtt <= *recent + *recent / AS_SHORT_DIVISOR {
                    *at = ack.now;
                }
            }
            recent => *recent = Some((rtt, ack.now)),
        }
        if let Some((recent, at)) = self.recent_rtt
            && (since(self.min_rtt) > MIN_RTT_LIFE || self.min_rtt.is_none_or(|(rtt, _)| recent <= rtt))
        {
            self.min_rtt = Some((recent, at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::congestion::RateSample;

    fn millis(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn ack(now: Instant, rtt: u64, rate: u64, app_limited: bool) -> Ack {
        let sample = RateSample {
            delivered: rate / 10,
            interval: millis(100),
            prior_delivered: 0,
            sent_in_flight: 0,
            lost: 0,
            app_limited,
        };
        Ack {
            now,
            acked: 1000,
            lost: 0,
            in_flight_before: 0,
            in_flight: 0,
            rtt: Some(millis(rtt)),
            smoothed_rtt: millis(rtt),
            delivered: 0,
            total_lost: 0,
            rate: Some(sample),
            recovering: false,
            app_limited,
        }
    }

    #[test]
    fn the_bandwidth_outlives_one_cycle_and_no_more() {
        let now = Instant::now();
        let mut path = Path::new(now);
        path.on_ack(&ack(now, 10, 9000, false), 0, 0);
        path.next_cycle();
        path.on_ack(&ack(now, 10, 5000, false), 0, 0);
        assert_eq!(path.bandwidth(), 9000);
        path.next_cycle();
        assert_eq!(path.bandwidth(), 5000);
        path.next_cycle();
        assert_eq!(path.bandwidth(), 5000, "a cycle without a sample forgets nothing");
    }

    #[test]
    fn a_sender_with_little_to_send_only_raises_the_bandwidth() {
        let now = Instant::now();
        let mut path = Path::new(now);
        path.on_ack(&ack(now, 10, 9000, false), 0, 0);
        path.next_cycle();
        path.on_ack(&ack(now, 10, 100, true), 0, 0);
        path.next_cycle();
        assert_eq!(path.bandwidth(), 9000);
        path.on_ack(&ack(now, 10, 9500, true), 0, 0);
        assert_eq!(path.bandwidth(), 9500);
    }

    #[test]
    fn the_round_trip_is_probed_after_five_seconds_and_forgotten_after_ten() {
        let start = Instant::now();
        let mut path = Path::new(start);
        path.on_ack(&ack(start, 100, 9000, false), 0, 0);
        let mut probed = None;
        for second in 1..=12 {
            path.on_ack(&ack(start + Duration::from_secs(second), 120, 9000, false), 0, 0);
            probed = probed.or(path.probe_due().then_some(second));
            if second <= 10 {
                assert_eq!(path.min_rtt(), millis(100));
            }
        }
        assert_eq!(probed, Some(6));
        assert_eq!(path.min_rtt(), millis(120));
    }

    #[test]
    fn a_round_trip_as_short_as_the_shortest_needs_no_probe() {
        let start = Instant::now();
        let mut path = Path::new(start);
        for second in 0..30 {
            path.on_ack(&ack(start + Duration::from_secs(second), 100 + second % 2, 9000, false), 0, 0);
            assert!(!path.probe_due());
        }
        assert_eq!(path.min_rtt(), millis(100));
    }

    #[test]
    fn bunches_are_what_exceeds_the_bandwidth() {
        let start = Instant::now();
        let mut path = Path::new(start);
        // 10,000 bytes a second; five thousand come each half second, all at once.
        for half in 0..8 {
            let now = start + millis(half * 500);
            (0..5).for_each(|_| path.on_ack(&ack(now, 100, 10_000, false), half, 100_000));
        }
        assert_eq!(path.extra_acked(), 5000);
    }
}
