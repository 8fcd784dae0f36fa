//! How we speak disco: our keys, nonces, and the queue of outputs.

use std::collections::VecDeque;
use std::net::SocketAddr;

use wire::disco::{self, Message};
use wire::keys::{DiscoPrivate, DiscoPublic, NodePublic, SharedBox};

use crate::chance::Chance;
use crate::config::Config;
use crate::output::{Output, Path, Socket};

pub(crate) struct Voice {
    private: DiscoPrivate,
    public: DiscoPublic,
    /// Our node key.
    pub(crate) node: NodePublic,
    pub(crate) chance: Chance,
    pub(crate) out: VecDeque<Output>,
}

impl Voice {
    pub(crate) fn new(config: Config) -> Self {
        let public = config.disco.public();
        let chance = Chance::new(config.seed, &public);
        Self { private: config.disco, public, node: config.node, chance, out: VecDeque::new() }
    }

    /// The box with a peer's key; one scalar multiplication.
    pub(crate) fn share(&self, peer: &DiscoPublic) -> SharedBox {
        SharedBox::new(&self.private, peer)
    }

    /// Seals a message and queues it for `peer`, by `path`, from `socket` if that is a direct one.
    pub(crate) fn say(
        &mut self,
        shared: &SharedBox,
        peer: NodePublic,
        path: Path,
        socket: Socket,
        message: &Message,
    ) {
        let bytes = disco::seal(&self.public, shared, self.chance.bytes(), message);
        self.out.push_back(match path {
            Path::Direct(to) => Output::Udp { to, bytes, socket },
            Path::Relay(region) => Output::Relay { region, to: peer, bytes },
        });
    }
}

/// The source a pong names for a ping that came by `path`.
pub(crate) fn source_of(path: Path) -> SocketAddr {
    match path {
        Path::Direct(from) => from,
        Path::Relay(region) => SocketAddr::new(crate::endpoints::RELAY_PSEUDO_ADDRESS.into(), region),
    }
}
