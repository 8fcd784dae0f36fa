//! Noticing that the machine slept or the process stood still: what was known of the network is old then.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Waking later than planned by this much means having stood still (stopped, frozen, or a suspended machine).
const LATE: Duration = Duration::from_secs(10);
/// The clock that counts suspension gains on the one that does not by at least this in one suspension.
const SUSPENDED: Duration = Duration::from_secs(2);

/// The watch.
#[derive(Debug)]
pub(crate) struct Sleep {
    /// Time spent suspended since the machine started.
    suspended: Duration,
}

impl Sleep {
    pub(crate) fn new() -> Self {
        Self { suspended: suspended() }
    }

    /// Whether sleep lay between `before`, when the thread began to wait for at most `limit`, and `now`.
    pub(crate) fn happened(&mut self, before: Instant, limit: Option<Duration>, now: Instant) -> bool {
        self.judge(before, limit, now, suspended())
    }

    fn judge(&mut self, before: Instant, limit: Option<Duration>, now: Instant, suspended: Duration) -> bool {
        let slept = suspended.saturating_sub(std::mem::replace(&mut self.suspended, suspended));
        let late = limit.is_some_and(|limit| now.saturating_duration_since(before) > limit + LATE);
        late || slept >= SUSPENDED
    }
}

fn suspended() -> Duration {
    let read = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    let monotonic = read(ClockId::Monotonic);
    read(ClockId::Boottime).saturating_sub(monotonic)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waking_on_time_is_no_sleep() {
        let mut sleep = Sleep { suspended: SECOND };
        let before = Instant::now();
        assert!(!sleep.judge(before, Some(SECOND), before + SECOND, SECOND));
        assert!(!sleep.judge(before, None, before + 3600 * SECOND, SECOND));
        assert!(!sleep.judge(before, Some(60 * SECOND), before + 69 * SECOND, SECOND));
    }

    #[test]
    fn waking_late_is_sleep_once() {
        let mut sleep = Sleep { suspended: Duration::ZERO };
        let before = Instant::now();
        let now = before + 60 * SECOND;
        assert!(sleep.judge(before, Some(3 * SECOND), now, Duration::ZERO));
        assert!(!sleep.judge(now, Some(3 * SECOND), now + SECOND, Duration::ZERO));
    }

    #[test]
    fn a_suspended_machine_shows_in_its_clocks() {
        let mut sleep = Sleep { suspended: SECOND };
        let before = Instant::now();
        assert!(sleep.judge(before, None, before, 61 * SECOND));
        assert!(!sleep.judge(before, None, before, 61 * SECOND));
    }

    #[test]
    fn the_clocks_can_be_read() {
        let (first, second) = (suspended(), suspended());
        assert!(second.abs_diff(first) < SUSPENDED);
    }
}
