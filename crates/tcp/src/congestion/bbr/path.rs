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
