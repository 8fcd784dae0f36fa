//! What the router remembers of one connection.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use wire::keys::NodePublic;

use super::outbox::Outbox;
use super::websocket::WebSocket;
use super::{ConnId, GONE_BURST, GONE_EVERY};

pub(super) struct Session {
    pub(super) generation: u32,
    pub(super) remote: SocketAddr,
    /// `None` until the login is complete.
    pub(super) peer: Option<Peer>,
    /// Set if frames travel inside WebSocket messages.
    pub(super) websocket: Option<Box<WebSocket>>,
    /// A frame that is not complete yet.
    pub(super) partial: Vec<u8>,
    /// Length the partial frame will have, as far as its header is known.
    pub(super) partial_needs: usize,
    /// Bytes of an unknown frame that are still to come.
    pub(super) skip: usize,
    pub(super) outbox: Outbox,
    /// Set while this sender waits for a destination.
    pub(super) paused: Option<Pause>,
    /// Control frames were queued in the present call.
    pub(super) dirty: bool,
    /// A stall timer is running.
    pub(super) watched: bool,
}

impl Session {
    /// Bytes that belong in front of what is read next.
    pub(super) fn kept(&self) -> usize {
        self.partial.len() + self.websocket.as_ref().map_or(0, |websocket| websocket.tail.len())
    }
}

/// Why and how long a connection is not read from.
#[derive(Clone, Copy)]
pub(super) struct Pause {
    pub(super) waits_for: ConnId,
    pub(super) until: Instant,
}

/// A logged-in client.
pub(super) struct Peer {
    pub(super) key: NodePublic,
    /// It knows the mesh key.
    pub(super) mesh: bool,
    pub(super) prober: bool,
    pub(super) watching: bool,
    /// It calls this relay its home.
    pub(super) preferred: bool,
    /// The connection that last heard from this one, to ask the directory less often.
    pub(super) last_heard_by: Option<ConnId>,
    /// Time between two KeepAlive frames.
    pub(super) keepalive: Duration,
    pub(super) gone_limit: GoneLimit,
}

/// Limits answers to packets for unknown keys: a burst, then one per second.
pub(super) struct GoneLimit {
    tokens: u32,
    refilled: Instant,
}

impl GoneLimit {
    pub(super) fn new(now: Instant) -> Self {
        Self { tokens: GONE_BURST, refilled: now }
    }

    pub(super) fn allow(&mut self, now: Instant) -> bool {
        while self.tokens < GONE_BURST && now.saturating_duration_since(self.refilled) >= GONE_EVERY {
            self.tokens += 1;
            self.refilled += GONE_EVERY;
        }
        if self.tokens == GONE_BURST {
            self.refilled = now;
        }
        let allowed = self.tokens > 0;
        self.tokens -= u32::from(allowed);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_at_once_then_one_per_second() {
        let start = Instant::now();
        let mut limit = GoneLimit::new(start);
        assert_eq!([(); 4].map(|()| limit.allow(start)), [true, true, true, false]);
        assert!(!limit.allow(start + Duration::from_millis(999)));
        assert!(limit.allow(start + Duration::from_secs(1)));
        assert!(!limit.allow(start + Duration::from_millis(1999)));
        let later = start + Duration::from_secs(3600);
        assert_eq!([(); 4].map(|()| limit.allow(later)), [true, true, true, false]);
    }
}
