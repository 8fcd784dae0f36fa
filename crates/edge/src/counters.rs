//! What an edge has done so far.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Numbers that only grow, except `connections` and the relay's `clients` and `queued_bytes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Open connections now, HTTP and relay together.
    pub connections: u64,
    /// Connections ever accepted.
    pub accepted: u64,
    /// Connections closed at once because there were too many.
    pub refused: u64,
    /// HTTP requests of all kinds.
    pub requests: u64,
    /// Connections ended because what they sent is no HTTP, came too slowly, or is ambiguous.
    pub malformed: u64,
    /// Requests the application could not be asked.
    pub upstream_errors: u64,
    /// Connections that became DERP streams.
    pub upgraded: u64,
    /// STUN requests answered.
    pub stun_answered: u64,
    /// UDP packets that were no STUN request.
    pub stun_dropped: u64,
    /// The relay's own counters.
    pub relay: relay::server::Counters,
    /// CPU time the relay's thread has used, at most a tenth of a second old while it works.
    pub relay_cpu: Duration,
}

/// The front's part of the counters, shared by its tasks.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) connections: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) malformed: AtomicU64,
    pub(crate) upstream_errors: AtomicU64,
    pub(crate) upgraded: AtomicU64,
    pub(crate) stun_answered: AtomicU64,
    pub(crate) stun_dropped: AtomicU64,
}

impl Tally {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Counters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            connections: get(&self.connections),
            accepted: get(&self.accepted),
            refused: get(&self.refused),
            requests: get(&self.requests),
            malformed: get(&self.malformed),
            upstream_errors: get(&self.upstream_errors),
            upgraded: get(&self.upgraded),
            stun_answered: get(&self.stun_answered),
            stun_dropped: get(&self.stun_dropped),
            ..Counters::default()
        }
    }
}

/// One open connection's share of the limit; given back when the last owner drops it.
#[derive(Debug)]
pub(crate) struct Seat(Arc<Tally>);

impl Seat {
    /// `None` if all seats are taken.
    pub(crate) fn take(tally: &Arc<Tally>, most: usize) -> Option<Arc<Self>> {
        let taken = tally.connections.fetch_add(1, Ordering::Relaxed);
        let seat = Self(Arc::clone(tally));
        if taken >= most as u64 {
            Tally::add(&tally.refused);
            return None;
        }
        Tally::add(&tally.accepted);
        Some(Arc::new(seat))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
