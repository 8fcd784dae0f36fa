//! When something is due for a connection.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use super::ConnId;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The login must be complete.
    Login,
    /// A KeepAlive frame.
    KeepAlive,
    /// The sender has waited long enough for its destination.
    Resume,
    /// The sender may be read from again after it was too fast.
    Refill,
    /// The key must be announced.
    Announce,
    /// Has the other relay said anything?
    Silence,
    /// Has the socket taken anything since it became blocked?
    Stall,
}

/// A heap of deadlines. Entries of closed connections stay until they are due and then mean nothing.
#[derive(Default)]
pub(super) struct Timers(BinaryHeap<Reverse<(Instant, ConnId, Timer)>>);

impl Timers {
    pub(super) fn set(&mut self, at: Instant, id: ConnId, timer: Timer) {
        self.0.push(Reverse((at, id, timer)));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((at, ..))| *at)
    }

    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(ConnId, Timer)> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse((_, id, timer))| (id, timer))
    }
}
