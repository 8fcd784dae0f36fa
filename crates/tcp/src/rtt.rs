//! The round trip and the timeout that follows from it (RFC 6298).

use std::time::{Duration, Instant};

/// The timeout before anything was measured.
const INITIAL: Duration = Duration::from_secs(1);
/// What the timeout adds to the round trip at least: receivers may wait before they acknowledge.
const MARGIN: Duration = Duration::from_millis(200);
/// How long a smallest round trip counts.
const SPAN: Duration = Duration::from_secs(10);

/// What is known of a connection's round trip.
#[derive(Debug, Default)]
pub(crate) struct Rtt {
    smoothed: Option<Duration>,
    variation: Duration,
    /// The smallest of this span and of the one before.
    least: Option<Duration>,
    previous: Option<Duration>,
    span_ends: Option<Instant>,
}

impl Rtt {
    pub fn measured(&mut self, now: Instant, sample: Duration) {
        match self.smoothed {
            None => {
                self.smoothed = Some(sample);
                self.variation = sample / 2;
            }
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(sample)) / 4;
                self.smoothed = Some((smoothed * 7 + sample) / 8);
            }
        }
        if self.span_ends.is_none_or(|end| end <= now) {
            self.span_ends = Some(now + SPAN);
            self.previous = self.least.take();
        }
        self.least = Some(self.least.map_or(sample, |least| least.min(sample)));
    }

    pub fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// The smallest of the last ten to twenty seconds.
    pub fn min(&self) -> Option<Duration> {
        [self.least, self.previous].into_iter().flatten().min()
    }

    pub fn variation(&self) -> Duration {
        self.variation
    }

    /// After how long without an acknowledgement something is wrong.
    pub fn timeout(&self) -> Duration {
        self.smoothed.map_or(INITIAL, |smoothed| smoothed + (self.variation * 4).max(MARGIN))
    }

    /// The same after `retries` futile ones, doubled each time up to `limit`.
    pub fn backed_off(&self, retries: u32, limit: Duration) -> Duration {
        let timeout = self.timeout();
        timeout.saturating_mul(1 << retries.min(16)).min(limit.max(timeout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_follows_rfc_6298() {
        let (mut rtt, now) = (Rtt::default(), Instant::now());
        assert_eq!(rtt.timeout(), INITIAL);
        rtt.measured(now, Duration::from_millis(200));
        assert_eq!(rtt.timeout(), Duration::from_millis(600));
        rtt.measured(now, Duration::from_millis(200));
        assert_eq!(rtt.timeout(), Duration::from_millis(500));
        assert_eq!(rtt.backed_off(3, Duration::from_secs(3)), Duration::from_secs(3));
        (0..100).for_each(|_| rtt.measured(now, Duration::from_millis(200)));
        assert_eq!(rtt.timeout(), Duration::from_millis(400));
    }

    #[test]
    fn the_smallest_is_forgotten_in_time() {
        let (mut rtt, now) = (Rtt::default(), Instant::now());
        rtt.measured(now, Duration::from_millis(5));
        rtt.measured(now + SPAN, Duration::from_millis(50));
        assert_eq!(rtt.min(), Some(Duration::from_millis(5)));
        rtt.measured(now + SPAN * 2, Duration::from_millis(40));
        assert_eq!(rtt.min(), Some(Duration::from_millis(40)));
    }
}
