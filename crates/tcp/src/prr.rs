//! Proportional rate reduction (RFC 9937): how a window shrinks in recovery without a pause and without a burst.

/// One recovery episode of a controller that does not pace.
#[derive(Debug)]
pub(crate) struct Prr {
    /// What was outstanding when it began (`RecoverFS`).
    outstanding: u64,
    /// The window to arrive at.
    target: u64,
    delivered: u64,
    sent: u64,
    window: u64,
}

impl Prr {
    pub fn new(outstanding: u64, target: u64, in_flight: u64, mss: u64) -> Self {
        Self { outstanding: outstanding.max(1), target, delivered: 0, sent: 0, window: in_flight + mss }
    }

    pub fn window(&self) -> u64 {
        self.window
    }

    pub fn sent(&mut self, bytes: u64) {
        self.sent += bytes;
    }

    /// An acknowledgement delivered `bytes`; `safe` when it moved on and showed no new loss.
    pub fn delivered(&mut self, bytes: u64, in_flight: u64, mss: u64, safe: bool) {
        self.delivered += bytes;
        let mut quota = if in_flight > self.target {
            let share = u128::from(self.delivered) * u128::from(self.target) / u128::from(self.outstanding);
            u64::try_from(share).unwrap_or(u64::MAX).saturating_sub(self.sent)
        } else {
            let owed = self.delivered.saturating_sub(self.sent).max(bytes) + if safe { mss } else { 0 };
            owed.min(self.target - in_flight)
        };
        if self.sent == 0 {
            quota = quota.max(mss);
        }
        self.window = in_flight + quota;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One segment of twenty is lost: while the other nineteen are acknowledged, seven tenths as many leave.
    #[test]
    fn the_window_shrinks_in_proportion() {
        let (mut in_flight, mut sent) = (19_000, 0);
        let mut prr = Prr::new(20_000, 14_000, in_flight, 1000);
        for _ in 0..19 {
            in_flight -= 1000;
            prr.delivered(1000, in_flight, 1000, true);
            while in_flight + 1000 <= prr.window() {
                in_flight += 1000;
                prr.sent(1000);
                sent += 1;
            }
        }
        assert!((13..=14).contains(&sent), "{sent}");
        assert!((13_000..=14_000).contains(&in_flight), "{in_flight}");
    }
}
