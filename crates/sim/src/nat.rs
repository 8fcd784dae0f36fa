//! Address translation, by how a NAT maps and how it filters (RFC 4787).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

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

/// The state of one NAT, with one host behind it.
#[derive(Debug)]
pub struct Nat {
    kind: Kind,
    outside: IpAddr,
    inside: SocketAddr,
    next_port: u16,
    /// Outside ports, by destination for a symmetric NAT, else under `None`.
    mappings: BTreeMap<Option<SocketAddr>, u16>,
    /// Destinations each outside port sent to.
    sent: BTreeMap<u16, Vec<SocketAddr>>,
}

impl Nat {
    /// A NAT with the public address `outside` in front of the socket `inside`.
    pub fn new(kind: Kind, inside: SocketAddr, outside: IpAddr) -> Self {
        Self { kind, outside, inside, next_port: 20_000, mappings: BTreeMap::new(), sent: BTreeMap::new() }
    }

    /// Translates the source of a datagram to `to`; notes that it was sent.
    pub fn outbound(&mut self, to: SocketAddr) -> SocketAddr {
        let source = match self.kind {
            Kind::Open | Kind::Firewall => self.inside,
            _ => {
                let key = (self.kind == Kind::Symmetric).then_some(to);
                let next = &mut self.next_port;
                let port = *self.mappings.entry(key).or_insert_with(|| {
                    *next += 1;
                    *next
                });
                SocketAddr::new(self.outside, port)
            }
        };
        let sent = self.sent.entry(source.port()).or_default();
        if !sent.contains(&to) {
            sent.push(to);
        }
        source
    }

    /// Whether a datagram from `from` to the public `to` gets in.
    pub fn admits(&self, from: SocketAddr, to: SocketAddr) -> bool {
        let Some(sent) = self.sent.get(&to.port()) else { return self.kind == Kind::Open };
        match self.kind {
            Kind::Open | Kind::FullCone => true,
            Kind::AddressRestricted => sent.iter().any(|known| known.ip() == from.ip()),
            Kind::Firewall | Kind::PortRestricted | Kind::Symmetric => sent.contains(&from),
        }
    }

    /// Forgets all mappings, as after a restart or a long silence; new ones get other ports.
    pub fn reboot(&mut self) {
        self.mappings.clear();
        self.sent.clear();
    }
}
