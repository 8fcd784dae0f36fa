//! One TCP connection (RFC 9293), without sockets, packets of other layers or a clock of its own.
//!
//! A [`Connection`] takes segments in with [`Connection::arrives`] and gives segments out with [`Connection::poll`]; time
//! is an argument everywhere. Its two halves know nothing of each other: the receiver reassembles, offers a window that
//! grows with the application's appetite and decides when to acknowledge; the sender keeps a scoreboard of what is on its
//! way (RFC 6675), finds losses by time (RACK-TLP, RFC 8985), takes mistakes back (RFC 5682, RFC 2883) and leaves the
//! window and the pace to a [`congestion::Controller`].
//!
//! Inside, sequence numbers are positions of 64 bits that never wrap; they become 32 bits when a header is written.
//! There are no timestamps: the tunnel's replay window already keeps old segments out.
#![forbid(unsafe_code)]

pub mod congestion;

mod arrive;
mod board;
mod chunks;
mod config;
mod connection;
mod emit;
mod pacer;
mod prr;
mod rack;
mod ranges;
mod rate;
mod receiver;
mod recovery;
mod rtt;
mod segment;
mod sender;
mod state;
mod timers;

pub use config::Config;
pub use connection::Connection;
pub use segment::{ACK, FIN, HEADER_LEN, PSH, RST, SYN, Segment};
pub use state::{End, State, Stats};
