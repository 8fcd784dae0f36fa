//! Shell: the data thread, its sockets, timers and loop. It joins `tunnel`, `paths`, `relay`, `netstack` and
//! `speedtest`, and holds no rule of theirs.
//!
//! An [`Engine`] is one thread that carries any number of nodes. Everything is asked of it through commands and told by
//! it through events; requests have names, so that a binding can turn them into awaitables and cancel them.

mod callers;
mod command;
mod data_thread;
mod datagrams;
mod dialling;
mod engine;
mod events;
mod interfaces;
mod link;
mod local;
mod outlet;
mod pings;
mod reactor;
mod relays;
mod sleep;
mod streams;
mod udp;

pub use dial::{Identity, ProxyRules, ProxySettings, TrustRoots};

pub use command::{DatagramCounts, NodeSettings, Peer, PortUse, Request, Stats};
pub use engine::{Engine, NodeKeys};
pub use events::{Answer, Event, Events, Failure, NodeId, Reply, RequestId};
