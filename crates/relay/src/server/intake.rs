//! From bytes that were read to frames, where they lie.

use std::ops::Range;
use std::time::Instant;

use wire::derp::login::LoginError;
use wire::derp::{
    CLIENT_INFO_PAYLOAD, DerpError, FrameType, FromClient, HEADER_LEN, Header, PeerGoneReason, encode,
    looks_like_disco, rewrite,
};
use wire::keys::NodePublic;
use wire::ws;

use super::session::{Session, WebSocket};
use super::{CloseReason, ConnId, Router, Sink};

/// More pongs of the WebSocket layer than fit here are not sent.
const WEBSOCKET_PONGS: usize = 16 * 1024;

/// Neighbouring packets for one destination, as RecvPacket frames.
struct Run {
    to: Option<ConnId>,
    key: NodePublic,
    range: Range<usize>,
    packets: u64,
}

/// What is sure of a frame when only its header is known.
enum Plan {
    Read,
    Skip,
}

impl Router {
    /// Takes in `fresh` bytes that were read to `buf[kept..]`, with `kept` = [`Router::kept`].
    ///
    /// `buf` should have [`super::READ_BUFFER`] bytes; its contents are overwritten.
    pub fn feed(&mut self, now: Instant, id: ConnId, buf: &mut [u8], fresh: usize, sink: &mut impl Sink) {
        let reason = self.take_in(now, id, buf, fresh, sink).err();
        if let Some(reason) = reason {
            // What was right before the mistake is still answered.
            self.flush(now, id, sink);
            self.close(id, reason);
        }
        self.flush_dirty(now, sink);
    }

    fn take_in(
        &mut self,
        now: Instant,
        id: ConnId,
        buf: &mut [u8],
        fresh: usize,
        sink: &mut impl Sink,
    ) -> Result<(), CloseReason> {
        let Some(session) = self.session_mut(id) else { return Ok(()) };
        let kept = session.kept();
        let Some(buf) = buf.get_mut(..kept + fresh) else {
            debug_assert!(false, "the read buffer ends before what was read into it");
            return Ok(());
        };
        let partial = session.partial.len();
        let mut outcome = Ok(());
        let mut end = buf.len();
        if let Some(websocket) = &mut session.websocket {
            let mut unwrapped = Unwrapped { end: partial, ..Unwrapped::default() };
            outcome = unwrapped.run(websocket, buf);
            end = unwrapped.end;
            self.answer_websocket(id, &unwrapped.answers);
        }
        self.take_frames(now, id, &mut buf[..end], sink)?;
        outcome
    }

    /// Puts the partial frame in front, handles what is whole, keeps the rest.
    fn take_frames(
        &mut self,
        now: Instant,
        id: ConnId,
        buf: &mut [u8],
        sink: &mut impl Sink,
    ) -> Result<(), CloseReason> {
        let Some(session) = self.session_mut(id) else { return Ok(()) };
        let partial = session.partial.len();
        if partial > 0 {
            if buf.len() < session.partial_needs {
                // Copied once per byte, however slowly a large frame trickles in.
                session.partial.extend_from_slice(&buf[partial..]);
                return Ok(());
            }
            buf[..partial].copy_from_slice(&session.partial);
        }
        let skipped = session.skip.min(buf.len());
        session.skip -= skipped;
        let end = self.frames(now, id, buf, skipped, sink)?;
        if let Some(session) = self.session_mut(id) {
            keep(session, &buf[end.min(buf.len())..]);
        }
        Ok(())
    }

    /// Handles whole frames from `at` on. Returns where the first that is not whole starts.
    fn frames(
        &mut self,
        now: Instant,
        id: ConnId,
        buf: &mut [u8],
        mut at: usize,
        sink: &mut impl Sink,
    ) -> Result<usize, CloseReason> {
        let mut run = Run { to: None, key: NodePublic::ZERO, range: 0..0, packets: 0 };
        let mut source = self.source(id);
        if let Some((key, _)) = source
            && buf.len() >= at + HEADER_LEN
        {
            self.directory.spoke(&key, id);
        }
        let outcome = loop {
            let Some((kind, len)) = Header::parse(&buf[at..]) else { break Ok(at) };
            match plan(source, kind, len) {
                Ok(Plan::Read) => {}
                Ok(Plan::Skip) => {
                    self.counters.skipped += 1;
                    let there = len.min(buf.len() - at - HEADER_LEN);
                    at += HEADER_LEN + there;
                    if there < len
                        && let Some(session) = self.session_mut(id)
                    {
                        session.skip = len - there;
                        break Ok(at);
                    }
                    continue;
                }
                Err(reason) => break Err(reason),
            }
            let end = at + HEADER_LEN + len;
            let Some(frame) = buf.get_mut(at..end) else { break Ok(at) };
            match (kind, source) {
                (FrameType::SendPacket, Some((key, _))) => {
                    let Some(to) = rewrite::send_to_recv(frame, &key) else {
                        break Err(CloseReason::Malformed(DerpError::Short(kind)));
                    };
                    if run.packets == 0 || run.key != to || run.range.end != at {
                        self.deliver_run(now, id, Some(key), &run, buf, sink);
                        run = Run { to: self.directory.active(&to), key: to, range: at..at, packets: 0 };
                    }
                    run.range.end = end;
                    run.packets += 1;
                    if run.to.is_none() {
                        self.undeliverable(now, id, &to, &buf[at + rewrite::PREFIX_LEN..end]);
                        run.packets = 0;
                    }
                }
                (FrameType::ForwardPacket, Some((key, _))) => {
                    self.deliver_run(now, id, Some(key), &run, buf, sink);
                    run.packets = 0;
                    if let Err(reason) = self.forward(now, id, &mut buf[at..end], sink) {
                        break Err(reason);
                    }
                }
                _ => {
                    self.deliver_run(now, id, source.map(|(key, _)| key), &run, buf, sink);
                    run.packets = 0;
                    if let Err(reason) = self.other(now, id, kind, &buf[at + HEADER_LEN..end]) {
                        break Err(reason);
                    }
                    source = self.source(id);
                    if source.is_none() {
                        break Ok(end);
                    }
                }
            }
            at = end;
        };
        self.deliver_run(now, id, source.map(|(key, _)| key), &run, buf, sink);
        outcome
    }

    /// Key and mesh right of a logged-in connection.
    fn source(&self, id: ConnId) -> Option<(NodePublic, bool)> {
        self.session(id)?.peer.as_ref().map(|peer| (peer.key, peer.mesh))
    }

    fn deliver_run(
        &mut self,
        now: Instant,
        from: ConnId,
        source: Option<NodePublic>,
        run: &Run,
        buf: &[u8],
        sink: &mut impl Sink,
    ) {
        let (Some(to), Some(source)) = (run.to, source) else { return };
        if run.packets > 0 {
            self.heard(from, &source, to);
            self.deliver(now, from, to, &buf[run.range.clone()], run.packets, sink);
        }
    }

    /// Remembers who must be told when `source` is gone.
    fn heard(&mut self, from: ConnId, source: &NodePublic, by: ConnId) {
        let Some(peer) = self.session_mut(from).and_then(|session| session.peer.as_mut()) else { return };
        if peer.last_heard_by.replace(by) == Some(by) {
            return;
        }
        let Self { directory, sessions, .. } = self;
        let alive =
            |id: ConnId| sessions.get(id.slot()).is_some_and(|session| session.generation == id.generation);
        directory.heard(source, by, alive);
    }

    /// A packet from another relay of the region. It is not passed on to a third.
    fn forward(
        &mut self,
        now: Instant,
        id: ConnId,
        frame: &mut [u8],
        sink: &mut impl Sink,
    ) -> Result<(), CloseReason> {
        let Some((to, start)) = rewrite::forward_to_recv(frame) else {
            return Err(CloseReason::Malformed(DerpError::Short(FrameType::ForwardPacket)));
        };
        match self.directory.active(&to) {
            Some(active) => self.deliver(now, id, active, &frame[start..], 1, sink),
            None => self.undeliverable(now, id, &to, &frame[start + rewrite::PREFIX_LEN..]),
        }
        Ok(())
    }

    /// Nobody has this key. Only a disco packet is worth an answer: its sender is looking for a way.
    fn undeliverable(&mut self, now: Instant, id: ConnId, to: &NodePublic, packet: &[u8]) {
        self.counters.dropped.unknown += 1;
        let Some(peer) = self.session_mut(id).and_then(|session| session.peer.as_mut()) else { return };
        if looks_like_disco(packet) && peer.gone_limit.allow(now) {
            let mut frame = Vec::with_capacity(64);
            encode::peer_gone(&mut frame, to, PeerGoneReason::NotHere);
            self.control(id, &frame);
        }
    }

    /// Everything that is rare.
    fn other(
        &mut self,
        now: Instant,
        id: ConnId,
        kind: FrameType,
        payload: &[u8],
    ) -> Result<(), CloseReason> {
        if kind == FrameType::ClientInfo {
            return self.login(now, id, payload);
        }
        match FromClient::parse(kind, payload).map_err(CloseReason::Malformed)? {
            FromClient::Ping(data) => self.pong(id, &data),
            FromClient::NotePreferred(home) => {
                if let Some(peer) = self.session_mut(id).and_then(|session| session.peer.as_mut()) {
                    peer.preferred = home;
                }
            }
            FromClient::WatchConns => self.watch(id),
            FromClient::ClosePeer(key) => {
                for target in self.directory.all(&key).to_vec() {
                    self.close(target, CloseReason::ByMesh);
                }
            }
            FromClient::Packet { .. } | FromClient::Forward { .. } | FromClient::Unknown(_) => {}
        }
        Ok(())
    }

    /// At most one pong waits on a connection.
    fn pong(&mut self, id: ConnId, data: &[u8; 8]) {
        if self.session(id).is_none_or(|session| session.outbox.has_pong()) {
            return;
        }
        let mut frame = Vec::with_capacity(16);
        encode::pong(&mut frame, data);
        self.control(id, &frame);
        if let Some(session) = self.session_mut(id) {
            session.outbox.mark_pong();
        }
    }

    fn answer_websocket(&mut self, id: ConnId, answers: &[u8]) {
        let fits = self.session(id).is_some_and(|session| session.outbox.len() < WEBSOCKET_PONGS);
        if fits && !answers.is_empty() {
            self.raw(id, answers);
        }
    }
}

/// Judges a frame by its header, so that nothing is kept for one that will be refused.
fn plan(source: Option<(NodePublic, bool)>, kind: FrameType, len: usize) -> Result<Plan, CloseReason> {
    let Some((_, mesh)) = source else {
        return match kind {
            FrameType::ClientInfo if len > *CLIENT_INFO_PAYLOAD.end() => Err(DerpError::Long(kind)),
            FrameType::ClientInfo if len < *CLIENT_INFO_PAYLOAD.start() => Err(DerpError::Short(kind)),
            FrameType::ClientInfo => Ok(Plan::Read),
            _ => Err(DerpError::Unexpected(kind)),
        }
        .map_err(|error| CloseReason::Refused(LoginError::Frame(error)));
    };
    let privileged = matches!(kind, FrameType::ForwardPacket | FrameType::WatchConns | FrameType::ClosePeer);
    if privileged && !mesh {
        return Err(CloseReason::NotPermitted);
    }
    match FromClient::max_payload(kind) {
        None => Ok(Plan::Skip),
        Some(most) if len > most => Err(CloseReason::Malformed(DerpError::Long(kind))),
        Some(_) => Ok(Plan::Read),
    }
}

/// Keeps what is left of a read, and nothing at all if nothing is.
fn keep(session: &mut Session, rest: &[u8]) {
    if rest.is_empty() {
        session.partial = Vec::new();
    } else {
        session.partial.clear();
        session.partial.extend_from_slice(rest);
    }
    session.partial_needs = Header::parse(rest).map_or(HEADER_LEN, |(_, len)| HEADER_LEN + len);
}

/// The outcome of taking WebSocket framing away.
#[derive(Default)]
struct Unwrapped {
    /// End of the stream's bytes, moved together behind the partial DERP frame.
    end: usize,
    /// What the WebSocket layer itself must answer.
    answers: Vec<u8>,
}

impl Unwrapped {
    /// `buf` is the partial DERP frame (up to `self.end`), room for the partial WebSocket frame, and what was read.
    fn run(&mut self, websocket: &mut WebSocket, buf: &mut [u8]) -> Result<(), CloseReason> {
        let mut at = self.end;
        buf[at..at + websocket.tail.len()].copy_from_slice(&websocket.tail);
        websocket.tail.clear();
        loop {
            let step = match websocket.decoder.decode(&mut buf[at..]) {
                Ok(step) => step,
                Err(error) => {
                    self.say_close(error.close_code());
                    return Err(CloseReason::WebSocket(error));
                }
            };
            match step.event {
                Some(ws::Event::Data(range)) => {
                    let len = range.len();
                    buf.copy_within(at + range.start..at + range.end, self.end);
                    self.end += len;
                }
                Some(ws::Event::Ping(range)) if self.answers.len() < WEBSOCKET_PONGS => {
                    let payload = &buf[at + range.start..at + range.end];
                    ws::encode(&mut self.answers, ws::Opcode::Pong, payload, None);
                }
                Some(ws::Event::Ping(_) | ws::Event::Pong(_)) => {}
                Some(ws::Event::Close(_)) => {
                    self.say_close(1000);
                    return Err(CloseReason::Disconnected);
                }
                None if step.consumed == 0 => break,
                None => {}
            }
            at += step.consumed;
        }
        websocket.tail.extend_from_slice(&buf[at..]);
        Ok(())
    }

    fn say_close(&mut self, code: u16) {
        ws::encode(&mut self.answers, ws::Opcode::Close, &code.to_be_bytes(), None);
    }
}
