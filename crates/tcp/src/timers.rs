//! What a connection does because time has passed.

use std::time::{Duration, Instant};

use crate::connection::Connection;
use crate::state::{End, State};

/// Pause between keepalive probes once they have begun.
const PROBE_INTERVAL: Duration = Duration::from_secs(75);
/// Unanswered keepalive probes after which the peer is taken for dead.
const PROBES: u32 = 9;
/// How long a detached connection waits for the FIN of a peer that knows of ours.
const ORPHAN: Duration = Duration::from_secs(60);
/// How long repetitions of the last segments are answered. The tunnel lets nothing old through, so that there is no need
/// to wait for segments of this connection to die out.
pub(crate) const TIME_WAIT: Duration = Duration::from_secs(10);
/// A connection on which nothing happened for this long gives spare memory back.
const IDLE: Duration = Duration::from_millis(300);

/// Finding out whether a quiet peer is alive.
#[derive(Debug)]
pub(crate) struct Keepalive {
    pub idle: Option<Duration>,
    /// Probes sent and unanswered.
    pub sent: u32,
    pub due: bool,
}

impl Keepalive {
    pub fn new(idle: Option<Duration>) -> Self {
        Self { idle, sent: 0, due: false }
    }
}

impl Connection {
    /// Sets how long the connection is quiet before the peer is probed; `None`: for ever.
    pub fn set_keepalive(&mut self, idle: Option<Duration>) {
        self.keepalive.idle = idle;
    }

    /// When [`poll`](Self::poll) must be called again if nothing happens before. `None`: never.
    ///
    /// Only meaningful when the last `poll` said that there is nothing to send.
    pub fn poll_at(&self) -> Option<Instant> {
        if self.state == State::Closed {
            return self.spare_at();
        }
        let deadlines = [
            self.handshake_deadline(),
            self.tx.deadline(),
            self.tx.paced_until().filter(|_| self.outstanding()),
            self.rx.deadline(),
            self.silence_limit(),
            self.probe_at(),
            self.time_wait,
            self.orphan_limit(),
            self.spare_at(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Does what is due: once for each instant, since nothing becomes due at the instant at which it is decided.
    pub(crate) fn run_timers(&mut self, now: Instant) {
        if self.looked == Some(now) {
            return;
        }
        self.looked = Some(now);
        self.note_waiting(now);
        if self.spare_at().is_some_and(|at| at <= now) {
            self.tx.buffer.trim();
            self.rx.buffer().trim();
        }
        if self.state == State::Closed {
            return;
        }
        if self.time_wait.is_some_and(|at| at <= now) {
            return self.over(End::Finished);
        }
        if self.silence_limit().is_some_and(|at| at <= now) {
            return self.give_up();
        }
        if self.orphan_limit().is_some_and(|at| at <= now) {
            return self.abort();
        }
        if self.handshake_deadline().is_some_and(|at| at <= now) {
            self.syn_due = true;
        }
        if self.probe_at().is_some_and(|at| at <= now) {
            self.keepalive.due = true;
            self.keepalive.sent += 1;
        }
        self.tx.expire(now);
    }

    fn give_up(&mut self) {
        let attempted = self.state == State::SynSent;
        self.abort();
        if attempted {
            self.reset = None;
        }
        self.end = Some(End::TimedOut);
    }

    fn handshake_deadline(&self) -> Option<Instant> {
        let opening = matches!(self.state, State::SynSent | State::SynReceived);
        let (sent, retries) = self.syn_sent.filter(|_| opening)?;
        Some(sent + self.tx.rtt.backed_off(retries, self.config.retransmit_limit))
    }

    /// When the peer's silence means that it is gone.
    fn silence_limit(&self) -> Option<Instant> {
        match self.state {
            State::SynSent | State::SynReceived => Some(self.heard + self.config.connect_timeout),
            State::TimeWait | State::Closed => None,
            _ if self.outstanding() => Some(self.heard + self.config.user_timeout),
            _ if self.keepalive.sent >= PROBES => self.probe_time(),
            _ => None,
        }
    }

    fn probe_at(&self) -> Option<Instant> {
        if self.keepalive.sent < PROBES { self.probe_time() } else { None }
    }

    /// When the next keepalive probe is due, or the last one has gone unanswered for too long.
    fn probe_time(&self) -> Option<Instant> {
        let quiet = matches!(self.state, State::Established | State::CloseWait | State::FinWait2);
        let idle = self.keepalive.idle.filter(|_| quiet && !self.outstanding() && !self.keepalive.due)?;
        Some(self.heard + idle + PROBE_INTERVAL * self.keepalive.sent)
    }

    /// When a peer that never finishes has had enough time.
    fn orphan_limit(&self) -> Option<Instant> {
        self.detached.filter(|_| self.state == State::FinWait2).map(|since| since + ORPHAN)
    }

    fn spare_at(&self) -> Option<Instant> {
        (self.tx.buffer.has_spare() || self.rx.has_spare()).then(|| self.active + IDLE)
    }
}
