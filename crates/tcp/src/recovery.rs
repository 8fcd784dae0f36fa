//! What acknowledgements and timers say about loss: RACK-TLP (RFC 8985), the retransmission timer (RFC 6298), F-RTO
//! (RFC 5682), and taking back what was a mistake (RFC 2883).

use std::time::{Duration, Instant};

use crate::board::Delivery;
use crate::congestion::Ack;
use crate::prr::Prr;
use crate::ranges::Range;
use crate::sender::{Outgoing, Sender};

/// Repeated acknowledgements that mean loss, from a peer that does not speak SACK (RFC 5681 section 3.2).
const REPEATED: u32 = 3;
/// How long a receiver may wait with the acknowledgement of a single segment (RFC 8985 section 7.2).
const WORST_DELAY: Duration = Duration::from_millis(200);

/// Whether the last timeout was a mistake is found out in two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frto {
    /// Nothing to find out.
    Off,
    /// The first segment was sent again, nothing else yet.
    First,
    /// It was acknowledged: what is sent now is new, and the next acknowledgement tells.
    Probing,
}

/// A tail loss probe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    /// The end of what was sent with it.
    end: u64,
    /// It was a retransmission.
    resent: bool,
}

/// How much was taken for lost in this episode, and how much of that turned out to have arrived.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Refutation {
    lost: u64,
    arrived: u64,
}

/// What a sender waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    /// Reordered segments to arrive.
    Reordering,
    /// The acknowledgement of the last flight.
    Tail,
    /// Any acknowledgement.
    Retransmission,
    /// The peer's window to open.
    Window,
}

impl Sender {
    /// An acceptable acknowledgement: everything below `ack`, and `blocks` beyond. `plain` when it carries nothing else
    /// and leaves the window as it was.
    pub fn acknowledged(&mut self, now: Instant, ack: u64, blocks: &[Range], plain: bool) {
        let before = self.board.in_flight();
        let mut delivery = self.board.begin();
        let duplicate = duplicate(ack, blocks);
        for &block in blocks.iter().skip(usize::from(duplicate.is_some())) {
            if block.0 < block.1 && ack <= block.0 && block.1 <= self.nxt {
                self.board.sack(block, &mut delivery);
            }
        }
        let advanced = ack > self.una;
        if advanced {
            self.board.acknowledge(ack, &mut delivery);
            self.una = ack;
            self.retries = 0;
            self.repeated = 0;
            self.closed_since = None;
            self.timer_base = now;
            self.buffer.release(ack.min(self.end), ack >= self.end);
        } else if plain && !self.sack && !self.board.is_empty() {
            self.repeated += 1;
        }
        if let Some(duplicate) = duplicate {
            self.on_duplicate(now, duplicate);
        }
        self.on_probe_acknowledged(now, ack, duplicate.is_some());
        if delivery.bytes > 0 || self.repeated >= REPEATED {
            self.progress = now;
            self.digest(now, before, advanced, &delivery);
        } else if advanced {
            // All of it had been acknowledged selectively.
            self.progress = now;
            self.frto = Frto::Off;
            self.end_recovery(now);
            self.refresh();
        }
    }

    /// Draws the conclusions from what was delivered.
    fn digest(&mut self, now: Instant, before: u64, advanced: bool, delivery: &Delivery) {
        let in_flight = self.board.in_flight();
        let (mut rtt, mut rate) = (None, None);
        if let Some(newest) = &delivery.newest {
            if !newest.resent {
                let sample = now.saturating_duration_since(newest.sent_at);
                self.rtt.measured(now, sample);
                rtt = Some(sample);
            }
            rate = self.rate.delivered(now, delivery.bytes, newest);
        }
        if delivery.reordered {
            self.rack.saw_reordering();
        }
        self.refutation.arrived += delivery.mistaken;
        let mistaken = self.judge_timeout(now, advanced, delivery);
        if let Some(newest) = delivery.newest.as_ref().filter(|newest| !(mistaken && newest.resent)) {
            self.rack.delivered(now, newest, self.rtt.min());
        }
        let mut lost = self.find_losses(now);
        if !self.sack {
            lost += self.find_losses_without_sack(advanced);
        }
        self.on_lost(now, lost, in_flight);
        if self.refutation.lost > 0 && self.refutation.arrived >= self.refutation.lost {
            self.take_back(now);
        }
        self.end_recovery(now);
        self.controller.on_ack(&Ack {
            now,
            acked: delivery.bytes,
            lost,
            in_flight_before: before,
            in_flight: self.board.in_flight(),
            rtt,
            smoothed_rtt: self.rtt.smoothed().unwrap_or_default(),
            delivered: self.rate.delivered,
            total_lost: self.rate.lost,
            rate,
            recovering: self.recovery.is_some(),
            app_limited: self.app_limited,
        });
        self.refresh();
        if let Some(prr) = &mut self.prr {
            prr.delivered(delivery.bytes, self.board.in_flight(), self.mss, advanced && lost == 0);
        }
    }

    fn find_losses(&mut self, now: Instant) -> u64 {
        let Some(newest) = self.rack.newest.filter(|_| self.sack) else { return 0 };
        let patience = self.rack.patience(&self.rtt, self.recovery.is_some(), self.board.sacked_segments());
        let (lost, again_at) = self.board.judge(now, newest, patience);
        self.rack.again_at = again_at;
        lost
    }

    /// NewReno (RFC 6582): the third repetition, and in recovery each partial acknowledgement, means that the first
    /// segment is missing.
    fn find_losses_without_sack(&mut self, advanced: bool) -> u64 {
        let partial = advanced && self.recovery.is_some_and(|end| self.una < end);
        if partial || self.repeated == REPEATED {
            self.repeated = REPEATED + 1;
            return self.board.lose_first();
        }
        0
    }

    /// Takes note of `lost` bytes; an episode begins if none is under way.
    fn on_lost(&mut self, now: Instant, lost: u64, in_flight: u64) {
        if lost == 0 {
            return;
        }
        self.rate.lost += lost;
        if self.recovery.is_none() {
            self.recovery = Some(self.nxt);
            self.timed_out = false;
            self.probe = None;
            self.refutation = Refutation::default();
            let outstanding = self.nxt - self.una;
            self.reduce(now, in_flight, outstanding);
        }
        self.refutation.lost += lost;
    }

    fn reduce(&mut self, now: Instant, in_flight: u64, outstanding: u64) {
        self.controller.on_congestion(now, in_flight);
        self.refresh();
        if self.pace.is_none() {
            self.prr = Some(Prr::new(outstanding, self.cwnd, self.board.in_flight(), self.mss));
        }
    }

    fn end_recovery(&mut self, now: Instant) {
        if self.recovery.is_some_and(|end| self.una >= end) {
            self.recovery = None;
            self.prr = None;
            self.timed_out = false;
            self.rack.recovered();
            self.controller.on_recovered(now);
        }
    }

    /// Everything taken for lost in this episode had arrived.
    fn take_back(&mut self, now: Instant) {
        self.refutation = Refutation::default();
        self.spurious += 1;
        self.prr = None;
        self.frto = Frto::Off;
        self.board.revive();
        self.controller.on_spurious(now);
        if self.recovery.take().is_some() {
            self.timed_out = false;
            self.rack.recovered();
        }
        self.refresh();
    }

    /// The receiver had something twice (RFC 2883).
    fn on_duplicate(&mut self, now: Instant, block: Range) {
        self.rack.duplicate(self.una, self.nxt);
        self.refutation.arrived += block.1 - block.0;
        if self.refutation.lost > 0 && self.refutation.arrived >= self.refutation.lost {
            self.take_back(now);
        }
    }

    /// RFC 8985 section 7.4.2: a loss that the probe itself repaired is a loss all the same.
    fn on_probe_acknowledged(&mut self, now: Instant, ack: u64, duplicate: bool) {
        let Some(probe) = self.probe else { return };
        if ack < probe.end {
            return;
        }
        if !probe.resent || duplicate {
            self.probe = None;
        } else if ack > probe.end {
            self.probe = None;
            if self.recovery.is_none() {
                let in_flight = self.board.in_flight();
                self.controller.on_congestion(now, in_flight);
                self.controller.on_recovered(now);
                self.refresh();
            }
        }
    }

    /// RFC 5682 section 3: was the timeout a mistake?
    fn judge_timeout(&mut self, now: Instant, advanced: bool, delivery: &Delivery) -> bool {
        let Some(end) = self.recovery.filter(|_| self.frto != Frto::Off) else { return false };
        // A segment sent before the timeout and never again was still on its way, not lost.
        if delivery.original_end > 0 && delivery.original_end <= end && delivery.mistaken > 0 {
            self.take_back(now);
            // What was learnt from the retransmission since was about the original.
            self.rack.newest = None;
            return true;
        }
        self.frto = match self.frto {
            Frto::First if advanced && self.una < end && self.can_send_fresh() => Frto::Probing,
            Frto::First if !advanced => Frto::First,
            _ => Frto::Off,
        };
        false
    }

    /// When [`expire`](Self::expire) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.timer().map(|(at, _)| at)
    }

    fn timer(&self) -> Option<(Instant, Timer)> {
        let timeout = self.rtt.backed_off(self.retries, self.retransmit_limit);
        if self.board.is_empty() {
            return self.closed_since.map(|since| (since + timeout, Timer::Window));
        }
        let retransmission = (self.timer_base + timeout, Timer::Retransmission);
        if let Some(at) = self.rack.again_at.filter(|at| *at < retransmission.0) {
            return Some((at, Timer::Reordering));
        }
        match self.tail_timeout() {
            Some(wait) => Some(((self.progress + wait).min(retransmission.0), Timer::Tail)),
            None => Some(retransmission),
        }
    }

    /// RFC 8985 section 7.2: how long to wait for the acknowledgement of a flight before its last segment is probed.
    fn tail_timeout(&self) -> Option<Duration> {
        let calm = self.recovery.is_none() && self.probe.is_none() && self.board.sacked_segments() == 0;
        let smoothed = self.rtt.smoothed().filter(|_| calm && self.sack && self.retries == 0)?;
        let delay = if self.board.len() == 1 { WORST_DELAY } else { Duration::ZERO };
        Some((smoothed * 2 + delay).max(Duration::from_millis(2)))
    }

    /// Does what is due.
    pub fn expire(&mut self, now: Instant) {
        let Some((_, timer)) = self.timer().filter(|(at, _)| *at <= now) else { return };
        match timer {
            Timer::Reordering => {
                let in_flight = self.board.in_flight();
                self.rack.again_at = None;
                let lost = self.find_losses(now);
                self.on_lost(now, lost, in_flight);
            }
            Timer::Tail => self.probe_due = true,
            Timer::Retransmission => self.time_out(now),
            Timer::Window => {
                self.closed_since = Some(now);
                self.retries += 1;
                self.force = true;
            }
        }
    }

    /// No acknowledgement came for too long, or the path is known to be back: begin again with the first segment.
    pub fn time_out(&mut self, now: Instant) {
        if self.board.is_empty() {
            return;
        }
        let in_flight = self.board.in_flight();
        let patience = self.rack.patience(&self.rtt, self.recovery.is_some(), self.board.sacked_segments());
        let lost = self.board.lose_sent_before(now.checked_sub(patience).unwrap_or(now));
        self.rate.lost += lost;
        self.probe = None;
        self.probe_due = false;
        self.prr = None;
        self.rack.again_at = None;
        if self.retries == 0 {
            if !self.timed_out || self.recovery.is_none() {
                self.refutation = Refutation::default();
            }
            self.frto = if self.sack { Frto::First } else { Frto::Off };
            self.controller.on_timeout(now, in_flight);
            self.refresh();
        }
        self.refutation.lost += lost;
        self.recovery = Some(self.nxt);
        self.timed_out = true;
        self.timer_base = now;
        self.retries += 1;
    }

    /// Sends a tail loss probe: something new if there is, the last segment otherwise.
    pub(crate) fn send_probe(&mut self, now: Instant) -> Option<Outgoing> {
        self.timer_base = now;
        let fresh = self.fresh_probe(now);
        let resent = fresh.is_none();
        let probe = match fresh {
            Some(fresh) => Some(fresh),
            None => self.board.last_flying().and_then(|index| self.resend(now, index)),
        };
        self.probe = probe.map(|_| Probe { end: self.nxt, resent });
        probe
    }
}

/// The block that reports something received twice: the first one, when it lies below the acknowledgement or inside the
/// second one (RFC 2883 section 4).
fn duplicate(ack: u64, blocks: &[Range]) -> Option<Range> {
    let first = blocks.first().filter(|block| block.0 < block.1)?;
    let inside = blocks.get(1).is_some_and(|second| second.0 <= first.0 && first.1 <= second.1);
    (first.1 <= ack || inside).then_some(*first)
}
