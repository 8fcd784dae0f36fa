//! The formats against recorded vectors, in both directions, and against bytes that mean nothing.

#![allow(clippy::unwrap_used, missing_docs)]

mod vectors;

mod derp_frames;
mod derp_login;
mod derp_rewrite;
mod derpmap;
mod disco;
mod ip;
mod keys;
mod stun;
mod ws;
