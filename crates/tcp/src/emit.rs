//! What leaves: one segment at a time, written where the caller wants it.

use std::time::Instant;

use crate::connection::Connection;
use crate::segment::{ACK, FIN, Offer, OptionsOut, PSH, SYN};
use crate::sender::Outgoing;
use crate::state::State;

impl Connection {
    /// Writes one whole segment to the front of `out`, its checksum field zero, and says how long it is; `None` when
    /// nothing may leave now. `out` must have room for a header and a full payload.
    pub fn poll(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        self.run_timers(now);
        if let Some((seq, ack, flags)) = self.reset.take() {
            return self.template.write(out, seq, ack, flags, 0, &[]);
        }
        match self.state {
            State::Closed => None,
            State::SynSent | State::SynReceived => self.poll_handshake(now, out),
            State::TimeWait | State::FinWait2 => self.poll_ack(now, out),
            _ => self.poll_open(now, out),
        }
    }

    fn poll_handshake(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        if !std::mem::take(&mut self.syn_due) {
            return std::mem::take(&mut self.challenge).then(|| self.write_ack(out)).flatten();
        }
        let answers = self.state == State::SynReceived;
        let scales = !answers || self.rx.shift > 0 || self.tx.shift > 0;
        let offer = Offer {
            mss: Some(self.config.mss),
            shift: scales.then_some(self.rx.shift),
            sack: !answers || self.rx.sack,
        };
        let (ack, flags) = if answers { (self.rx.nxt as u32, SYN | ACK) } else { (0, SYN) };
        let window = self.rx.advertise(true);
        self.syn_sent = Some((now, self.syn_sent.map_or(0, |(_, times)| times + 1)));
        self.template.write(out, self.first as u32, ack, flags, window, OptionsOut::offer(&offer).bytes())
    }

    fn poll_open(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        if self.rx.has_report() {
            return self.poll_ack(now, out);
        }
        if let Some(outgoing) = self.tx.next(now) {
            self.active = now;
            return self.write_data(out, outgoing);
        }
        if std::mem::take(&mut self.tx.force) && self.tx.closed_since.is_some() {
            return self.write_probe(out);
        }
        self.poll_ack(now, out)
    }

    fn poll_ack(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        if std::mem::take(&mut self.keepalive.due) {
            return self.write_probe(out);
        }
        if std::mem::take(&mut self.challenge) || self.rx.wants_ack(now) {
            return self.write_ack(out);
        }
        None
    }

    fn write_ack(&mut self, out: &mut [u8]) -> Option<usize> {
        self.challenge = false;
        let options = self.rx.report();
        let window = self.rx.advertise(false);
        self.template.write(out, self.tx.nxt as u32, self.rx.nxt as u32, ACK, window, options.bytes())
    }

    /// A segment just below the peer's window, which it must answer: asks whether the window is still closed, or whether
    /// the peer is still there.
    fn write_probe(&mut self, out: &mut [u8]) -> Option<usize> {
        let seq = (self.tx.una as u32).wrapping_sub(1);
        let window = self.rx.advertise(false);
        self.template.write(out, seq, self.rx.nxt as u32, ACK, window, &[])
    }

    #[inline]
    fn write_data(&mut self, out: &mut [u8], outgoing: Outgoing) -> Option<usize> {
        let Outgoing { start, len, fin, last } = outgoing;
        let flags = ACK | if fin { FIN } else { 0 } | if last && len > 0 { PSH } else { 0 };
        let window = self.rx.advertise(false);
        let header = self.template.write(out, start as u32, self.rx.nxt as u32, flags, window, &[])?;
        self.tx.buffer.copy(start, out.get_mut(header..header + len)?);
        self.challenge = false;
        if fin {
            self.state = match self.state {
                State::Established => State::FinWait1,
                State::CloseWait => State::LastAck,
                other => other,
            };
        }
        Some(header + len)
    }
}
