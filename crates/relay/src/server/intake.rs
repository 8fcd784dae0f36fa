//! From bytes that were read to frames, where they lie.

use std::ops::Range;
use std::time::Instant;

use wire::derp::login::LoginError;
use wire::derp::{
    CLIENT_INFO_PAYLOAD, DerpError, FrameType, FromClient, HEADER_LEN, Header, PeerGoneReason, encode,
    looks_like_disco, rewrite,
};
use wire::keys::NodePublic;

use super::directory::Way;
use super::session::Session;
use super::websocket::{MAX_ANSWERS, Unwrapped};
use super::{CloseReason, ConnId, Router, Sink};

/// Neighbouring packets for one destination, as RecvPacket frames.
struct Run {
    to: Option<Way>,
    key: NodePublic,
    range: Range<usize>,
    packets: u64,
}

impl Default for Run {
    fn default() -> Self {
        Self { to: None, key: NodePublic::ZERO, range: 0..0, packets: 0 }
    }
}

/// One read of one connection.
struct Reading {
    now: Instant,
    id: ConnId,
    /// Key and mesh right, once logged in.
    source: Option<(NodePublic, bool)>,
    /// Only a trickle of its packets passes.
    limited: bool,
    run: Run,
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
        self.charge(now, id, fresh);
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
        if session.link.is_some() {
            return self.take_in_link(now, id, buf);
        }
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
        let limited = self.is_limited(id);
        let mut reading = Reading { now, id, source: self.source(id), limited, run: Run::default() };
        if let Some((key, _)) = reading.source
            && buf.len() >= at + HEADER_LEN
        {
            self.directory.spoke(&key, id);
        }
        let outcome = loop {
            let Some((kind, len)) = Header::parse(&buf[at..]) else { break Ok(at) };
            let end = at + HEADER_LEN + len;
            match plan(reading.source, kind, len) {
                Err(reason) => break Err(reason),
                Ok(Plan::Skip) => self.skip(id, end.saturating_sub(buf.len())),
                Ok(Plan::Read) if end > buf.len() => break Ok(at),
                Ok(Plan::Read) => {
                    if let Err(reason) = self.frame(&mut reading, kind, buf, at..end, sink) {
                        break Err(reason);
                    }
                }
            }
            if end >= buf.len() || self.session(id).is_none() {
                break Ok(end.min(buf.len()));
            }
            at = end;
        };
        self.finish_run(&mut reading, buf, sink);
        outcome
    }

    /// Passes over a frame nobody knows; `missing` bytes of it are still to come.
    fn skip(&mut self, id: ConnId, missing: usize) {
        self.counters.skipped += 1;
        if let Some(session) = self.session_mut(id) {
            session.skip = missing;
        }
    }

    /// Handles the whole frame that lies at `range`.
    fn frame(
        &mut self,
        reading: &mut Reading,
        kind: FrameType,
        buf: &mut [u8],
        range: Range<usize>,
        sink: &mut impl Sink,
    ) -> Result<(), CloseReason> {
        match (kind, reading.source) {
            (FrameType::SendPacket, Some((key, _))) => {
                let Some(to) = rewrite::send_to_recv(&mut buf[range.clone()], &key) else {
                    return Err(CloseReason::Malformed(DerpError::Short(kind)));
                };
                if !reading.limited || self.may_send(reading.now, reading.id) {
                    self.extend_run(reading, to, buf, range, sink);
                }
                Ok(())
            }
            (FrameType::ForwardPacket, Some(_)) => {
                self.finish_run(reading, buf, sink);
                self.forward(reading.now, reading.id, &mut buf[range], sink)
            }
            _ => {
                self.finish_run(reading, buf, sink);
                let payload = &buf[range.start + HEADER_LEN..range.end];
                self.other(reading.now, reading.id, kind, payload)?;
                reading.source = self.source(reading.id);
                reading.limited = self.is_limited(reading.id);
                Ok(())
            }
        }
    }

    /// Adds the RecvPacket frame at `range` to the run, or starts another one with it.
    fn extend_run(
        &mut self,
        reading: &mut Reading,
        to: NodePublic,
        buf: &[u8],
        range: Range<usize>,
        sink: &mut impl Sink,
    ) {
        if reading.run.packets == 0 || reading.run.key != to || reading.run.range.end != range.start {
            self.finish_run(reading, buf, sink);
            let Some(way) = self.directory.way(&to) else {
                let packet = &buf[range.start + rewrite::PREFIX_LEN..range.end];
                return self.undeliverable(reading.now, reading.id, &to, packet);
            };
            reading.run = Run { to: Some(way), key: to, range: range.start..range.start, packets: 0 };
        }
        reading.run.range.end = range.end;
        reading.run.packets += 1;
    }

    /// Delivers what was gathered so far.
    fn finish_run(&mut self, reading: &mut Reading, buf: &[u8], sink: &mut impl Sink) {
        let run = std::mem::take(&mut reading.run);
        let (Some(to), Some((source, _))) = (run.to, reading.source) else { return };
        match to {
            Way::Here(to) => {
                self.heard(reading.id, &source, to);
                self.deliver(reading.now, reading.id, &source, to, &buf[run.range], sink);
            }
            Way::By(link) => {
                self.pass_on(reading.now, reading.id, (&source, &run.key), link, &buf[run.range], sink);
            }
        }
    }

    /// Key and mesh right of a logged-in connection.
    fn source(&self, id: ConnId) -> Option<(NodePublic, bool)> {
        self.session(id)?.peer.as_ref().map(|peer| (peer.key, peer.mesh))
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
        let Some(source) = NodePublic::from_prefix(&frame[start + HEADER_LEN..]) else { return Ok(()) };
        match self.directory.active(&to) {
            Some(active) => {
                let Self { directory, sessions, .. } = self;
                let alive =
                    |id: ConnId| sessions.get(id.slot()).is_some_and(|s| s.generation == id.generation);
                directory.heard(&source, active, alive);
                self.deliver(now, id, &source, active, &frame[start..], sink);
            }
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
                    let before = std::mem::replace(&mut peer.preferred, home);
                    self.counters.at_home += u64::from(home);
                    self.counters.at_home -= u64::from(before);
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
        let fits = self.session(id).is_some_and(|session| session.outbox.len() < MAX_ANSWERS);
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
