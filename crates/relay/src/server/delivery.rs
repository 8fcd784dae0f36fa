//! From runs of frames to sockets and queues, and who must wait meanwhile.

use std::io::IoSlice;
use std::time::Instant;

use wire::derp::{HEADER_LEN, Header};
use wire::ws;

use super::outbox::Memory;
use super::session::{Pause, Session};
use super::timers::Timer;
use super::{
    CONTROL_LIMIT, CloseReason, ConnId, PAUSE, QUEUE_FULL, QUEUE_LIMIT, QUEUE_SHORT, QUEUES_LIMIT, Request,
    Router, Sink, WRITE_TIMEOUT, Written,
};

impl Router {
    /// Writes a run of RecvPacket frames to `to`, or queues what its socket does not take.
    pub(super) fn deliver(
        &mut self,
        now: Instant,
        from: ConnId,
        to: ConnId,
        run: &[u8],
        packets: u64,
        sink: &mut impl Sink,
    ) {
        let Some(session) = self.sessions.get_mut(to.slot()).filter(|s| s.generation == to.generation) else {
            self.counters.dropped.gone += packets;
            return;
        };
        if session.outbox.blocked {
            return self.enqueue(now, from, to, run);
        }
        let header = message_header(session, run.len());
        let header = header.as_ref().map_or(&[][..], ws::OutHeader::as_bytes);
        let [front, back] = session.outbox.slices();
        let pending = session.outbox.len();
        let written = sink.write(to, &[front, back, IoSlice::new(header), IoSlice::new(run)]);
        let Written::Taken(taken) = written else {
            self.counters.dropped.gone += packets;
            return self.close(to, CloseReason::Broken);
        };
        self.counters.packets += packets;
        self.counters.bytes += run.len() as u64;
        session.outbox.advance(taken, &mut self.memory);
        let taken = taken.saturating_sub(pending);
        if taken < header.len() + run.len() {
            session.outbox.push(header.get(taken..).unwrap_or(&[]), &mut self.memory);
            session.outbox.push(&run[taken.saturating_sub(header.len())..], &mut self.memory);
            self.block(now, to);
        }
    }

    /// The socket of `to` is full. Takes what the queue may hold; its sender waits, or loses the rest.
    fn enqueue(&mut self, now: Instant, from: ConnId, to: ConnId, run: &[u8]) {
        // A mesh connection carries many senders' packets; those of one must not hold up the others.
        let may_wait = self.session(from).and_then(|s| s.peer.as_ref()).is_some_and(|peer| !peer.mesh);
        let Self { sessions, memory, counters, .. } = self;
        let Some(session) = sessions.get_mut(to.slot()).filter(|s| s.generation == to.generation) else {
            return;
        };
        let patient = may_wait && !session.outbox.stalled;
        let limit = if patient { QUEUE_LIMIT } else { QUEUE_FULL };
        let room =
            if memory.queued() > QUEUES_LIMIT { 0 } else { limit.saturating_sub(session.outbox.len()) };
        let (fits, packets) = whole_frames(run, room);
        if fits > 0 {
            push_message(session, &run[..fits], memory);
            counters.packets += packets;
            counters.bytes += fits as u64;
        }
        counters.dropped.queue_full += whole_frames(&run[fits..], usize::MAX).1;
        if patient && session.outbox.len() >= QUEUE_FULL {
            self.pause(now, from, to);
        }
    }

    /// Bytes that are no frame (the WebSocket's own answers), past any limit.
    pub(super) fn raw(&mut self, id: ConnId, bytes: &[u8]) {
        let Self { sessions, memory, dirty, .. } = self;
        let Some(session) = sessions.get_mut(id.slot()).filter(|s| s.generation == id.generation) else {
            return;
        };
        session.outbox.push(bytes, memory);
        if !std::mem::replace(&mut session.dirty, true) {
            dirty.push(id);
        }
    }

    /// Sends the control frames that this call queued, and all that waits in front of them.
    pub(super) fn flush_dirty(&mut self, now: Instant, sink: &mut impl Sink) {
        // Flushing may close connections, and that may queue more.
        while let Some(id) = self.dirty.pop() {
            self.flush(now, id, sink);
        }
    }

    /// Writes what waits for a connection, unless its socket is known to be full.
    pub(super) fn flush(&mut self, now: Instant, id: ConnId, sink: &mut impl Sink) {
        let Self { sessions, memory, .. } = self;
        let Some(session) = sessions.get_mut(id.slot()).filter(|s| s.generation == id.generation) else {
            return;
        };
        session.dirty = false;
        if session.outbox.blocked {
            if session.outbox.len() > CONTROL_LIMIT {
                self.close(id, CloseReason::Stalled);
            }
            return;
        }
        if session.outbox.is_empty() {
            return;
        }
        match sink.write(id, &session.outbox.slices()) {
            Written::Broken => self.close(id, CloseReason::Broken),
            Written::Taken(taken) => {
                session.outbox.advance(taken, memory);
                if !session.outbox.is_empty() {
                    self.block(now, id);
                }
            }
        }
    }

    /// The socket can take more.
    pub fn writable(&mut self, now: Instant, id: ConnId, sink: &mut impl Sink) {
        let Self { sessions, memory, .. } = self;
        let Some(session) = sessions.get_mut(id.slot()).filter(|s| s.generation == id.generation) else {
            return;
        };
        if session.outbox.blocked {
            match sink.write(id, &session.outbox.slices()) {
                Written::Broken => self.close(id, CloseReason::Broken),
                Written::Taken(taken) => {
                    session.outbox.advance(taken, memory);
                    if taken > 0 {
                        session.outbox.progressed = Some(now);
                    }
                    self.drained(id);
                }
            }
        }
        self.flush_dirty(now, sink);
    }

    /// A queue got shorter: lets its senders go on when it is short, and stops watching the socket when it is empty.
    fn drained(&mut self, id: ConnId) {
        let Some(session) = self.session_mut(id) else { return };
        if session.outbox.is_empty() {
            session.outbox.blocked = false;
            self.interest(id);
        }
        let Some(session) = self.session_mut(id) else { return };
        if session.outbox.len() < QUEUE_SHORT {
            session.outbox.stalled = false;
            for sender in std::mem::take(&mut session.outbox.waiting) {
                self.resume(sender, id);
            }
        }
    }

    /// The socket of `id` took less than it was offered.
    fn block(&mut self, now: Instant, id: ConnId) {
        let Some(session) = self.session_mut(id) else { return };
        session.outbox.blocked = true;
        session.outbox.progressed = Some(now);
        if !std::mem::replace(&mut session.watched, true) {
            self.timers.set(now + WRITE_TIMEOUT, id, Timer::Stall);
        }
        self.interest(id);
    }

    pub(super) fn stall_due(&mut self, now: Instant, id: ConnId) {
        let Some(session) = self.session_mut(id) else { return };
        session.watched = false;
        let (true, Some(progressed)) = (session.outbox.blocked, session.outbox.progressed) else { return };
        let due = progressed + WRITE_TIMEOUT;
        if due <= now {
            self.close(id, CloseReason::Stalled);
        } else {
            session.watched = true;
            self.timers.set(due, id, Timer::Stall);
        }
    }

    /// Stops reading from `from` until the queue of `to` is short, but for [`PAUSE`] at most.
    fn pause(&mut self, now: Instant, from: ConnId, to: ConnId) {
        let until = now + PAUSE;
        let Some(session) = self.session_mut(from) else { return };
        if session.paused.is_some() {
            return;
        }
        session.paused = Some(Pause { waits_for: to, until });
        self.counters.pauses += 1;
        if let Some(session) = self.session_mut(to) {
            session.outbox.waiting.push(from);
        }
        self.timers.set(until, from, Timer::Resume);
        self.interest(from);
    }

    /// Reads from `sender` again, if it was `waited_for` it waited for.
    pub(super) fn resume(&mut self, sender: ConnId, waited_for: ConnId) {
        let Some(session) = self.session_mut(sender) else { return };
        if session.paused.is_some_and(|pause| pause.waits_for == waited_for) {
            session.paused = None;
            self.interest(sender);
        }
    }

    /// Waiting did not help: the sender goes on, and what does not fit into the queue is lost.
    pub(super) fn resume_due(&mut self, now: Instant, id: ConnId) {
        let Some(pause) = self.session(id).and_then(|session| session.paused) else { return };
        if pause.until > now {
            return;
        }
        self.resume(id, pause.waits_for);
        if let Some(session) = self.session_mut(pause.waits_for) {
            session.outbox.stalled = true;
            session.outbox.waiting.retain(|waiting| *waiting != id);
        }
    }

    /// Tells the shell what to watch the socket for.
    fn interest(&mut self, id: ConnId) {
        let Some(session) = self.session(id) else { return };
        let (read, write) = (session.paused.is_none(), session.outbox.blocked);
        self.requests.push_back(Request::Interest { id, read, write });
    }
}

/// The header of the message around `len` bytes, on a WebSocket.
fn message_header(session: &Session, len: usize) -> Option<ws::OutHeader> {
    session.websocket.as_ref().map(|_| ws::OutHeader::new(ws::Opcode::Binary, len, None))
}

pub(super) fn push_message(session: &mut Session, bytes: &[u8], memory: &mut Memory) {
    if let Some(header) = message_header(session, bytes.len()) {
        session.outbox.push(header.as_bytes(), memory);
    }
    session.outbox.push(bytes, memory);
}

/// Length and number of the whole frames at the start of `run` that fit into `room`.
fn whole_frames(run: &[u8], room: usize) -> (usize, u64) {
    let (mut end, mut packets) = (0, 0);
    while let Some((_, len)) = run.get(end..).and_then(Header::parse) {
        let next = end + HEADER_LEN + len;
        if next > room || next > run.len() {
            break;
        }
        end = next;
        packets += 1;
    }
    (end, packets)
}
