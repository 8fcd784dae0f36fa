//! Requests that wait for one packet to come back: reachability (TSMP) and ICMP echo. Disco pings are `paths`' own.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use netstack::Stack;

use crate::events::{Answer, Failure, RequestId};

/// First gap between TSMP pings; each later one is half as long again …
const FIRST_GAP: Duration = Duration::from_millis(50);
/// … up to this.
const LONGEST_GAP: Duration = Duration::from_secs(30);
/// An answer later than this is not waited for; the same limit ends an echo.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Pings of one request that may be under way at once.
const OUTSTANDING: usize = 64;

/// All pings of a node that wait for an answer.
#[derive(Default)]
pub(crate) struct Pings {
    reaching: BTreeMap<RequestId, Reach>,
    echoes: BTreeMap<u16, (RequestId, Instant)>,
    next_tag: u64,
    next_echo: u16,
}

struct Reach {
    to: Ipv6Addr,
    next: Instant,
    gap: Duration,
    sent: Vec<(u64, Instant)>,
}

impl Pings {
    pub(crate) fn new(seed: u64) -> Self {
        Self { next_tag: seed, next_echo: seed as u16, ..Self::default() }
    }

    /// Starts to ping; the first goes out with the next [`Pings::poll`].
    pub(crate) fn reach(&mut self, now: Instant, request: RequestId, to: Ipv6Addr) {
        self.reaching.insert(request, Reach { to, next: now, gap: FIRST_GAP, sent: Vec::new() });
    }

    pub(crate) fn echo(&mut self, now: Instant, request: RequestId, to: Ipv6Addr, stack: &mut Stack) {
        self.next_echo = self.next_echo.wrapping_add(1);
        self.echoes.insert(self.next_echo, (request, now));
        // An echo that cannot be sent times out like one that is lost.
        let _ = stack.echo(to, self.next_echo, 1);
    }

    pub(crate) fn cancel(&mut self, request: RequestId) {
        self.reaching.remove(&request);
        self.echoes.retain(|_, (of, _)| *of != request);
    }

    /// Sends what is due and gives up what is too old.
    pub(crate) fn poll(&mut self, now: Instant, stack: &mut Stack, mut done: impl FnMut(RequestId, Answer)) {
        for reach in self.reaching.values_mut().filter(|reach| reach.next <= now) {
            self.next_tag = self.next_tag.wrapping_add(1);
            reach.sent.retain(|(_, at)| now.saturating_duration_since(*at) < ANSWER_LIMIT);
            if reach.sent.len() == OUTSTANDING {
                reach.sent.remove(0);
            }
            reach.sent.push((self.next_tag, now));
            let _ = stack.tsmp_ping(reach.to, self.next_tag.to_be_bytes());
            reach.next = now + reach.gap;
            reach.gap = (reach.gap * 3 / 2).min(LONGEST_GAP);
        }
        self.echoes.retain(|_, (request, at)| {
            let alive = now.saturating_duration_since(*at) < ANSWER_LIMIT;
            if !alive {
                done(*request, Answer::Failed(Failure::Timeout));
            }
            alive
        });
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        let reach = self.reaching.values().map(|reach| reach.next).min();
        let echo = self.echoes.values().map(|(_, at)| *at + ANSWER_LIMIT).min();
        reach.into_iter().chain(echo).min()
    }

    pub(crate) fn tsmp_pong(
        &mut self,
        now: Instant,
        from: Ipv6Addr,
        tag: [u8; 8],
        mut done: impl FnMut(RequestId, Answer),
    ) {
        let tag = u64::from_be_bytes(tag);
        let sent_at = |reach: &Reach| reach.sent.iter().find(|(sent, _)| *sent == tag).map(|(_, at)| *at);
        let found = self.reaching.iter().find_map(|(request, reach)| {
            sent_at(reach).filter(|_| reach.to == from).map(|at| (*request, at))
        });
        if let Some((request, at)) = found {
            self.reaching.remove(&request);
            done(request, Answer::Reached(now.saturating_duration_since(at)));
        }
    }

    pub(crate) fn echo_reply(&mut self, now: Instant, id: u16, mut done: impl FnMut(RequestId, Answer)) {
        if let Some((request, at)) = self.echoes.remove(&id) {
            done(request, Answer::Reached(now.saturating_duration_since(at)));
        }
    }

    /// Everything that waits, for a node that closes.
    pub(crate) fn requests(&self) -> Vec<RequestId> {
        self.reaching.keys().copied().chain(self.echoes.values().map(|(request, _)| *request)).collect()
    }
}
