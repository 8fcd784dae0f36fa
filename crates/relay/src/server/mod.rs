//! A relay: its connections, and the router between them.
//!
//! The shell owns the sockets and one read buffer of [`READ_BUFFER`] bytes for all of them, and does this:
//!
//! * new stream: [`Router::accept`], then [`Router::feed`] with whatever was read too far;
//! * readable: read at most [`READ_AT_ONCE`] bytes to `buffer[router.kept(id)..]`, then [`Router::feed`];
//! * end of stream or a socket error: [`Router::disconnected`];
//! * writable: [`Router::writable`];
//! * at [`Router::next_timeout`]: [`Router::handle_timeout`];
//! * after each of these: obey [`Router::poll`] until it is empty.
//!
//! SendPacket and RecvPacket have the same length, so a packet is turned from one into the other where it lies in the
//! read buffer, and neighbours for the same destination leave with one write from there. Only what the destination's
//! socket does not take is copied, to a bounded queue, in which each source has its own flow; flows take turns. A sender
//! that fills its share is not read from for up to [`PAUSE`]; if it is still full then, that flow's packets are dropped
//! at its tail until it has drained by half. Control frames and disco packets go ahead of all that waits. A connection
//! holds no read buffer, only the beginning of an unfinished frame.

mod admission;
mod counters;
mod delivery;
mod directory;
mod intake;
mod limits;
mod link;
mod login;
mod outbox;
mod seam;
mod session;
mod timers;
mod websocket;

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use slab::Slab;
use wire::derp::{HEADER_LEN, PeerGoneReason, encode};
use wire::keys::{NodePrivate, NodePublic};

pub use admission::{ANNOUNCE_TIMEOUT, TRICKLE};
pub use counters::{Counters, Dropped};
use directory::Directory;
pub use limits::RateLimit;
use outbox::{Memory, Outbox};
pub use seam::{CloseReason, Request, Sink, Transport, Written};
use session::Session;
use timers::{Timer, Timers};
use websocket::WebSocket;

use crate::MeshKey;

/// Most bytes the shell reads from one connection before it turns to the next.
pub const READ_AT_ONCE: usize = 256 * 1024;
/// Size of the read buffer: the largest frame that must be whole (a ClientInfo), and room to read on behind it.
pub const READ_BUFFER: usize = 256 * 1024 + READ_AT_ONCE + 64 * 1024;
/// Bytes a destination's packets may have in its queue before their senders wait; those of several sources share it.
pub const QUEUE_FULL: usize = 768 * 1024;
/// Bytes of one source below which its senders go on, if it is the only one.
pub const QUEUE_SHORT: usize = QUEUE_FULL / 2;
/// What a source may always have waiting, however many share the queue: any frame fits.
pub const FLOW_LEAST: usize = 72 * 1024;
/// Bytes of a queue up to which a source may overshoot its share before it waits.
pub const QUEUE_SOON: usize = 2 * QUEUE_FULL;
/// Bytes no queue of packets exceeds, however many flood it.
pub const QUEUE_LIMIT: usize = 8 * 1024 * 1024;
/// Bytes of one source that are written in its turn, when several share a queue.
pub const PIECE: usize = 16 * 1024;
/// Bytes that may go ahead of all packets; above it disco packets are dropped.
pub const URGENT_LIMIT: usize = 256 * 1024;
/// Bytes of all queues together above which packets are dropped.
pub const QUEUES_LIMIT: usize = 512 * 1024 * 1024;
/// A connection with more control frames than this waiting is given up.
pub const CONTROL_LIMIT: usize = 8 * 1024 * 1024;
/// Longest time a sender waits for one destination.
pub const PAUSE: Duration = Duration::from_millis(50);
/// Time for ClientInfo to arrive.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// A blocked socket that takes nothing for this long is closed.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two KeepAlive frames, to which each connection adds its own part of [`KEEPALIVE_SPREAD`].
pub const KEEPALIVE: Duration = Duration::from_secs(60);
/// See [`KEEPALIVE`].
pub const KEEPALIVE_SPREAD: Duration = Duration::from_secs(5);

/// Answers to a client about packets for unknown keys.
const LOST_ANSWERS: RateLimit = RateLimit { per_second: 1, burst: 3 };

/// Names a connection; never reused for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    slot: u32,
    generation: u32,
}

impl ConnId {
    /// A small number, unique among the open connections: an index for the shell's own table.
    pub fn slot(self) -> usize {
        self.slot as usize
    }

    /// The name as one number, for instance to mark events of a poller.
    pub fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    /// The reverse of [`ConnId::to_u64`].
    pub fn from_u64(number: u64) -> Self {
        Self { slot: number as u32, generation: (number >> 32) as u32 }
    }
}

/// The relay. See the module's text for how to drive it.
pub struct Router {
    key: NodePrivate,
    public: NodePublic,
    mesh_key: Option<MeshKey>,
    nonces: Box<dyn FnMut() -> [u8; 24] + Send>,
    sessions: Slab<Session>,
    next_generation: u32,
    directory: Directory,
    watchers: BTreeSet<ConnId>,
    memory: Memory,
    timers: Timers,
    dirty: Vec<ConnId>,
    requests: VecDeque<Request>,
    counters: Counters,
    /// Keys that may stay; all may if `None`.
    announced: Option<HashSet<NodePublic>>,
    rate_limit: Option<RateLimit>,
    scratch: Vec<u8>,
}

impl Router {
    /// A relay with this key pair. `nonces` must never repeat a value: [`wire::keys::random_nonce`], except in tests.
    pub fn new(
        key: NodePrivate,
        mesh_key: Option<MeshKey>,
        nonces: impl FnMut() -> [u8; 24] + Send + 'static,
    ) -> Self {
        Self {
            public: key.public(),
            key,
            mesh_key,
            nonces: Box::new(nonces),
            sessions: Slab::new(),
            next_generation: 0,
            directory: Directory::default(),
            watchers: BTreeSet::new(),
            memory: Memory::default(),
            timers: Timers::default(),
            dirty: Vec::new(),
            requests: VecDeque::new(),
            counters: Counters::default(),
            announced: None,
            rate_limit: None,
            scratch: Vec::new(),
        }
    }

    /// Takes over a stream. `preface` is written as it is (an HTTP answer), the greeting follows in the same write.
    ///
    /// The caller makes the socket known to its [`Sink`], then calls [`Router::feed`], with or without bytes.
    pub fn accept(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        transport: Transport,
        preface: &[u8],
    ) -> ConnId {
        let id = self.insert(remote, transport);
        self.timers.set(now + LOGIN_TIMEOUT, id, Timer::Login);
        if let Some(session) = self.sessions.get_mut(id.slot()) {
            session.outbox.push(preface, &mut self.memory);
        }
        let mut greeting = Vec::with_capacity(64);
        encode::server_key(&mut greeting, &self.public);
        self.control(id, &greeting);
        id
    }

    fn insert(&mut self, remote: SocketAddr, transport: Transport) -> ConnId {
        let generation = self.next_generation;
        self.next_generation = self.next_generation.wrapping_add(1);
        let slot = self.sessions.insert(Session {
            generation,
            remote,
            peer: None,
            link: None,
            websocket: (transport == Transport::WebSocket).then(WebSocket::new),
            partial: Vec::new(),
            partial_needs: HEADER_LEN,
            skip: 0,
            outbox: Outbox::default(),
            paused: None,
            throttled: false,
            dirty: false,
            watched: false,
        });
        ConnId { slot: slot as u32, generation }
    }

    /// Bytes the router keeps of an unfinished frame: read behind as many, they will be put in front.
    pub fn kept(&self, id: ConnId) -> usize {
        self.session(id).map_or(0, Session::kept)
    }

    /// The other side ended the stream, or reading failed.
    pub fn disconnected(&mut self, now: Instant, id: ConnId, sink: &mut impl Sink) {
        self.close(id, CloseReason::Disconnected);
        self.flush_dirty(now, sink);
    }

    /// When [`Router::handle_timeout`] wants to be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant, sink: &mut impl Sink) {
        while let Some((id, timer)) = self.timers.pop_due(now) {
            match timer {
                Timer::Login => self.login_due(id),
                Timer::KeepAlive => self.keep_alive(now, id),
                Timer::Resume => self.resume_due(now, id),
                Timer::Refill => self.refill_due(id),
                Timer::Announce => self.announce_due(id),
                Timer::Silence => self.silence_due(now, id),
                Timer::Stall => self.stall_due(now, id),
            }
        }
        self.flush_dirty(now, sink);
    }

    /// The next thing the shell must do.
    pub fn poll(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        Counters { queued_bytes: self.memory.queued() as u64, ..self.counters }
    }

    /// The relay's own key.
    pub fn public_key(&self) -> NodePublic {
        self.public
    }

    fn session(&self, id: ConnId) -> Option<&Session> {
        self.sessions.get(id.slot()).filter(|session| session.generation == id.generation)
    }

    fn session_mut(&mut self, id: ConnId) -> Option<&mut Session> {
        self.sessions.get_mut(id.slot()).filter(|session| session.generation == id.generation)
    }

    /// Queues a control frame; it leaves at the end of the present call.
    fn control(&mut self, id: ConnId, frame: &[u8]) {
        let Some(session) = self.sessions.get_mut(id.slot()).filter(|s| s.generation == id.generation) else {
            return;
        };
        delivery::push_message(session, frame, &mut self.memory);
        if !session.dirty {
            session.dirty = true;
            self.dirty.push(id);
        }
    }

    fn keep_alive(&mut self, now: Instant, id: ConnId) {
        let Some(interval) = self.session(id).and_then(|s| s.peer.as_ref()).map(|peer| peer.keepalive) else {
            return;
        };
        self.timers.set(now + interval, id, Timer::KeepAlive);
        let mut frame = Vec::with_capacity(HEADER_LEN);
        encode::keep_alive(&mut frame);
        self.control(id, &frame);
    }

    /// Forgets a connection and tells those who must know.
    fn close(&mut self, id: ConnId, reason: CloseReason) {
        if self.session(id).is_none() {
            return;
        }
        let mut session = self.sessions.remove(id.slot());
        let waiting = session.outbox.release(&mut self.memory);
        self.requests.push_back(Request::Close { id, reason });
        match reason {
            CloseReason::Refused(_) | CloseReason::LoginTimeout => self.counters.refused += 1,
            CloseReason::Malformed(_) | CloseReason::WebSocket(_) | CloseReason::NotPermitted => {
                self.counters.malformed += 1
            }
            CloseReason::Stalled => self.counters.stalled += 1,
            CloseReason::Unannounced => self.counters.unannounced += 1,
            CloseReason::Broken
            | CloseReason::Disconnected
            | CloseReason::ByMesh
            | CloseReason::Itself
            | CloseReason::Link(_) => {}
        }
        for waiting in waiting {
            self.resume(waiting, id);
        }
        if let Some(link) = session.link {
            self.link_closed(id, &link);
        }
        let Some(peer) = session.peer else { return };
        self.counters.clients -= 1;
        self.counters.at_home -= u64::from(peer.preferred);
        self.watchers.remove(&id);
        let gone = self.directory.remove(&peer.key, id);
        let mut frame = Vec::with_capacity(64);
        encode::peer_gone(&mut frame, &peer.key, PeerGoneReason::Disconnected);
        if gone.from_here {
            for listener in self.watchers.clone() {
                self.control(listener, &frame);
            }
        }
        for listener in gone.heard_by {
            self.control(listener, &frame);
        }
    }
}
