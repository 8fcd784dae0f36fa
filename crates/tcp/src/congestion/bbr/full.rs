//! Whether the pipe is full: the rate stopped growing.

/// Less growth than this in each of so many rounds: the pipe is full.
const GROWTH: f64 = 1.25;
const ROUNDS: u32 = 3;
const LOSSY_ROUNDS: u32 = 6;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct FullPipe {
    bandwidth: u64,
    rounds: u32,
    /// The last round brought more.
    growing: bool,
    /// Rounds in a row that lost too much.
    lossy: u32,
    reached: bool,
}

impl FullPipe {
    /// Takes note of whether a round lost too much.
    pub(super) fn on_loss(&mut self, lossy: bool) {
        self.lossy = if lossy { self.lossy + 1 } else { 0 };
    }

    /// Takes the estimate at a round's end. Only a round that `tells` counts: the path, not the sender, was its limit.
    pub(super) fn on_round(&mut self, bandwidth: u64, tells: bool) {
        self.growing = bandwidth as f64 >= self.bandwidth as f64 * GROWTH;
        if self.growing {
            self.bandwidth = bandwidth;
            self.rounds = 0;
        } else if tells {
            self.rounds += 1;
            self.reached |= self.rounds >= ROUNDS;
        }
    }

    /// A second lossy round in a row: the first may be bad luck with a few packets.
    pub(super) fn is_overflowing(&self) -> bool {
        self.lossy >= 2
    }

    /// So many lossy rounds in a row without growth, whatever the sender had to send.
    pub(super) fn is_flooding(&self) -> bool {
        self.lossy >= LOSSY_ROUNDS && !self.growing
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_rounds_without_growth_fill_the_pipe() {
        let mut full = FullPipe::default();
        [100, 200, 240, 240].iter().for_each(|rate| full.on_round(*rate, true));
        assert!(!full.is_reached() && !full.growing);
        full.on_round(249, true);
        assert!(full.is_reached());
    }

    #[test]
    fn growth_or_a_mistaken_loss_starts_the_count_again() {
        let mut full = FullPipe::default();
        [100, 100, 100, 125, 130, 130].iter().for_each(|rate| full.on_round(*rate, true));
        full.resume();
        (0..2).for_each(|_| full.on_round(130, true));
        assert!(!full.is_reached());
    }

    #[test]
    fn an_idle_application_fills_no_pipe_but_its_losses_count() {
        let mut full = FullPipe::default();
        (0..9).for_each(|_| full.on_round(100, false));
        assert!(!full.is_reached() && !full.growing);
        [true, false, true].iter().for_each(|lossy| full.on_loss(*lossy));
        assert!(!full.is_overflowing());
        full.on_loss(true);
        assert!(full.is_overflowing());
    }
}
