//! Which region is home: the relay a node can always be reached at.
//!
//! The fastest of the last five minutes wins, but not by a little: moving home costs every peer an update, so a new one
//! must be both 10 ms and a third faster. Only relays count; a STUN server near by says nothing about the way to a relay.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::config::{HISTORY, HOME_MARGIN};

/// Factors up to this one are a wish for that region and no weight.
const PIN: f64 = 1e-6;

/// Latency by region, of one check.
pub type Latencies = BTreeMap<u16, Duration>;

/// The reports that count, newest last.
#[derive(Debug, Default)]
pub struct History(VecDeque<(Instant, Latencies)>);

impl History {
    /// Adds the latencies of one check and chooses the home.
    ///
    /// `present` is the home until now, 0 for none; only regions in `relays` count; `scores` holds factors by region, those
    /// above zero count. Returns 0 if nothing was measured, which is for the caller to interpret.
    pub fn choose(
        &mut self,
        now: Instant,
        mut report: Latencies,
        present: u16,
        relays: &BTreeSet<u16>,
        scores: &BTreeMap<u16, f64>,
    ) -> u16 {
        report.retain(|region, _| relays.contains(region));
        self.0.retain(|(at, _)| now.saturating_duration_since(*at) <= HISTORY);
        self.0.push_back((now, report.clone()));
        let fastest = report.keys().map(|&region| (self.best(region, scores), region)).min();
        let Some((best, region)) = fastest else { return 0 };
        match report.get(&present) {
            Some(&latency)
                if region != present && !pinned(region, scores) && !worth_moving(latency, best) =>
            {
                present
            }
            _ => region,
        }
    }

    /// Forgets everything, as when the regions changed.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    fn best(&self, region: u16, scores: &BTreeMap<u16, f64>) -> Duration {
        let seen = self.0.iter().filter_map(|(_, report)| report.get(&region)).min().copied();
        let seen = seen.unwrap_or(Duration::MAX);
        match scores.get(&region) {
            Some(&score) if score > 0.0 => {
                Duration::try_from_secs_f64(seen.as_secs_f64() * score).unwrap_or(seen)
            }
            _ => seen,
        }
    }
}

/// Whether the factor of a region says: this one, if it can be reached at all. Then no margin is asked for.
fn pinned(region: u16, scores: &BTreeMap<u16, f64>) -> bool {
    scores.get(&region).is_some_and(|&score| score > 0.0 && score <= PIN)
}

fn worth_moving(present: Duration, best: Duration) -> bool {
    let by_margin = present.saturating_sub(best) >= HOME_MARGIN;
    by_margin && best.as_nanos() <= present.as_nanos() / 3 * 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_needs_no_margin_but_an_answer() {
        let mut history = History::default();
        let (now, relays) = (Instant::now(), BTreeSet::from([1, 2]));
        let ms = Duration::from_millis;
        let both = Latencies::from([(1, ms(2)), (2, ms(9))]);
        let pin = BTreeMap::from([(2, PIN)]);
        assert_eq!(history.choose(now, both.clone(), 1, &relays, &BTreeMap::new()), 1);
        assert_eq!(history.choose(now, both.clone(), 1, &relays, &pin), 2);
        assert_eq!(history.choose(now, Latencies::from([(1, ms(2))]), 2, &relays, &pin), 1);
        assert_eq!(history.choose(now, both, 1, &relays, &BTreeMap::from([(2, 0.2)])), 1);
    }
}
