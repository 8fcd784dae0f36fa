//! The payload: blocks of noise, sent whole, at least one.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Bytes in one block. The sender looks at the clock only between blocks, the receiver wants at least one.
pub const BLOCK_SIZE: usize = 2 * 1024 * 1024;

/// The noise a block repeats. Small enough to stay in a core's own cache while it is copied out again and again.
const NOISE_SIZE: usize = BLOCK_SIZE / 8;

/// Noise that no link can compress, made once per process. It is nobody's secret, so a fixed seed will do.
fn noise() -> &'static [u8] {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    NOISE.get_or_init(|| {
        // SplitMix64 (Steele, Lea, Flood 2014).
        let mut state = 0u64;
        let words = std::iter::repeat_with(|| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = state;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^ (word >> 31)
        });
        words.take(NOISE_SIZE / 8).flat_map(u64::to_le_bytes).collect()
    })
}

/// Hands out blocks until the time is up.
#[derive(Debug)]
pub(crate) struct Sender {
    start: Instant,
    duration: Duration,
    /// Position within the current block.
    position: usize,
    done: bool,
}

impl Sender {
    pub(crate) fn new(start: Instant, duration: Duration) -> Self {
        Self { start, duration, position: 0, done: false }
    }

    /// The next at most `max` bytes, which count as sent. Empty when done.
    pub(crate) fn next_chunk(&mut self, now: Instant, max: usize) -> &'static [u8] {
        if self.done {
            return &[];
        }
        let from = self.position % NOISE_SIZE;
        let chunk = &noise()[from..NOISE_SIZE.min(from.saturating_add(max))];
        self.position += chunk.len();
        if self.position == BLOCK_SIZE {
            self.position = 0;
            self.done = now.saturating_duration_since(self.start) > self.duration;
        }
        chunk
    }

    pub(crate) fn done(&self) -> bool {
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn stops_only_after_a_whole_block() {
        let start = Instant::now();
        let mut sender = Sender::new(start, Duration::from_secs(1));
        let mut block = |now| {
            let mut left = BLOCK_SIZE;
            while left > 0 {
                assert!(!sender.done());
                let sent = sender.next_chunk(now, 100_000).len();
                assert!(sent > 0 && sent <= left, "a chunk stays within its block");
                left -= sent;
            }
            sender.done()
        };
        assert!(!block(start));
        assert!(!block(start + Duration::from_secs(1)), "exactly the duration is not over it");
        assert!(block(start + Duration::from_secs(2)));
        assert_eq!(sender.next_chunk(start, 1), b"");
    }

    #[test]
    fn noise_does_not_repeat_itself() {
        let mut words: Vec<&[u8]> = noise().chunks(8).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), NOISE_SIZE / 8);
    }
}
