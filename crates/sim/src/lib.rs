//! Tests only: a simulated network under a virtual clock.
//!
//! A [`Network`] holds hosts, each behind a [`Nat`] of some kind, and carries two sorts of things between them: datagrams,
//! which NATs translate and filter and links delay, lose or block, and relayed packets, which arrive by a reliable
//! connection of their own delay. It knows nothing of the protocols spoken over it: payloads are bytes, and what a host
//! does with them is the test's. A [`Bottleneck`] is one direction of a single path, packet by packet: rate, queue, delay,
//! loss. Chance comes from one seed, so every run is the same.

#![forbid(unsafe_code)]

mod bottleneck;
mod nat;
mod network;

pub use bottleneck::{Bottleneck, Shape};
pub use nat::{Kind, Nat};
pub use network::{Arrival, Host, Link, Network};
