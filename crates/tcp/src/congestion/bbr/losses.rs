//! Whether losses mean congestion.

use std::time::Duration;

use super::super::Ack;

/// Loss beyond the path's own that says too much is in flight.
const TOLERATED: f64 = 0.02;
/// Losses come in clumps: so many standard deviations above the path's own are still its own.
const DEVIATIONS: f64 = 2.0;
/// A queue stands when even a round's shortest round trip is longer than the path's by this part and this time.
const STANDING_DIVISOR: u32 = 16;
const STANDING: Duration = Duration::from_micros(500);
/// How much of the estimated bandwidth must still be delivered.
const HELD: f64 = 0.8;
const COLLAPSED: f64 = 0.5;
/// Segments over which the path's own loss is averaged, the fewest that say something, and the most it is believed to be.
const AVERAGED: f64 = 4096.0;
const FEWEST: f64 = 100.0;
const MOST: f64 = 0.2;

/// A round trip's losses, and those the path has without any doing of ours.
#[derive(Debug)]
pub(super) struct Losses {
    mss: u64,
    /// The connection's totals when the round began.
    delivered_before: u64,
    lost_before: u64,
    round: Tally,
    /// What quiet rounds lost, of how many segments.
    ambient_lost: f64,
    ambient_of: f64,
}

/// One round's.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Bytes.
    pub(super) lost: u64,
    pub(super) delivered: u64,
    pub(super) shortest_rtt: Option<Duration>,
}

impl Tally {
    /// A queue stood all round long.
    pub(super) fn queue_stands(&self, min_rtt: Duration) -> bool {
        self.shortest_rtt.is_some_and(|rtt| rtt > min_rtt + min_rtt / STANDING_DIVISOR + STANDING)
    }

    /// A queue stands and most of what was expected does not arrive: the link has become slower.
    pub(super) fn is_collapse(&self, min_rtt: Duration, rate: u64, expected: u64) -> bool {
        self.queue_stands(min_rtt) && (rate as f64) < COLLAPSED * expected as f64
    }

    /// No queue stood, and the path delivered what it was expected to: whatever was lost, congestion it was not.
    pub(super) fn is_quiet(&self, min_rtt: Duration, rate: u64, expected: u64) -> bool {
        !self.queue_stands(min_rtt) && rate as f64 >= HELD * expected as f64
    }
}

impl Losses {
    pub(super) fn new(mss: u64) -> Self {
        Self {
            mss,
            delivered_before: 0,
            lost_before: 0,
            round: Tally::default(),
            ambient_lost: 0.0,
            ambient_of: 0.0,
        }
    }

    pub(super) fn on_ack(&mut self, ack: &Ack) {
        self.round.lost = ack.total_lost.saturating_sub(self.lost_before);
        self.round.delivered = ack.delivered.saturating_sub(self.delivered_before);
        if let Some(rtt) = ack.rtt {
            self.round.shortest_rtt = Some(self.round.shortest_rtt.map_or(rtt, |shortest| shortest.min(rtt)));
        }
    }

    /// The round so far.
    pub(super) fn round(&self) -> Tally {
        self.round
    }

    /// Begins another round.
    pub(super) fn next_round(&mut self, delivered: u64, total_lost: u64) {
        self.delivered_before = delivered;
        self.lost_before = total_lost;
        self.round = Tally::default();
    }

    /// What this round lost is the path's own.
    pub(super) fn learn(&mut self) {
        let segments = |bytes: u64| bytes as f64 / self.mss as f64;
        self.ambient_lost += segments(self.round.lost);
        self.ambient_of += segments(self.round.lost + self.round.delivered);
        if self.ambient_of > AVERAGED {
            self.ambient_lost /= 2.0;
            self.ambient_of /= 2.0;
        }
    }

    /// The part of all packets the path loses by itself.
    pub(super) fn ambient(&self) -> f64 {
        if self.ambient_of < FEWEST { 0.0 } else { (self.ambient_lost / self.ambient_of).min(MOST) }
    }

    /// Whether `lost` bytes `of` so many are more than the path loses by itself.
    pub(super) fn exceed_own(&self, lost: u64, of: u64) -> bool {
        self.exceed_by(0.0, lost, of)
    }

    /// Whether they are more than the path loses by itself and a congested one is allowed to.
    pub(super) fn exceed(&self, lost: u64, of: u64) -> bool {
        self.exceed_by(TOLERATED, lost, of)
    }

    fn exceed_by(&self, tolerated: f64, lost: u64, of: u64) -> bool {
        let (lost, of) = (lost as f64 / self.mss as f64, of as f64 / self.mss as f64);
        let own = of * self.ambient();
        lost > own + tolerated * of + DEVIATIONS * own.sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u64 = 1000;

    fn learned(lost: u64, delivered: u64) -> Losses {
        let mut losses = Losses::new(MSS);
        losses.round = Tally { lost: lost * MSS, delivered: delivered * MSS, shortest_rtt: None };
        losses.learn();
        losses
    }

    #[test]
    fn on_a_clean_path_two_percent_are_the_limit() {
        let losses = Losses::new(MSS);
        assert!(!losses.exceed(20 * MSS, 1000 * MSS));
        assert!(losses.exceed(21 * MSS, 1000 * MSS));
        assert!(losses.exceed_own(1, 1000 * MSS));
    }

    #[test]
    fn what_the_path_loses_by_itself_is_added() {
        let losses = learned(30, 970);
        assert!((losses.ambient() - 0.03).abs() < 1e-9);
        assert!(!losses.exceed(50 * MSS, 1000 * MSS));
        assert!(losses.exceed(62 * MSS, 1000 * MSS));
        assert!(!losses.exceed(3 * MSS, 50 * MSS), "a clump in a small flight");
        assert!(losses.exceed_own(42 * MSS, 1000 * MSS) && !losses.exceed_own(40 * MSS, 1000 * MSS));
    }

    #[test]
    fn a_few_packets_teach_nothing() {
        assert_eq!(learned(30, 60).ambient(), 0.0);
    }

    #[test]
    fn the_path_is_never_believed_to_lose_most() {
        assert_eq!(learned(900, 100).ambient(), MOST);
    }

    #[test]
    fn a_queue_stands_when_the_shortest_round_trip_is_longer() {
        let ms = Duration::from_millis;
        let tally = |rtt| Tally { lost: 1, delivered: 9, shortest_rtt: Some(ms(rtt)) };
        assert!(!tally(106).queue_stands(ms(100)));
        assert!(tally(107).queue_stands(ms(100)));
        assert!(!Tally::default().queue_stands(ms(100)), "nothing was measured");
    }
}
