//! What happens with a segment that came in (RFC 9293 section 3.10.7, with RFC 5961).

use std::time::{Duration, Instant};

use crate::connection::Connection;
use crate::segment::{ACK, FIN, MAX_BLOCKS, RST, SYN, Segment};
use crate::state::{End, State};
use crate::timers::TIME_WAIT;

/// Most answers to unacceptable segments in a second.
const CHALLENGES: u32 = 10;

/// The position with this sequence number that is nearest to `near`.
#[inline]
fn position(near: u64, seq: u32) -> u64 {
    near.wrapping_add_signed(i64::from(seq.wrapping_sub(near as u32) as i32))
}

impl Connection {
    /// Takes in a segment of this connection. What it makes necessary leaves with the next [`poll`](Self::poll): handing
    /// over a batch before polling makes one acknowledgement do for the batch.
    pub fn arrives(&mut self, now: Instant, segment: &Segment<'_>) {
        match self.state {
            State::Closed => {}
            State::SynSent => self.arrives_syn_sent(now, segment),
            _ => self.arrives_synchronized(now, segment),
        }
    }

    /// Something valid came.
    #[inline]
    fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.active = now;
        self.keepalive.sent = 0;
        self.keepalive.due = false;
    }

    fn arrives_syn_sent(&mut self, now: Instant, segment: &Segment<'_>) {
        let acknowledges = segment.has(ACK);
        let good =
            acknowledges && segment.ack == (self.first as u32).wrapping_add(1) && self.syn_sent.is_some();
        if acknowledges && !good {
            if !segment.has(RST) {
                self.reset = Some(segment.reset());
            }
            return;
        }
        if segment.has(RST) {
            if good {
                self.over(End::Refused);
            }
            return;
        }
        if !segment.has(SYN) {
            return;
        }
        self.hear(now);
        self.take_offer(segment);
        if good {
            self.establish(now, segment);
            self.rx.ack_now = true;
            self.take_text(now, self.rx.nxt, segment);
        } else {
            // Both sides call at the same time.
            self.state = State::SynReceived;
            self.syn_due = true;
        }
    }

    /// Our SYN is acknowledged.
    fn establish(&mut self, now: Instant, segment: &Segment<'_>) {
        self.state = State::Established;
        self.syn_due = false;
        if let Some((sent, 0)) = self.syn_sent {
            let sample = now.saturating_duration_since(sent);
            self.tx.rtt.measured(now, sample);
            self.rx.round_trip(sample);
        }
        let shift = if segment.has(SYN) { 0 } else { self.tx.shift };
        let seq = position(self.rx.nxt, segment.seq);
        self.tx.window_says(seq, self.tx.una, u64::from(segment.window) << shift);
        self.note_waiting(now);
    }

    fn arrives_synchronized(&mut self, now: Instant, segment: &Segment<'_>) {
        let seq = position(self.rx.nxt, segment.seq);
        if !self.is_acceptable(seq, segment) {
            return self.unacceptable(now, seq, segment);
        }
        if segment.flags & (RST | SYN) != 0 {
            return self.arrives_control(now, seq, segment);
        }
        if !segment.has(ACK) {
            return;
        }
        let ack = position(self.tx.una, segment.ack);
        if self.state == State::SynReceived {
            if ack != self.first + 1 {
                self.reset = Some(segment.reset());
                return;
            }
            self.establish(now, segment);
        }
        if ack > self.tx.nxt || ack + self.tx.max_window() < self.tx.una {
            return self.challenge(now);
        }
        self.hear(now);
        self.take_ack(now, seq, ack, segment);
        if self.state == State::Closed {
            return;
        }
        self.take_text(now, seq, segment);
    }

    /// RFC 9293 section 3.4: whether any of it lies in the window. What lies at the edge of a closed one has an
    /// acknowledgement worth reading.
    #[inline]
    fn is_acceptable(&self, seq: u64, segment: &Segment<'_>) -> bool {
        let len = u64::from(segment.sequence_len());
        let edge = self.rx.edge().max(self.rx.nxt);
        if len == 0 { self.rx.nxt <= seq && seq <= edge } else { seq <= edge && seq + len > self.rx.nxt }
    }

    fn unacceptable(&mut self, now: Instant, seq: u64, segment: &Segment<'_>) {
        if segment.has(RST) {
            return;
        }
        if segment.has(SYN) {
            return self.arrives_known_syn(now, seq, segment);
        }
        if segment.has(FIN) && self.state == State::TimeWait {
            self.time_wait = Some(now + TIME_WAIT);
        }
        if self.state != State::SynReceived {
            self.hear(now);
        }
        if segment.payload.is_empty() {
            return self.challenge(now);
        }
        self.rx.arrives(now, seq, segment.payload, false);
        self.rx.ack_now = true;
    }

    /// The peer's SYN comes again: because our answer was lost, or with the acknowledgement of ours after both sides
    /// called at the same time.
    fn arrives_known_syn(&mut self, now: Instant, seq: u64, segment: &Segment<'_>) {
        if self.state != State::SynReceived || seq + 1 != self.rx.nxt {
            self.challenge(now);
        } else if segment.has(ACK) && segment.ack == self.tx.nxt as u32 {
            self.hear(now);
            self.establish(now, segment);
            self.rx.ack_now = true;
        } else {
            self.syn_due = true;
        }
    }

    /// A reset or a SYN inside the window counts only if its number is exactly the one expected (RFC 5961).
    fn arrives_control(&mut self, now: Instant, seq: u64, segment: &Segment<'_>) {
        if segment.has(RST) && seq == self.rx.nxt {
            let end = match self.state {
                State::TimeWait | State::LastAck => End::Finished,
                _ => End::Reset,
            };
            return self.over(end);
        }
        self.challenge(now);
    }

    /// Answers something unacceptable with an acknowledgement, but not too often (RFC 5961 section 7).
    fn challenge(&mut self, now: Instant) {
        if now.saturating_duration_since(self.challenges.0) >= Duration::from_secs(1) {
            self.challenges = (now, 0);
        }
        if self.challenges.1 < CHALLENGES {
            self.challenges.1 += 1;
            self.challenge = true;
        }
    }

    #[inline]
    fn take_ack(&mut self, now: Instant, seq: u64, ack: u64, segment: &Segment<'_>) {
        let window = u64::from(segment.window) << self.tx.shift;
        let plain =
            segment.payload.is_empty() && !segment.has(FIN) && window == self.tx.window && ack == self.tx.una;
        if ack >= self.tx.una {
            let mut blocks = [(0, 0); MAX_BLOCKS];
            let mut count = 0;
            if self.tx.sack && !segment.options.is_empty() {
                for (block, (start, end)) in blocks.iter_mut().zip(segment.blocks()) {
                    *block = (position(self.tx.una, start), position(self.tx.una, end));
                    count += 1;
                }
            }
            if ack > self.tx.una || count > 0 || plain {
                self.tx.acknowledged(now, ack, blocks.get(..count).unwrap_or_default(), plain);
            }
            self.tx.window_says(seq, ack, window);
        }
        if self.tx.fin && ack > self.tx.end {
            match self.state {
                State::FinWait1 => self.state = State::FinWait2,
                State::Closing => self.linger(now),
                State::LastAck => self.over(End::Finished),
                _ => {}
            }
        }
        self.note_waiting(now);
    }

    /// Takes in data and the FIN.
    #[inline]
    fn take_text(&mut self, now: Instant, seq: u64, segment: &Segment<'_>) {
        let fin = segment.has(FIN);
        if segment.payload.is_empty() && !fin {
            return;
        }
        if self.detached.is_some()
            && !segment.payload.is_empty()
            && seq + segment.payload.len() as u64 > self.rx.nxt
        {
            // Nobody will take it, and the peer must learn that.
            return self.abort();
        }
        let before = self.rx.finished();
        self.rx.arrives(now, seq, segment.payload, fin);
        if self.rx.finished() && !before {
            match self.state {
                State::Established => self.state = State::CloseWait,
                State::FinWait1 => self.state = State::Closing,
                State::FinWait2 => self.linger(now),
                _ => {}
            }
        } else if fin && self.state == State::TimeWait {
            self.time_wait = Some(now + TIME_WAIT);
        }
    }

    fn linger(&mut self, now: Instant) {
        self.state = State::TimeWait;
        self.time_wait = Some(now + TIME_WAIT);
    }
}
