//! What passes between the router and the shell that owns the sockets.

use std::io::IoSlice;
use std::net::SocketAddr;

use wire::derp::DerpError;
use wire::derp::login::LoginError;
use wire::keys::NodePublic;
use wire::ws::WsError;

use super::ConnId;
use crate::ClientError;

/// How frames travel on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// As they are.
    Plain,
    /// In binary messages of a WebSocket, whose handshake is done.
    WebSocket,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The socket took this many bytes; if not all, it is full.
    Taken(usize),
    /// The connection is broken.
    Broken,
}

/// The sockets, as far as the router needs them.
pub trait Sink {
    /// Writes as much of `parts` as the socket takes now.
    fn write(&mut self, to: ConnId, parts: &[IoSlice<'_>]) -> Written;
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The login was not acceptable.
    Refused(LoginError),
    /// A frame broke the protocol.
    Malformed(DerpError),
    /// A message broke the WebSocket protocol around the frames.
    WebSocket(WsError),
    /// A frame that only mesh peers may send.
    NotPermitted,
    /// No ClientInfo within [`LOGIN_TIMEOUT`](super::LOGIN_TIMEOUT).
    LoginTimeout,
    /// Nothing could be written for [`WRITE_TIMEOUT`](super::WRITE_TIMEOUT), or far too much was waiting.
    Stalled,
    /// A write failed.
    Broken,
    /// The other side ended the stream.
    Disconnected,
    /// A mesh peer demanded it.
    ByMesh,
    /// The key was not announced within [`ANNOUNCE_TIMEOUT`](super::ANNOUNCE_TIMEOUT).
    Unannounced,
    /// A link reached this relay itself: dialling again is of no use.
    Itself,
    /// The other relay broke the protocol, or went silent.
    Link(ClientError),
}

/// What the shell must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// From now on, watch the socket for these.
    Interest {
        /// Which connection.
        id: ConnId,
        /// Read from it when it is readable.
        read: bool,
        /// Call [`Router::writable`](super::Router::writable) when it is writable.
        write: bool,
    },
    /// Somebody with a key that is not announced has logged in; [`Router::announce`](super::Router::announce) lets it stay.
    Unannounced {
        /// Its key.
        key: NodePublic,
        /// Where it connects from.
        remote: SocketAddr,
    },
    /// The router has forgotten this connection: close its socket.
    Close {
        /// Which connection.
        id: ConnId,
        /// Why.
        reason: CloseReason,
    },
}
