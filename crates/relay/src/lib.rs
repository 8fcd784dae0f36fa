//! DERP sessions over a byte stream that somebody else opened: the client's side, and the server with its router.
//!
//! Both sides are plain objects. Bytes and the time go in; bytes, events and requests come out. Neither holds a
//! socket, a thread or a clock, so every test here is a conversation and every deadline is exact.
//!
//! * [`ClientSession`] is what a node speaks once it is connected to a relay.
//! * [`Router`] is a whole relay: all its connections, who is reachable by which key, and what is still to be
//!   written to whom. `server` tells how a shell drives it.
//!
//! How the stream comes to be (TCP, TLS, HTTP upgrade, fast start) is not known here; that a server's stream may be
//! wrapped in WebSocket messages is, because frames are unwrapped in place.

#![forbid(unsafe_code)]

mod client;
mod mesh_key;
pub mod server;

pub use client::{ClientError, ClientOptions, ClientSession, Event};
pub use mesh_key::MeshKey;
pub use server::{ConnId, Router};
