//! WireGuard sessions of one node, sans-IO: which peers there are, which addresses each may use, and the bytes that go
//! to and come from them. Noise, timers and the replay window are `gotatun`'s; this crate is *not* a WireGuard
//! implementation and knows no endpoints: where a datagram goes is the `paths` crate's business.
//!
//! The owner feeds [`Tunnel::encapsulate`] and [`Tunnel::handle`], calls [`Tunnel::tick`] when [`Tunnel::next_tick`] is
//! due, and sends what they hand to the callback. `gotatun` reads the monotonic clock itself, so `now` must be close to it.
#![forbid(unsafe_code)]

mod peers;
mod sessions;

pub use peers::{Decrypted, PeerConfig, PeerId};
pub use sessions::{Counters, Refused, Tunnel};

/// Largest IP packet inside the tunnel.
pub const MTU: usize = 1280;
/// Bytes that WireGuard adds to a packet: header 16, tag 16.
pub const OVERHEAD: usize = 32;
