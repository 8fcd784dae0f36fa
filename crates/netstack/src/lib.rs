//! Userspace TCP, UDP, ICMPv6 echo and TSMP of one node, over IPv6 packets. Sans-IO.
//!
//! A [`Stack`] takes decrypted packets in with [`Stack::inject`] and gives packets out through a [`Sink`] in
//! [`Stack::poll`]; time is an argument everywhere. A single TCP connection is the business of the `tcp` crate; everything
//! around it is here: finding the connection, connections held until somebody wants them, timers, events. The work for a
//! packet does not depend on how many connections there are.
//!
//! A packet's way out: from the sender's buffer it is written and summed where the sink wants it, one copy. A
//! packet's way in: parsed where it lies, copied once into the receive buffer of its connection. Nothing is merged on
//! arrival: injecting a batch before polling is what saves acknowledgements, and merging would cost a copy.
#![forbid(unsafe_code)]

mod config;
mod connection;
mod event;
mod flows;
mod format;
mod held;
mod messages;
mod output;
mod stack;
mod tcp_in;
mod timers;

pub use config::Config;
pub use event::{Counters, Event, Flow, SendError};
pub use output::Sink;
pub use stack::Stack;
pub use tcp::Stats as FlowStats;
pub use tcp::congestion::Congestion;
