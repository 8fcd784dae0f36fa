//! Userspace TCP, UDP, ICMPv6 echo and TSMP of one node, over IPv6 packets. Sans-IO.
//!
//! A [`Stack`] takes decrypted packets in with [`Stack::inject`] and gives packets out through a [`Sink`] in
//! [`Stack::poll`]; time is an argument everywhere. TCP is `smoltcp`'s, with one socket set for each connection, so that
//! the work for a packet does not depend on how many connections there are. Everything around it is here: finding the
//! connection, connections held until somebody wants them, timers, events.
//!
//! A packet's way out: from the sender's ring buffer it is written and summed where the sink wants it, one copy. A
//! packet's way in: parsed where it lies, copied once into the receive buffer of its connection. Nothing is merged on
//! arrival: injecting a batch before polling is what saves acknowledgements, and merging would cost a copy.
#![forbid(unsafe_code)]

mod config;
mod connection;
mod device;
mod event;
mod flows;
mod format;
mod held;
mod ip;
mod messages;
mod output;
mod stack;
mod tcp_in;
mod timers;

pub use config::Config;
pub use event::{Counters, Event, Flow, SendError};
pub use output::Sink;
pub use stack::Stack;
