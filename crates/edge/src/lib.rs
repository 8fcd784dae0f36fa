//! The edge: everything of a server that faces the network.
//!
//! It owns the listening sockets. Relay clients (DERP) are taken out of HTTP and served by a thread of their own; STUN
//! requests are answered; requests for apps of workspaces go through tunnels that others have; all other HTTP goes to the
//! application behind a Unix socket, bodies and upgrades as streams.
//!
//! Two threads: one runs a small event loop for HTTP and STUN, the other the relay's router over plain sockets. A
//! connection that upgrades to DERP moves from the first to the second with its file descriptor. No rule of the relay
//! protocol is here (see the `relay` crate), and no decision about users: those are the application's.

#![forbid(unsafe_code)]

mod apps;
mod certificates;
mod config;
mod counters;
mod descriptors;
mod edge;
mod error;
mod front;
mod mesh;
mod relay_thread;
#[cfg(test)]
mod sample;
mod seats;
mod stun;
mod tls;

pub use apps::{AppSettings, Dial, DialError, DialReply};
pub use config::{BodyLimits, Config, Network};
pub use counters::Counters;
pub use edge::Edge;
pub use error::EdgeError;
pub use mesh::{MeshPeer, MeshPeerError, MeshTrust};
pub use relay_thread::Unannounced;
pub use tls::{TlsFiles, pin, self_signed};
