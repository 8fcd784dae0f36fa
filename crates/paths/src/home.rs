//! Which region is home: the relay a node can always be reached at.
//!
//! The fastest of the last five minutes wins, but not by a little: moving home costs every peer an update, so a new one
//! must be both 10 ms and a third faster: also in the newest check, and than the home was in both of the newest two, for one
//! slow answer is no reason. Only relays count; a STUN server near by says nothing about the way to a relay.

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
        let newest = report.get(&region).map_or(best, |&newest| best.max(weighted(newest, region, scores)));
        match self.of_late(present) {
            Some(latency)
                if region != present && !pinned(region, scores) && !worth_moving(latency, newest) =>
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
        weighted(seen.unwrap_or(Duration::MAX), region, scores)
    }

    /// The better latency of a region in the newest two reports; `None` if the newest lacks it.
    fn of_late(&self, region: u16) -> Option<Duration> {
        let mut newest = self.0.iter().rev().map(|(_, report)| report.get(&region));
        let latency = newest.next()??;
        Some(newest.next().flatten().map_or(*latency, |before| *before.min(latency)))
    }
}

fn weighted(latency: Duration, region: u16, scores: &BTreeMap<u16, f64>) -> Duration {
    match scores.get(&region) {
        Some(&score) if score > 0.0 => {
            Duration::try_from_secs_f64(latency.as_secs_f64() * score).unwrap_or(latency)
        }
        _ => latency,
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

    /// The home after each report of two regions, one every 25 s.
    fn homes(reports: impl IntoIterator<Item = [u64; 2]>) -> Vec<u16> {
        let (mut history, mut now, mut home) = (History::default(), Instant::now(), 0);
        let relays = BTreeSet::from([1, 2]);
        let mut after = |[one, two]: [u64; 2]| {
            let report = Latencies::from([(1, Duration::from_millis(one)), (2, Duration::from_millis(two))]);
            home = history.choose(now, report, home, &relays, &BTreeMap::new());
            now += Duration::from_secs(25);
            home
        };
        reports.into_iter().map(&mut after).collect()
    }

    #[test]
    fn latencies_that_cross_a_little_move_nothing() {
        let swing = [26, 28, 30, 32, 34, 32, 30, 28];
        for period in [1, 3, 20] {
            let crossing = (0..400).map(|step| {
                let one = swing[step / period % swing.len()];
                [one, 60 - one]
            });
            assert!(homes(crossing).iter().all(|home| *home == 1));
        }
        // Just below the margin, for longer than anything is remembered.
        assert!(
            homes((0..400).map(|step| if step / 40 % 2 == 0 { [30, 39] } else { [39, 30] }))
                .iter()
                .all(|home| *home == 1)
        );
    }

    #[test]
    fn one_slow_answer_moves_nothing_and_two_do() {
        let late = [[50, 55], [50, 40], [500, 40], [50, 40], [500, 40], [500, 400], [500, 40]];
        assert_eq!(homes(late), [1, 1, 1, 1, 1, 1, 2]);
    }
}
