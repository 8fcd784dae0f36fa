//! Every format of the data plane as values: keys, STUN, disco, DERP frames, WebSocket framing, IPv6 and TSMP, the DERP map.
//!
//! Bytes go in and typed values come out, or the other way round. Nothing here holds a socket, a clock or a task;
//! the only randomness is in [`keys`], where new keys and nonces are made. Whatever comes from the network may be
//! arbitrary: parsing refuses with a small typed error and never panics or allocates by a length the peer merely claims.

#![forbid(unsafe_code)]

pub mod derp;
pub mod derpmap;
pub mod disco;
pub mod ip;
pub mod keys;
pub mod stun;
pub mod ws;

mod addr;
