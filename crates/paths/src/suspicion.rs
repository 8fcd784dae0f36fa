//! Noticing early that a direct path went dark.
//!
//! A pong proves a path for 6.5 s, and for that long everything sent on a path that just died is lost. So silence is
//! watched: if we keep sending for a second, or a heartbeat stays unanswered for one, and *nothing* came back by that path,
//! it is pinged three times at 300 ms, and packets go by relay as well. If that too stays unanswered, trust ends at once, at most
//! 3 s after the last sign of life. A call-me-maybe raises the suspicion at once: the peer looks for a path, so ours may be none.
//!
//! Signs of life are pongs, and WireGuard packets that authenticated ([`Paths::note_received`](crate::Paths::note_received)).
//! The latter only call off the suspicion. They do not prolong trust: that a peer's packets arrive does not prove that ours do,
//! so the pong's 6.5 s stay the upper bound for a path that died in our direction only. Pings from the peer are no sign
//! of life: a peer that hears us no more pings just then.
//!
//! A path may also cease to carry long packets only, and short ones of the session go on arriving. So while long ones
//! leave, a padded ping asks once a second, and nothing but its pong will do. Packets go by relay as well once the first
//! of these pings is lost, and five must be lost in a row before trust ends, as a loaded path may lose some.

use std::time::{Duration, Instant};

use crate::config::{SILENCE, STUCK_PINGS, SUSPECT_PATIENCE, SUSPECT_PINGS, SUSPECT_SPACING};
use crate::facts::Why;
use crate::output::Path;
use crate::peer::{Around, Peer, Purpose};

/// The watch over one peer's best path.
#[derive(Debug, Default)]
pub(crate) struct Suspicion {
    /// First and last send since the last sign of life.
    unanswered: Option<(Instant, Instant)>,
    /// A heartbeat since the last sign of life.
    heartbeat: Option<Instant>,
    /// First long packet sent since the last pong.
    long: Option<Instant>,
    /// When the above is looked at next.
    check_at: Option<Instant>,
    /// Suspected because nothing came: any sign of life calls that off.
    silent: bool,
    /// Suspected because long packets may be lost: only a pong calls that off.
    stuck: bool,
    /// Pings sent in suspicion.
    pings: u8,
    /// When the next of these, or the verdict, is due.
    ping_at: Option<Instant>,
}

/// What is due.
enum Due {
    Nothing,
    Ping,
    Verdict,
}

impl Suspicion {
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns whether a deadline was set; at most once per second, as this is called for every batch.
    #[inline]
    pub(crate) fn note_send(&mut self, now: Instant) -> bool {
        match &mut self.unanswered {
            Some((_, last)) => *last = now,
            None => self.unanswered = Some((now, now)),
        }
        self.watch(now)
    }

    pub(crate) fn note_heartbeat(&mut self, now: Instant) {
        self.heartbeat.get_or_insert(now);
        self.watch(now);
    }

    /// A long packet leaves. Returns whether a deadline was set.
    #[inline]
    pub(crate) fn note_long(&mut self, now: Instant) -> bool {
        self.long.get_or_insert(now);
        self.watch(now)
    }

    /// A sign of life. A deadline that is set stays; it will find nothing to do. Returns whether a suspicion ended.
    #[inline]
    pub(crate) fn note_heard(&mut self) -> bool {
        self.unanswered = None;
        self.heartbeat = None;
        self.silent = false;
        !self.stuck && self.call_off()
    }

    /// A pong: the path carries everything.
    pub(crate) fn note_pong(&mut self) {
        self.long = None;
        self.stuck = false;
        self.note_heard();
    }

    fn call_off(&mut self) -> bool {
        self.pings = 0;
        self.ping_at.take().is_some()
    }

    /// The path is suspect from now on, whatever was heard on it.
    pub(crate) fn raise(&mut self, now: Instant) {
        if self.ping_at.is_none() {
            self.pings = 0;
            self.ping_at = Some(now);
        }
        self.silent = true;
    }

    /// Whether packets had better go by relay as well.
    #[inline]
    pub(crate) fn is_raised(&self) -> bool {
        self.ping_at.is_some() && (self.silent || self.pings > 1)
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        [self.check_at, self.ping_at].into_iter().flatten().min()
    }

    fn watch(&mut self, now: Instant) -> bool {
        let unwatched = self.check_at.is_none();
        self.check_at.get_or_insert(now + SILENCE);
        unwatched
    }

    fn due(&mut self, now: Instant, patience: Duration, latency: Duration) -> Due {
        if self.check_at.is_some_and(|at| now >= at) {
            self.look(now, patience);
        }
        if self.ping_at.is_none_or(|at| now < at) {
            return Due::Nothing;
        }
        let pings = if self.silent { SUSPECT_PINGS } else { STUCK_PINGS };
        if self.pings >= pings {
            return Due::Verdict;
        }
        self.pings += 1;
        let decides = self.pings == pings || (self.pings == 1 && !self.silent);
        let wait = if decides { latency.saturating_mul(2).min(SUSPECT_PATIENCE) } else { Duration::ZERO };
        self.ping_at = Some(now + wait.max(SUSPECT_SPACING));
        Due::Ping
    }

    /// Decides whether the silence is suspicious yet; else when to look again.
    fn look(&mut self, now: Instant, patience: Duration) {
        // A single packet may deserve no answer (a keepalive); going on sending without one is what counts.
        let sending = self.unanswered.filter(|(first, last)| last > first).map(|(first, _)| first + patience);
        let silent_at = sending.into_iter().chain(self.heartbeat.map(|at| at + patience)).min();
        let stuck_at = self.long.map(|at| at + patience);
        self.check_at = [silent_at, stuck_at].into_iter().flatten().filter(|at| now < *at).min();
        self.silent |= silent_at.is_some_and(|at| now >= at);
        self.stuck |= stuck_at.is_some_and(|at| now >= at);
        if self.silent || self.stuck {
            self.ping_at.get_or_insert(now);
        }
    }
}

impl Peer {
    /// Pings a silent path, or gives it up.
    pub(crate) fn check_silence(&mut self, around: &mut Around<'_>) {
        let now = around.now;
        let Some(addr) = self.trusted(now) else { return self.suspicion.clear() };
        let latency = self.best.map_or(Duration::ZERO, |best| best.latency);
        match self.suspicion.due(now, self.patience(), latency) {
            Due::Nothing => {}
            Due::Ping => self.ping(around, Path::Direct(addr), Purpose::Suspicion),
            Due::Verdict => {
                self.distrust(Why::Silent);
                if self.is_active(now) {
                    around.netcheck.doubt();
                    self.discover(around, true);
                }
            }
        }
    }
}
