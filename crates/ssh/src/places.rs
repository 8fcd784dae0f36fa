//! How many channels one client may have open, whoever opened them and whatever they are for.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Channels of one client.
const MAX_CHANNELS: usize = 1024;

/// The places of one client; a channel has its [`Place`] for as long as it is open.
#[derive(Clone)]
pub(crate) struct Places(Arc<Semaphore>);

/// One of them; given back when dropped.
pub(crate) type Place = OwnedSemaphorePermit;

impl Places {
    /// A place, unless all are taken.
    pub(crate) fn take(&self) -> Option<Place> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }
}

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_CHANNELS)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_given_back_can_be_taken_again() {
        let places = Places::default();
        let mut taken: Vec<Place> = std::iter::from_fn(|| places.take()).collect();
        assert_eq!(taken.len(), MAX_CHANNELS);
        taken.pop();
        assert!(places.take().is_some());
    }
}
