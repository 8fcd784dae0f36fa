//! How much of something a client may do.

use std::time::{Duration, Instant};

/// A rate, and how much may be done at once after a rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Units per second; at least one.
    pub per_second: u64,
    /// Units at once; at least one.
    pub burst: u64,
}

const NANOS: i128 = 1_000_000_000;

/// A token bucket.
pub(super) struct Bucket {
    limit: RateLimit,
    /// Units times 10^9: exact for any time and rate. Below zero, something was allowed in advance.
    level: i128,
    filled: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(super) fn new(limit: RateLimit, now: Instant) -> Self {
        let limit = RateLimit { per_second: limit.per_second.max(1), burst: limit.burst.max(1) };
        Self { limit, level: i128::from(limit.burst) * NANOS, filled: now }
    }

    /// Takes one unit, if there is one.
    pub(super) fn allow(&mut self, now: Instant) -> bool {
        self.fill(now);
        let allowed = self.level >= NANOS;
        self.level -= if allowed { NANOS } else { 0 };
        allowed
    }

    /// Takes `units` in any case. Returns how long nothing more may be taken, if they were not all there.
    pub(super) fn charge(&mut self, now: Instant, units: usize) -> Option<Duration> {
        self.fill(now);
        self.level -= units as i128 * NANOS;
        let debt = u128::try_from(-self.level).ok().filter(|debt| *debt > 0)?;
        let nanos = debt.div_ceil(u128::from(self.limit.per_second));
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).as_nanos() as i128;
        self.filled = self.filled.max(now);
        let full = i128::from(self.limit.burst) * NANOS;
        self.level = (self.level + passed * i128::from(self.limit.per_second)).min(full);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_at_once_then_one_per_second() {
        let start = Instant::now();
        let mut bucket = Bucket::new(RateLimit { per_second: 1, burst: 3 }, start);
        assert_eq!([(); 4].map(|()| bucket.allow(start)), [true, true, true, false]);
        assert!(!bucket.allow(start + Duration::from_millis(999)));
        assert!(bucket.allow(start + Duration::from_secs(1)));
        assert!(!bucket.allow(start + Duration::from_millis(1999)));
        let later = start + Duration::from_secs(3600);
        assert_eq!([(); 4].map(|()| bucket.allow(later)), [true, true, true, false]);
    }

    #[test]
    fn what_was_taken_in_advance_is_waited_for() {
        let start = Instant::now();
        let mut bucket = Bucket::new(RateLimit { per_second: 1000, burst: 500 }, start);
        assert_eq!(bucket.charge(start, 500), None);
        assert_eq!(bucket.charge(start, 1500), Some(Duration::from_millis(1500)));
        assert_eq!(bucket.charge(start + Duration::from_millis(1500), 1), Some(Duration::from_millis(1)));
        // The clock of an earlier event changes nothing.
        assert_eq!(bucket.charge(start, 0), Some(Duration::from_millis(1)));
    }
}
