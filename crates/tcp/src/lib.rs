//! One TCP connection (RFC 9293), without sockets, packets of other layers or a clock of its own.
#![forbid(unsafe_code)]

pub mod congestion;
