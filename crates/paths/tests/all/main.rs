//! Path choice, driven as a shell would drive it: alone with exact deadlines, and in a simulated network.
#![allow(clippy::unwrap_used)]

mod alone;
mod birthday;
mod checks;
mod dark;
mod facts;
mod flow;
mod nats;
mod peers;
mod random;
mod underlay;
mod vectors;
mod world;
