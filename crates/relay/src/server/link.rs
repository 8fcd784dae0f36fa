//! The mesh: connections to the other relays of the region, on which this relay is the client.
//!
//! The other side tells over a link which keys are connected to it; packets for those leave as ForwardPacket frames. What
//! comes in by ForwardPacket is delivered here or nowhere, so nothing can go in circles, and the mesh must be full.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use slab::Slab;
use wire::derp::{PeerGoneReason, encode};
use wire::keys::NodePublic;

use super::delivery::Frames;
use super::session::Session;
use super::timers::Timer;
use super::{CloseReason, ConnId, LOGIN_TIMEOUT, Router, Sink, Transport};
use crate::client::{ClientError, ClientOptions, ClientSession, Event};

/// Keys one relay may announce; more are ignored.
const MOST_KEYS: usize = 1 << 20;

/// The client's side of a link.
pub(super) struct Link {
    session: ClientSession,
    /// What the other relay said is connected to it.
    keys: BTreeSet<NodePublic>,
}

enum Change {
    Here(NodePublic),
    Gone(NodePublic),
    Ready,
}

impl Router {
    /// Takes over a stream to another relay of the region, on which that relay's greeting comes next.
    ///
    /// Needs the mesh key. From then on the connection is one like the others.
    pub fn link(&mut self, now: Instant, remote: SocketAddr) -> ConnId {
        let id = self.insert(remote, Transport::Plain);
        let options =
            ClientOptions { mesh_key: self.mesh_key.clone(), watch: true, ..ClientOptions::default() };
        let session = ClientSession::new(now, self.key.clone(), options);
        if let Some(entry) = self.session_mut(id) {
            entry.link = Some(Box::new(Link { session, keys: BTreeSet::new() }));
        }
        self.timers.set(now + LOGIN_TIMEOUT, id, Timer::Login);
        id
    }

    /// Takes in what the other relay sent.
    pub(super) fn take_in_link(
        &mut self,
        now: Instant,
        id: ConnId,
        bytes: &mut [u8],
    ) -> Result<(), CloseReason> {
        let Some(link) = self.session_mut(id).and_then(|session| session.link.as_mut()) else {
            return Ok(());
        };
        let (mut out, mut changes) = (Vec::new(), Vec::new());
        let outcome = link.session.feed(now, bytes, &mut out, &mut |event| match event {
            Event::PeerPresent { peer } => changes.push(Change::Here(peer)),
            Event::PeerGone { peer, .. } => changes.push(Change::Gone(peer)),
            Event::Ready(_) => changes.push(Change::Ready),
            // Nobody sends packets to a relay itself, and its end is noticed anyway.
            Event::Packet { .. }
            | Event::KeepAlive
            | Event::Pong(_)
            | Event::Health(_)
            | Event::Restarting { .. } => {}
        });
        let own = link.session.server_key() == Some(self.public);
        if own {
            return Err(CloseReason::Itself);
        }
        if !out.is_empty() {
            self.control(id, &out);
        }
        for change in changes {
            match change {
                Change::Here(key) => self.reachable_by(id, key),
                Change::Gone(key) => self.unreachable_by(id, &key),
                Change::Ready => {
                    self.counters.links += 1;
                    if let Some(at) = self.link_timeout(id) {
                        self.timers.set(at, id, Timer::Silence);
                    }
                }
            }
        }
        outcome.map_err(CloseReason::Link)
    }

    pub(super) fn silence_due(&mut self, now: Instant, id: ConnId) {
        match self.link_timeout(id) {
            Some(due) if due <= now => self.close(id, CloseReason::Link(ClientError::Silent)),
            Some(due) => self.timers.set(due, id, Timer::Silence),
            None => {}
        }
    }

    fn link_timeout(&self, id: ConnId) -> Option<Instant> {
        Some(self.session(id)?.link.as_ref()?.session.next_timeout())
    }

    fn reachable_by(&mut self, id: ConnId, key: NodePublic) {
        let Some(link) = self.session_mut(id).and_then(|session| session.link.as_mut()) else { return };
        if link.keys.len() < MOST_KEYS && link.keys.insert(key) {
            self.directory.add_forwarder(key, id);
        }
    }

    fn unreachable_by(&mut self, id: ConnId, key: &NodePublic) {
        let Some(link) = self.session_mut(id).and_then(|session| session.link.as_mut()) else { return };
        if link.keys.remove(key) {
            self.lost_forwarder(key, id);
        }
    }

    fn lost_forwarder(&mut self, key: &NodePublic, id: ConnId) {
        let Some(heard_by) = self.directory.remove_forwarder(key, id) else { return };
        let mut frame = Vec::with_capacity(64);
        encode::peer_gone(&mut frame, key, PeerGoneReason::Disconnected);
        for listener in heard_by {
            self.control(listener, &frame);
        }
    }

    /// A link is closed: nothing is reachable by it any more.
    pub(super) fn link_closed(&mut self, id: ConnId, link: &Link) {
        self.counters.links -= u64::from(link.session.is_ready());
        for key in &link.keys {
            self.lost_forwarder(key, id);
        }
    }

    /// Passes a run of RecvPacket frames on to the relay that has `to`.
    pub(super) fn pass_on(
        &mut self,
        now: Instant,
        from: ConnId,
        (source, to): (&NodePublic, &NodePublic),
        link: ConnId,
        run: &[u8],
        sink: &mut impl Sink,
    ) {
        let mut frames = std::mem::take(&mut self.scratch);
        frames.clear();
        for frame in Frames(run) {
            let packet = frame.get(wire::derp::rewrite::PREFIX_LEN..).unwrap_or(&[]);
            encode::forward_packet(&mut frames, source, to, packet);
            self.counters.forwarded += 1;
        }
        self.deliver(now, from, source, link, &frames, sink);
        self.scratch = frames;
    }
}

/// Whether a link's login is complete; `None` if it is no link.
pub(super) fn is_ready(sessions: &Slab<Session>, id: ConnId) -> Option<bool> {
    let session = sessions.get(id.slot()).filter(|session| session.generation == id.generation)?;
    session.link.as_ref().map(|link| link.session.is_ready())
}

impl Router {
    /// Tells all clients that this relay is about to restart: each is to come back after `reconnect_in` and its own part of
    /// `spread`, and to try for `try_for`.
    pub fn restart(
        &mut self,
        now: Instant,
        [reconnect_in, spread, try_for]: [std::time::Duration; 3],
        sink: &mut impl Sink,
    ) {
        let clients: Vec<ConnId> = self.clients().collect();
        let count = clients.len().max(1) as u32;
        for (place, id) in (0u32..).zip(clients) {
            let mut frame = Vec::with_capacity(16);
            encode::restarting(&mut frame, reconnect_in + spread * place / count, try_for);
            self.control(id, &frame);
        }
        self.flush_dirty(now, sink);
    }

    /// Tells all clients of a problem; with an empty text, that it is over.
    pub fn health(&mut self, now: Instant, problem: &str, sink: &mut impl Sink) {
        let mut frame = Vec::with_capacity(64);
        encode::health(&mut frame, problem);
        let clients: Vec<ConnId> = self.clients().collect();
        for id in clients {
            self.control(id, &frame);
        }
        self.flush_dirty(now, sink);
    }

    /// Ends a link.
    pub fn unlink(&mut self, now: Instant, id: ConnId, sink: &mut impl Sink) {
        if is_ready(&self.sessions, id).is_some() {
            self.close(id, CloseReason::Disconnected);
            self.flush_dirty(now, sink);
        }
    }

    pub(super) fn clients(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.sessions
            .iter()
            .filter(|(_, session)| session.peer.is_some())
            .map(|(slot, session)| ConnId { slot: slot as u32, generation: session.generation })
    }
}
