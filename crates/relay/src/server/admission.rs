//! Which clients are known to the coordinator, if that matters here.
//!
//! Clients connect before they are announced, and probe with throw-away keys. So an unknown key may log in and send a
//! trickle; it is cut off if it is not announced in time. Nobody is asked, and nothing waits.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use wire::keys::NodePublic;

use super::limits::{Bucket, RateLimit};
use super::timers::Timer;
use super::{CloseReason, ConnId, Request, Router};

/// Packets of a client whose key is not announced; more are dropped.
pub const TRICKLE: RateLimit = RateLimit { per_second: 32, burst: 32 };
/// Time until a client whose key is not announced is cut off.
pub const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(10);

impl Router {
    /// From now on only announced keys may stay (`true`), or all may (`false`, as at the start).
    pub fn require_announced(&mut self, now: Instant, required: bool) {
        match (required, self.announced.is_some()) {
            (true, false) => {
                self.announced = Some(HashSet::new());
                let everyone: Vec<_> = self.clients().collect();
                for id in everyone {
                    self.admit(now, id);
                }
            }
            (false, true) => {
                self.announced = None;
                for (_, session) in &mut self.sessions {
                    session.peer.iter_mut().for_each(|peer| peer.unannounced = None);
                }
            }
            _ => {}
        }
    }

    /// This key belongs to someone.
    pub fn announce(&mut self, key: NodePublic) {
        let Some(announced) = &mut self.announced else { return };
        announced.insert(key);
        for id in self.directory.all(&key).to_vec() {
            if let Some(peer) = self.session_mut(id).and_then(|session| session.peer.as_mut()) {
                peer.unannounced = None;
            }
        }
    }

    /// This key belongs to nobody any more: its clients are treated as unknown ones from now on.
    pub fn withdraw(&mut self, now: Instant, key: &NodePublic) {
        if self.announced.as_mut().is_some_and(|announced| announced.remove(key)) {
            for id in self.directory.all(key).to_vec() {
                self.admit(now, id);
            }
        }
    }

    /// Starts the clock of a client whose key is not announced, if it has to be.
    pub(super) fn admit(&mut self, now: Instant, id: ConnId) {
        let Self { sessions, announced, requests, .. } = self;
        let Some(announced) = announced else { return };
        let Some(session) = sessions.get_mut(id.slot()).filter(|s| s.generation == id.generation) else {
            return;
        };
        let Some(peer) = &mut session.peer else { return };
        if peer.mesh || announced.contains(&peer.key) {
            return;
        }
        peer.unannounced = Some(Bucket::new(TRICKLE, now));
        requests.push_back(Request::Unannounced { key: peer.key, remote: session.remote });
        self.timers.set(now + ANNOUNCE_TIMEOUT, id, Timer::Announce);
    }

    pub(super) fn announce_due(&mut self, id: ConnId) {
        if self.session(id).and_then(|s| s.peer.as_ref()).is_some_and(|peer| peer.unannounced.is_some()) {
            self.close(id, CloseReason::Unannounced);
        }
    }

    /// Whether only a trickle of a client's packets passes.
    pub(super) fn is_limited(&self, id: ConnId) -> bool {
        self.session(id).and_then(|s| s.peer.as_ref()).is_some_and(|peer| peer.unannounced.is_some())
    }

    /// Whether this client may send one more packet now.
    pub(super) fn may_send(&mut self, now: Instant, id: ConnId) -> bool {
        let Some(peer) = self.session_mut(id).and_then(|session| session.peer.as_mut()) else { return false };
        let allowed = peer.unannounced.as_mut().is_none_or(|bucket| bucket.allow(now));
        self.counters.dropped.unannounced += u64::from(!allowed);
        allowed
    }

    /// Bytes each client may send, mesh peers excepted. Clients that are connected already keep the limit they have.
    pub fn set_rate_limit(&mut self, limit: Option<RateLimit>) {
        self.rate_limit = limit;
    }

    /// Charges what a client sent: one that was too fast is not read from for a while.
    pub(super) fn charge(&mut self, now: Instant, id: ConnId, bytes: usize) {
        let Some(session) = self.session_mut(id) else { return };
        let Some(rate) = session.peer.as_mut().and_then(|peer| peer.rate.as_mut()) else { return };
        let Some(wait) = rate.charge(now, bytes) else { return };
        session.throttled = true;
        self.counters.throttled += 1;
        self.timers.set(now + wait, id, Timer::Refill);
        self.interest(id);
    }

    pub(super) fn refill_due(&mut self, id: ConnId) {
        let Some(session) = self.session_mut(id) else { return };
        if std::mem::take(&mut session.throttled) {
            self.interest(id);
        }
    }
}
