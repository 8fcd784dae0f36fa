//! Address translation, by how a NAT maps and how it filters (RFC 4787).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// The first port a NAT gives out.
const FIRST_PORT: u16 = 1024;

/// What sits between a host and the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: the host has a public address.
    Open,
    /// Nothing, but a stateful firewall lets in only answers.
    Firewall,
    /// One mapping for all destinations; anyone may use it.
    FullCone,
    /// One mapping for all destinations; open to addresses (any port) that were sent to.
    AddressRestricted,
    /// One mapping for all destinations; open to exactly the address and port that were sent to.
    PortRestricted,
    /// Another mapping for every destination, open to that only.
    Symmetric,
}

/// The state of one NAT, with any number of hosts behind it. Ports outside are random.
#[derive(Debug)]
pub struct Nat {
    kind: Kind,
    outside: IpAddr,
    rng: ChaCha8Rng,
    /// Outside ports, by socket inside, and for a symmetric NAT by destination too.
    mappings: BTreeMap<(SocketAddr, Option<SocketAddr>), u16>,
    /// The socket inside behind each outside port.
    insides: BTreeMap<u16, SocketAddr>,
    /// Destinations each outside address sent to.
    sent: BTreeMap<SocketAddr, BTreeSet<SocketAddr>>,
}

impl Nat {
    /// A NAT with the public address `outside`.
    pub fn new(kind: Kind, outside: IpAddr, seed: u64) -> Self {
        Self {
            kind,
            outside,
            rng: ChaCha8Rng::seed_from_u64(seed),
            mappings: BTreeMap::new(),
            insides: BTreeMap::new(),
            sent: BTreeMap::new(),
        }
    }

    /// Its public address.
    pub fn outside(&self) -> IpAddr {
        self.outside
    }

    /// Whether hosts keep their own addresses.
    pub fn is_transparent(&self) -> bool {
        matches!(self.kind, Kind::Open | Kind::Firewall)
    }

    /// Translates the source of a datagram from `inside` to `to`; notes that it was sent.
    pub fn outbound(&mut self, inside: SocketAddr, to: SocketAddr) -> SocketAddr {
        let source = if self.is_transparent() {
            inside
        } else {
            let key = (inside, (self.kind == Kind::Symmetric).then_some(to));
            let port = match self.mappings.get(&key) {
                Some(port) => *port,
                None => self.map(key),
            };
            SocketAddr::new(self.outside, port)
        };
        self.sent.entry(source).or_default().insert(to);
        source
    }

    /// The socket inside that a datagram from `from` to the public `to` reaches, if it gets in.
    pub fn inbound(&self, from: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        let inside = if self.is_transparent() { to } else { *self.insides.get(&to.port())? };
        let mut sent = self.sent.get(&to).into_iter().flatten();
        let admitted = match self.kind {
            Kind::Open | Kind::FullCone => true,
            Kind::AddressRestricted => sent.any(|known| known.ip() == from.ip()),
            Kind::Firewall | Kind::PortRestricted | Kind::Symmetric => sent.any(|known| *known == from),
        };
        admitted.then_some(inside)
    }

    /// Forgets all mappings, as after a restart or a long silence; new ones get other ports.
    pub fn reboot(&mut self) {
        self.mappings.clear();
        self.insides.clear();
        self.sent.clear();
    }

    fn map(&mut self, key: (SocketAddr, Option<SocketAddr>)) -> u16 {
        loop {
            let port = u16::try_from(self.rng.next_u32() & 0xffff).unwrap_or(FIRST_PORT);
            if port >= FIRST_PORT && !self.insides.contains_key(&port) {
                self.insides.insert(port, key.0);
                self.mappings.insert(key, port);
                return port;
            }
        }
    }
}
