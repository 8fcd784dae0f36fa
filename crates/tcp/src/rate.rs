//! How fast data is delivered (draft-ietf-ccwg-bbr, section 4.1).

use std::time::{Duration, Instant};

use crate::board::Sent;
use crate::congestion::RateSample;

/// The counts when a segment was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snapshot {
    delivered: u64,
    delivered_at: Instant,
    first_sent_at: Instant,
    in_flight: u64,
    lost: u64,
    app_limited: bool,
}

/// The connection's counts.
#[derive(Debug)]
pub(crate) struct Rate {
    pub delivered: u64,
    pub lost: u64,
    delivered_at: Instant,
    first_sent_at: Instant,
    /// Until this much is delivered, samples stem from a time when the application had nothing to send.
    app_limited: u64,
}

impl Rate {
    pub fn new(now: Instant) -> Self {
        Self { delivered: 0, lost: 0, delivered_at: now, first_sent_at: now, app_limited: 0 }
    }

    /// A segment leaves, with which `in_flight` bytes are on their way; `idle` when it is the only one.
    pub fn sent(&mut self, now: Instant, in_flight: u64, idle: bool) -> Snapshot {
        if idle {
            (self.first_sent_at, self.delivered_at) = (now, now);
        }
        Snapshot {
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent_at: self.first_sent_at,
            in_flight,
            lost: self.lost,
            app_limited: self.app_limited > 0,
        }
    }

    /// The application has nothing more to send although it might.
    pub fn exhausted(&mut self, in_flight: u64) {
        self.app_limited = (self.delivered + in_flight).max(1);
    }

    /// `bytes` were delivered, the newest of them with `newest`.
    pub fn delivered(&mut self, now: Instant, bytes: u64, newest: &Sent) -> Option<RateSample> {
        self.delivered += bytes;
        self.delivered_at = now;
        if self.delivered > self.app_limited {
            self.app_limited = 0;
        }
        let then = &newest.snapshot;
        let sending = newest.sent_at.saturating_duration_since(then.first_sent_at);
        let interval = sending.max(now.saturating_duration_since(then.delivered_at));
        self.first_sent_at = newest.sent_at;
        (interval > Duration::ZERO).then(|| RateSample {
            delivered: self.delivered - then.delivered,
            interval,
            prior_delivered: then.delivered,
            sent_in_flight: then.in_flight,
            lost: self.lost.saturating_sub(then.lost),
            app_limited: then.app_limited,
        })
    }
}
