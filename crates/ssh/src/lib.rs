//! The SSH server of a workspace, and the client of the command line: sessions, processes, terminals, forwarding, over streams that are already authenticated.
//!
//! Whoever reaches these ports has proved by the tunnel who it is, so the server asks for no credentials; it must never be
//! given a stream from anywhere else. What runs, where and with what environment is the caller's [`Policy`].
#![forbid(unsafe_code)]

mod carrier;
pub mod client;
mod escape;
mod forward;
mod inlet;
mod listeners;
mod modes;
mod places;
mod policy;
mod process;
mod server;
mod session;
mod sftp;
mod signals;
pub mod stdio;
mod x11;

pub use policy::{Kind, Policy};
pub use server::{Notice, Server};
