//! When the next burst may leave.

use std::time::{Duration, Instant};

/// Bursts are this long in time, within their limits in bytes.
const BURST: Duration = Duration::from_millis(1);
/// A burst is at most what one system call carries.
const MAX_BURST: u64 = 64 << 10;
/// A burst due this soon leaves now, if something else woke the sender.
const SLACK: Duration = Duration::from_micros(250);
/// Most time made up for after waking late, by sending twice as fast until it is.
const CREDIT: Duration = Duration::from_millis(20);

/// Spreads segments at a rate, in bursts that are large enough to be sent at little cost.
#[derive(Debug)]
pub(crate) struct Pacer {
    /// When the next byte is due.
    next: Instant,
    /// The burst under way goes on while the next byte is due before this.
    burst_end: Instant,
    /// Time that waking late has cost.
    behind: Duration,
    /// There was nothing to send: that costs no time.
    resting: bool,
}

impl Pacer {
    pub fn new(now: Instant) -> Self {
        Self { next: now, burst_end: now, behind: Duration::ZERO, resting: true }
    }

    /// When the next burst may begin.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Whether a segment may leave now, at `rate` bytes per second.
    pub fn may_send(&mut self, now: Instant, rate: u64, mss: u64) -> bool {
        let burst = (rate / 1000).clamp(2 * mss, MAX_BURST.max(2 * mss));
        let soon = self.next >= self.burst_end && self.next <= now + SLACK.min(span(burst, rate) / 4);
        if self.next <= now || soon {
            let late = now.saturating_duration_since(self.next);
            self.behind = if self.resting { Duration::ZERO } else { (self.behind + late).min(CREDIT) };
            self.resting = false;
            self.next = self.next.max(now);
            self.burst_end = self.next + span(burst, rate).max(BURST.min(span(MAX_BURST, rate)));
        }
        self.next < self.burst_end
    }

    /// There is nothing to send.
    pub fn rest(&mut self) {
        self.resting = true;
    }

    /// A segment left.
    pub fn sent(&mut self, bytes: u64, rate: u64) {
        let gap = span(bytes, rate);
        let made_up = self.behind.min(gap / 2);
        self.behind -= made_up;
        self.next += gap - made_up;
    }
}

/// How long `bytes` take.
fn span(bytes: u64, rate: u64) -> Duration {
    Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried(rate: u64, late: Duration) -> (u64, usize) {
        let start = Instant::now();
        let (mut pacer, mut now, mut sent, mut bursts) = (Pacer::new(start), start, 0, 0);
        while now < start + Duration::from_secs(1) {
            while pacer.may_send(now, rate, 1220) {
                pacer.sent(1220, rate);
                sent += 1220;
            }
            bursts += 1;
            now = now.max(pacer.next()) + late;
        }
        (sent, bursts)
    }

    #[test]
    fn the_rate_is_kept_in_bursts_of_a_millisecond() {
        let (sent, bursts) = carried(12_500_000, Duration::ZERO);
        assert!((12_450_000..12_600_000).contains(&sent), "{sent}");
        assert!((900..1050).contains(&bursts), "{bursts}");
    }

    #[test]
    fn slow_rates_leave_two_segments_at_a_time_and_fast_ones_a_message() {
        assert!((50..60).contains(&carried(128_000, Duration::ZERO).1));
        assert!((1700..2000).contains(&carried(125_000_000, Duration::ZERO).1));
    }

    #[test]
    fn waking_late_is_made_up_for() {
        let (sent, _) = carried(12_500_000, Duration::from_micros(500));
        assert!(sent > 12_400_000, "{sent}");
    }
}
