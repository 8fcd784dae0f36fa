//! Whether the pipe is full: the rate stopped growing.

/// Less growth than this in each of so many rounds: the pipe is full.
const GROWTH: f64 = 1.25;
const ROUNDS: u32 = 3;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct FullPipe {
    bandwidth: u64,
    rounds: u32,
    /// Rounds in a row that lost too much.
    lossy: u32,
    reached: bool,
}

impl FullPipe {
    /// Takes note of whether a round lost too much.
    pub(super) fn on_loss(&mut self, lossy: bool) {
        self.lossy = if lossy { self.lossy + 1 } else { 0 };
    }

    /// Takes the estimate at the end of a round whose sender had enough to send.
    pub(super) fn on_round(&mut self, bandwidth: u64) {
        if bandwidth as f64 >= self.bandwidth as f64 * GROWTH {
            self.bandwidth = bandwidth;
            self.rounds = 0;
            return;
        }
        self.rounds += 1;
        if self.rounds >= ROUNDS {
            self.reached = true;
        }
    }

    /// The last round brought more.
    pub(super) fn is_growing(&self) -> bool {
        self.rounds == 0 && !self.reached
    }

    /// A second lossy round in a row: the first may be bad luck with a few packets.
    pub(super) fn is_overflowing(&self) -> bool {
        self.lossy >= 2
    }

    pub(super) fn is_reached(&self) -> bool {
        self.reached
    }

    /// It is, for another reason.
    pub(super) fn reach(&mut self) {
        self.reached = true;
    }

    /// Counts rounds anew.
    pub(super) fn resume(&mut self) {
        self.rounds = 0;
    }
}
