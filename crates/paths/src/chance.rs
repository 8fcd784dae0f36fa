//! All randomness of a node, from one seed.

use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use wire::keys::DiscoPublic;

pub(crate) struct Chance(ChaCha12Rng);

impl Chance {
    /// The key goes into the seed too, so that two nodes of one process never share a stream.
    pub(crate) fn new(seed: u64, disco: &DiscoPublic) -> Self {
        let mut full = *disco.as_bytes();
        full[..8].iter_mut().zip(seed.to_le_bytes()).for_each(|(byte, seed)| *byte ^= seed);
        Self(ChaCha12Rng::from_seed(full))
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// A time from `low` on, below `high`.
    pub(crate) fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let fraction = f64::from(self.0.next_u32()) / (f64::from(u32::MAX) + 1.0);
        low + high.saturating_sub(low).mul_f64(fraction)
    }

    /// A port from `first` on.
    pub(crate) fn port_from(&mut self, first: u16) -> u16 {
        let count = u32::from(u16::MAX - first) + 1;
        first + u16::try_from(self.0.next_u32() % count).unwrap_or(0)
    }

    /// One of `items`; `None` if there is none.
    pub(crate) fn pick<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        let count = u64::try_from(items.len()).ok().filter(|&count| count > 0)?;
        items.get(usize::try_from(self.0.next_u64() % count).ok()?).copied()
    }
}
