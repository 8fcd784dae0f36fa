//! What the router remembers of one connection.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use wire::keys::NodePublic;

use super::ConnId;
use super::limits::Bucket;
use super::link::Link;
use super::outbox::Outbox;
use super::websocket::WebSocket;

pub(super) struct Session {
    pub(super) generation: u32,
    pub(super) remote: SocketAddr,
    /// `None` until the login is complete.
    pub(super) peer: Option<Peer>,
    /// Set if this is a connection to another relay, on which we are the client.
    pub(super) link: Option<Box<Link>>,
    /// Set if frames travel inside WebSocket messages.
    pub(super) websocket: Option<Box<WebSocket>>,
    /// A frame that is not complete yet.
    pub(super) partial: Vec<u8>,
    /// Length the partial frame will have, as far as its header is known.
    pub(super) partial_needs: usize,
    /// Bytes of an unknown frame that are still to come.
    pub(super) skip: usize,
    pub(super) outbox: Outbox,
    /// Set while this sender waits for a destination.
    pub(super) paused: Option<Pause>,
    /// Set while this sender waits because it was too fast.
    pub(super) throttled: bool,
    /// Control frames were queued in the present call.
    pub(super) dirty: bool,
    /// A stall timer is running.
    pub(super) watched: bool,
}

impl Session {
    /// Bytes that belong in front of what is read next.
    pub(super) fn kept(&self) -> usize {
        self.partial.len() + self.websocket.as_ref().map_or(0, |websocket| websocket.tail.len())
    }
}

/// Why and how long a connection is not read from.
#[derive(Clone, Copy)]
pub(super) struct Pause {
    pub(super) waits_for: ConnId,
    pub(super) until: Instant,
}

/// A logged-in client.
pub(super) struct Peer {
    pub(super) key: NodePublic,
    /// It knows the mesh key.
    pub(super) mesh: bool,
    pub(super) prober: bool,
    pub(super) watching: bool,
    /// It calls this relay its home.
    pub(super) preferred: bool,
    /// The connection that last heard from this one, to ask the directory less often.
    pub(super) last_heard_by: Option<ConnId>,
    /// Time between two KeepAlive frames.
    pub(super) keepalive: Duration,
    /// Limits answers to packets for unknown keys.
    pub(super) gone_limit: Bucket,
    /// Limits the bytes it sends, if anything does.
    pub(super) rate: Option<Bucket>,
    /// Set while its key is not announced although it should be: limits its packets.
    pub(super) unannounced: Option<Bucket>,
}
