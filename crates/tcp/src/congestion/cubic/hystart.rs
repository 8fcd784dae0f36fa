//! HyStart++ (RFC 9406): slow start that ends when the round trip rises.

use std::time::Duration;

use crate::congestion::{Ack, Round};

const SAMPLES: u32 = 8;
const MIN_RISE: Duration = Duration::from_millis(4);
const MAX_RISE: Duration = Duration::from_millis(16);
/// A rise by this part of the round trip counts.
const RISE_DIVISOR: u32 = 8;
/// How much slower conservative slow start grows, and for how many rounds.
const CONSERVATIVE_DIVISOR: f64 = 4.0;
const CONSERVATIVE_ROUNDS: u32 = 5;

/// When to leave slow start.
#[derive(Debug, Default)]
pub(super) struct HyStart {
    round: Round,
    samples: u32,
    /// Shortest round trip of this round and of the last.
    current: Option<Duration>,
    last: Option<Duration>,
    conservative: Option<Conservative>,
    done: bool,
}

#[derive(Debug)]
struct Conservative {
    /// The shortest round trip when it began; if it is seen again, the rise was no queue.
    baseline: Duration,
    rounds: u32,
}

impl HyStart {
    /// By what to divide the bytes acknowledged before they are added to the window.
    pub(super) fn on_ack(&mut self, ack: &Ack) -> f64 {
        if self.round.on_ack(ack) {
            self.next_round();
        }
        if let Some(rtt) = ack.rtt {
            self.samples += 1;
            self.current = Some(self.current.map_or(rtt, |current| current.min(rtt)));
            self.judge();
        }
        if self.conservative.is_some() { CONSERVATIVE_DIVISOR } else { 1.0 }
    }

    /// Slow start is over.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    fn next_round(&mut self) {
        self.last = self.current.take();
        self.samples = 0;
        if let Some(conservative) = &mut self.conservative {
            conservative.rounds += 1;
            self.done = conservative.rounds >= CONSERVATIVE_ROUNDS;
        }
    }

    fn judge(&mut self) {
        let (Some(current), true) = (self.current, self.samples >= SAMPLES) else { return };
        match (&self.conservative, self.last) {
            (Some(conservative), _) if current < conservative.baseline => self.conservative = None,
            (None, Some(last)) if current >= last + (last / RISE_DIVISOR).clamp(MIN_RISE, MAX_RISE) => {
                self.conservative = Some(Conservative { baseline: current, rounds: 0 });
            }
            _ => {}
        }
    }
}
