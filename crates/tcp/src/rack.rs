//! Which delivered segment was sent last, and how much reordering to put up with (RFC 8985, RACK).

use std::time::{Duration, Instant};

use crate::board::Sent;
use crate::rtt::Rtt;

/// Recoveries after which a larger reordering window is given up again.
const PERSIST: u32 = 16;
/// Selectively acknowledged segments that mean loss while no reordering was seen (RFC 5681 section 3.2).
const THRESHOLD: usize = 3;

/// The state of RFC 8985 section 5.3.
#[derive(Debug, Default)]
pub(crate) struct Rack {
    /// Time and end of the delivered segment that was sent last.
    pub newest: Option<(Instant, u64)>,
    /// Its round trip.
    rtt: Duration,
    reordering: bool,
    /// The window in quarters of the least round trip, less one.
    extra: u32,
    persist: u32,
    /// A duplicate was reported in the round that ends here.
    widened_until: Option<u64>,
    /// When segments are to be judged again.
    pub again_at: Option<Instant>,
}

impl Rack {
    /// A segment was delivered (step 2).
    pub fn delivered(&mut self, now: Instant, sent: &Sent, least: Option<Duration>) {
        let rtt = now.saturating_duration_since(sent.sent_at);
        // Too early to be the answer to the retransmission.
        if sent.resent && least.is_some_and(|least| rtt < least) {
            return;
        }
        if self.newest.is_none_or(|newest| newest <= sent.order()) {
            self.newest = Some(sent.order());
            self.rtt = rtt;
        }
    }

    pub fn saw_reordering(&mut self) {
        self.reordering = true;
    }

    /// The receiver reports a segment it had twice: the window was too small.
    pub fn duplicate(&mut self, una: u64, nxt: u64) {
        if self.widened_until.is_none_or(|end| end <= una) {
            self.widened_until = Some(nxt);
            self.extra = self.extra.saturating_add(1);
            self.persist = PERSIST;
        }
    }

    /// A recovery episode is over.
    pub fn recovered(&mut self) {
        self.persist = self.persist.saturating_sub(1);
        if self.persist == 0 {
            self.extra = 0;
        }
    }

    /// How long after it was sent a segment is lost that should have arrived before the newest delivered one.
    pub fn patience(&self, rtt: &Rtt, recovering: bool, sacked: usize) -> Duration {
        if !self.reordering && (recovering || sacked >= THRESHOLD) {
            return self.rtt;
        }
        let window = rtt.min().unwrap_or_default() / 4 * self.extra.saturating_add(1);
        self.rtt + window.min(rtt.smoothed().unwrap_or_default())
    }
}
