//! From runs of frames to sockets and queues, and who must wait meanwhile.

use std::io::IoSlice;
use std::time::Instant;

use wire::derp::{FrameType, HEADER_LEN, Header, looks_like_disco, rewrite};
use wire::keys::NodePublic;
use wire::ws;

use super::outbox::Memory;
use super::session::{Pause, Session};
use super::timers::Timer;
use super::{
    CONTROL_LIMIT, CloseReason, ConnId, PAUSE, PIECE, QUEUE_LIMIT, QUEUE_SOON, QUEUES_LIMIT, Request, Router,
    Sink, URGENT_LIMIT, WRITE_TIMEOUT, Written,
};

impl Router {
    /// Writes a run of whole frames from `source` to `to`, or queues what its socket does not take.
    pub(super) fn deliver(
        &mut self,
        now: Instant,
        from: ConnId,
        source: &NodePublic,
        to: ConnId,
        run: &[u8],
        sink: &mut impl Sink,
    ) {
        let mut run = run;
        while !run.is_empty() {
            let Some(session) = self.session(to) else {
                self.counters.dropped.gone += whole_frames(run, usize::MAX).1;
                return;
            };
            if session.outbox.blocked {
                return self.enqueue(now, from, source, to, run);
            }
            if !session.outbox.is_empty() {
                self.flush(now, to, sink);
                continue;
            }
            // A message cannot be interrupted, so those of a WebSocket are kept short.
            let message = match session.websocket {
                Some(_) => first_piece(run),
                None => run.len(),
            };
            let done = self.write(now, to, &run[..message], sink);
            run = &run[done..];
        }
    }

    /// Offers `run` to the socket of `to`, which nothing waits for. Returns how many bytes are done with: all, or whole
    /// frames up to the one at which the socket became full.
    fn write(&mut self, now: Instant, to: ConnId, run: &[u8], sink: &mut impl Sink) -> usize {
        let Self { sessions, memory, counters, .. } = self;
        let Some(session) = sessions.get_mut(to.slot()) else { return run.len() };
        let header = message_header(session, run.len());
        let header = header.as_ref().map_or(&[][..], ws::OutHeader::as_bytes);
        let written = match header {
            [] => sink.write(to, &[IoSlice::new(run)]),
            _ => sink.write(to, &[IoSlice::new(header), IoSlice::new(run)]),
        };
        let Written::Taken(taken) = written else {
            counters.dropped.gone += whole_frames(run, usize::MAX).1;
            self.close(to, CloseReason::Broken);
            return run.len();
        };
        // Where the stream may be interrupted: behind the frame that was begun, or the message.
        let begun = match (taken, header.len()) {
            (0, _) => 0,
            (_, 0) => frames_covering(run, taken),
            _ => run.len(),
        };
        if begun > 0 {
            session.outbox.push(header.get(taken..).unwrap_or(&[]), memory);
            let of_run = taken.saturating_sub(header.len());
            session.outbox.push(&run[of_run.min(begun)..begun], memory);
            counters.packets += whole_frames(&run[..begun], usize::MAX).1;
            counters.bytes += begun as u64;
        }
        if taken < header.len() + run.len() {
            self.block(now, to);
        }
        begun
    }

    /// The socket of `to` is full. Takes what the queue may hold; its sender waits, or loses the rest.
    fn enqueue(&mut self, now: Instant, from: ConnId, source: &NodePublic, to: ConnId, run: &[u8]) {
        // A mesh connection carries many senders' packets; those of one must not hold up the others.
        let may_wait = self.session(from).and_then(|s| s.peer.as_ref()).is_some_and(|peer| !peer.mesh);
        let Self { sessions, memory, counters, .. } = self;
        let Some(session) = sessions.get_mut(to.slot()).filter(|s| s.generation == to.generation) else {
            return;
        };
        let (before, stalled) =
            session.outbox.flow(source).map_or((0, false), |flow| (flow.len(), flow.stalled));
        let patient = may_wait && !stalled;
        let mut room = session.outbox.share().saturating_sub(before);
        if patient {
            room = room.max(QUEUE_SOON.saturating_sub(session.outbox.len()));
        }
        room = room.min(QUEUE_LIMIT.saturating_sub(session.outbox.len()));
        if memory.queued() > QUEUES_LIMIT {
            room = 0;
        }
        let mut rest = run;
        while !rest.is_empty() {
            let (frames, after) = rest.split_at(first_piece(rest));
            rest = after;
            let (packets, bytes) = match Frames(frames).next() {
                Some(first) if is_disco(first) => push_urgent(session, first, memory),
                _ => push_piece(session, source, frames, &mut room, memory),
            };
            counters.packets += packets;
            counters.bytes += bytes as u64;
            counters.dropped.queue_full += whole_frames(&frames[bytes..], usize::MAX).1;
        }
        let full = session.outbox.share();
        if patient && session.outbox.flow(source).is_some_and(|flow| flow.len() >= full) {
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
        let Some(session) = self.session_mut(id) else { return };
        session.dirty = false;
        if session.outbox.blocked {
            if session.outbox.front_len() > CONTROL_LIMIT {
                self.close(id, CloseReason::Stalled);
            }
            return;
        }
        self.write_out(now, id, sink);
    }

    /// The socket can take more.
    pub fn writable(&mut self, now: Instant, id: ConnId, sink: &mut impl Sink) {
        if self.session(id).is_some_and(|session| session.outbox.blocked) {
            self.write_out(now, id, sink);
        }
        self.flush_dirty(now, sink);
    }

    /// Writes from the queue until it is empty or the socket is full, and lets senders go on whose flow is short.
    fn write_out(&mut self, now: Instant, id: ConnId, sink: &mut impl Sink) {
        loop {
            let Self { sessions, memory, .. } = self;
            let Some(session) = sessions.get_mut(id.slot()).filter(|s| s.generation == id.generation) else {
                return;
            };
            if session.outbox.is_empty() {
                break;
            }
            let (slices, offered) = session.outbox.offer();
            let Written::Taken(taken) = sink.write(id, &slices) else {
                return self.close(id, CloseReason::Broken);
            };
            drop(slices);
            let freed = session.outbox.advance(taken, memory);
            if taken > 0 {
                session.outbox.progressed = Some(now);
            }
            for sender in freed {
                self.resume(sender, id);
            }
            if taken < offered {
                return self.block(now, id);
            }
        }
        let Some(session) = self.session_mut(id) else { return };
        if std::mem::take(&mut session.outbox.blocked) {
            self.interest(id);
        }
    }

    /// The socket of `id` took less than it was offered.
    fn block(&mut self, now: Instant, id: ConnId) {
        let Some(session) = self.session_mut(id) else { return };
        if std::mem::replace(&mut session.outbox.blocked, true) {
            return;
        }
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
        let (None, Some(peer)) = (session.paused, &session.peer) else { return };
        let source = peer.key;
        session.paused = Some(Pause { waits_for: to, until });
        self.counters.pauses += 1;
        if let Some(flow) = self.session_mut(to).and_then(|session| session.outbox.flow(&source)) {
            flow.waiting.push(from);
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
        let Some(session) = self.session(id) else { return };
        let (Some(pause), Some(peer)) = (session.paused, &session.peer) else { return };
        if pause.until > now {
            return;
        }
        let source = peer.key;
        self.resume(id, pause.waits_for);
        let flow = self.session_mut(pause.waits_for).and_then(|session| session.outbox.flow(&source));
        if let Some(flow) = flow {
            flow.stalled = true;
            flow.waiting.retain(|waiting| *waiting != id);
        }
    }

    /// Tells the shell what to watch the socket for.
    pub(super) fn interest(&mut self, id: ConnId) {
        let Some(session) = self.session(id) else { return };
        let (read, write) = (session.paused.is_none() && !session.throttled, session.outbox.blocked);
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

/// A disco packet, or another frame that must not wait behind data. Returns the packets and bytes that were taken.
fn push_urgent(session: &mut Session, frame: &[u8], memory: &mut Memory) -> (u64, usize) {
    if session.outbox.front_len() + frame.len() > URGENT_LIMIT {
        return (0, 0);
    }
    push_message(session, frame, memory);
    (1, frame.len())
}

/// Queues as many of `frames` as there is room for. Returns the packets and bytes that were taken.
fn push_piece(
    session: &mut Session,
    source: &NodePublic,
    frames: &[u8],
    room: &mut usize,
    memory: &mut Memory,
) -> (u64, usize) {
    let (fits, packets) = whole_frames(frames, *room);
    if fits > 0 {
        let header = message_header(session, fits);
        let header = header.as_ref().map_or(&[][..], ws::OutHeader::as_bytes);
        session.outbox.push_piece(source, [header, &frames[..fits]], memory);
    }
    *room -= fits;
    (packets, fits)
}

/// The whole frames at the start of a run, one by one.
pub(super) struct Frames<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Frames<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (_, len) = Header::parse(self.0)?;
        let (frame, rest) = self.0.split_at_checked(HEADER_LEN + len)?;
        self.0 = rest;
        Some(frame)
    }
}

/// Length and number of the whole frames at the start of `run` that fit into `room`.
fn whole_frames(run: &[u8], room: usize) -> (usize, u64) {
    let (mut end, mut packets) = (0, 0);
    for frame in Frames(run) {
        if end + frame.len() > room {
            break;
        }
        end += frame.len();
        packets += 1;
    }
    (end, packets)
}

/// Length of the frames of `run` of which the first `bytes` bytes have a part.
fn frames_covering(run: &[u8], bytes: usize) -> usize {
    let mut end = 0;
    for frame in Frames(run) {
        if end >= bytes {
            break;
        }
        end += frame.len();
    }
    end
}

/// Length of the first part of `run` that is queued on its own: one disco packet, or frames of other kinds up to
/// [`PIECE`]. At least one frame, whatever its length.
fn first_piece(run: &[u8]) -> usize {
    let mut end = 0;
    for frame in Frames(run) {
        if end > 0 && (end + frame.len() > PIECE || is_disco(frame)) {
            break;
        }
        end += frame.len();
        if is_disco(frame) {
            break;
        }
    }
    if end == 0 { run.len() } else { end }
}

/// Whether a RecvPacket or ForwardPacket frame carries a disco packet.
fn is_disco(frame: &[u8]) -> bool {
    let start = match Header::parse(frame) {
        Some((FrameType::RecvPacket, _)) => rewrite::PREFIX_LEN,
        Some((FrameType::ForwardPacket, _)) => rewrite::FORWARD_PREFIX_LEN,
        _ => return false,
    };
    frame.get(start..).is_some_and(looks_like_disco)
}
