//! Hosts, links and the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::nat::{Kind, Nat};

/// Names a host of a [`Network`].
pub type Host = usize;

/// How datagrams travel.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// One way.
    pub latency: Duration,
    /// Datagrams lost, of a thousand.
    pub loss_permille: u32,
    /// Nothing gets through.
    pub blocked: bool,
    /// Largest IP packet that gets through; larger ones vanish.
    pub mtu: usize,
}

impl Default for Link {
    fn default() -> Self {
        Self { latency: Duration::from_millis(10), loss_permille: 0, blocked: false, mtu: 1500 }
    }
}

/// Something that reached a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A datagram, with its source as the host sees it.
    Datagram {
        /// Receiver.
        host: Host,
        /// Which of its sockets, 0 for the first.
        socket: u16,
        /// Source after translation.
        from: SocketAddr,
        /// Payload.
        bytes: Vec<u8>,
    },
    /// A packet through a relay.
    Relayed {
        /// Receiver.
        host: Host,
        /// The relay's region.
        region: u16,
        /// Sender.
        from: Host,
        /// Payload.
        bytes: Vec<u8>,
    },
}

/// Port of a host's first socket.
const PORT: u16 = 41_641;
/// Ports of the others count from here.
const MORE_PORTS: u16 = 50_000;
/// Bytes of IPv4 and UDP headers.
const HEADERS: usize = 28;

#[derive(Debug)]
struct Place {
    inside: IpAddr,
    nat: usize,
    kind: Kind,
    blocked: bool,
}

/// The network and its clock.
#[derive(Debug)]
pub struct Network {
    now: Instant,
    started: Instant,
    rng: ChaCha8Rng,
    hosts: Vec<Place>,
    nats: Vec<Nat>,
    /// NATs that lead packets for their own public address back in.
    hairpins: BTreeSet<usize>,
    seed: u64,
    link: Link,
    links: BTreeMap<(Host, Host), Link>,
    relay_latency: Duration,
    relays_down: BTreeSet<u16>,
    /// By time, then by order of sending.
    flying: BTreeMap<(Instant, u64), Arrival>,
    sent: u64,
}

impl Network {
    /// An empty network. `start` is where its clock begins.
    pub fn new(start: Instant, seed: u64) -> Self {
        Self {
            now: start,
            started: start,
            rng: ChaCha8Rng::seed_from_u64(seed),
            hosts: Vec::new(),
            nats: Vec::new(),
            hairpins: BTreeSet::new(),
            seed,
            link: Link::default(),
            links: BTreeMap::new(),
            relay_latency: Duration::from_millis(20),
            relays_down: BTreeSet::new(),
            flying: BTreeMap::new(),
            sent: 0,
        }
    }

    /// The time now.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The time since the start.
    pub fn elapsed(&self) -> Duration {
        self.now - self.started
    }

    /// Adds a host behind a NAT of its own. An open or firewalled host's own address is public.
    pub fn add_host(&mut self, kind: Kind) -> Host {
        let number = u8::try_from(self.hosts.len() + 1).unwrap_or(u8::MAX);
        let outside = IpAddr::V4(Ipv4Addr::new(203, 0, 113, number));
        let private = IpAddr::V4(Ipv4Addr::new(10, 0, number, 2));
        let nat = self.add_nat(kind, outside);
        let inside = if self.nats[nat].is_transparent() { outside } else { private };
        self.hosts.push(Place { inside, nat, kind, blocked: false });
        self.hosts.len() - 1
    }

    /// Adds a host next to another: same NAT, same local network.
    pub fn add_neighbour(&mut self, host: Host) -> Host {
        let number = u8::try_from(self.hosts.len() + 1).unwrap_or(u8::MAX);
        let Place { inside, nat, kind, .. } = self.hosts[host];
        let inside = match inside {
            IpAddr::V4(v4) => {
                IpAddr::V4(Ipv4Addr::new(v4.octets()[0], v4.octets()[1], v4.octets()[2], number))
            }
            IpAddr::V6(v6) => IpAddr::V6(v6),
        };
        self.hosts.push(Place { inside, nat, kind, blocked: false });
        self.hosts.len() - 1
    }

    /// Whether a host's NAT leads packets for its own public address back in.
    pub fn set_hairpin(&mut self, host: Host, hairpin: bool) {
        let nat = self.hosts[host].nat;
        if hairpin {
            self.hairpins.insert(nat);
        } else {
            self.hairpins.remove(&nat);
        }
    }

    /// The address of a host's first socket as the host itself sees it.
    pub fn address(&self, host: Host) -> SocketAddr {
        SocketAddr::new(self.hosts[host].inside, PORT)
    }

    /// The public address in front of a host.
    pub fn outside(&self, host: Host) -> IpAddr {
        self.nats[self.hosts[host].nat].outside()
    }

    /// Moves a host to another network: new addresses outside and inside, a fresh NAT of the same kind.
    pub fn move_host(&mut self, host: Host) {
        let next = |ip: IpAddr| match ip {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                IpAddr::V4(Ipv4Addr::new(a, b, c.wrapping_add(100), d))
            }
            IpAddr::V6(v6) => IpAddr::V6(v6),
        };
        let outside = next(self.outside(host));
        let nat = self.add_nat(self.hosts[host].kind, outside);
        let place = &mut self.hosts[host];
        place.inside = next(place.inside);
        place.nat = nat;
    }

    /// The host's NAT forgets its mappings.
    pub fn reboot_nat(&mut self, host: Host) {
        self.nats[self.hosts[host].nat].reboot();
    }

    /// Whether a host's datagrams are all lost, in both directions.
    pub fn block_udp(&mut self, host: Host, blocked: bool) {
        self.hosts[host].blocked = blocked;
    }

    /// Sets how datagrams travel between two hosts, in both directions.
    pub fn set_link(&mut self, a: Host, b: Host, link: Link) {
        self.set_one_way(a, b, link);
        self.set_one_way(b, a, link);
    }

    /// Sets how datagrams travel from `from` to `to`.
    pub fn set_one_way(&mut self, from: Host, to: Host, link: Link) {
        self.links.insert((from, to), link);
    }

    /// Stops or starts a region's relay.
    pub fn set_relay(&mut self, region: u16, up: bool) {
        if up {
            self.relays_down.remove(&region);
        } else {
            self.relays_down.insert(region);
        }
    }

    /// Sends a datagram from the host's first socket. It is gone if no host is at `to`, or a NAT or link refuses it.
    pub fn send(&mut self, host: Host, to: SocketAddr, bytes: Vec<u8>) {
        self.send_by(host, 0, to, bytes);
    }

    /// Sends a datagram from one of the host's sockets.
    pub fn send_by(&mut self, host: Host, socket: u16, to: SocketAddr, bytes: Vec<u8>) {
        let own =
            SocketAddr::new(self.hosts[host].inside, if socket == 0 { PORT } else { MORE_PORTS + socket });
        let nat = self.hosts[host].nat;
        let (from, reached) = if self.is_beside(host, to) {
            (own, Some(to))
        } else {
            let from = self.nats[nat].outbound(own, to);
            (from, self.enter(nat, from, to))
        };
        let Some((receiver, socket)) = reached.and_then(|inside| self.find(inside)) else {
            return;
        };
        let link = self.links.get(&(host, receiver)).copied().unwrap_or(self.link);
        let lost = self.rng.next_u32() % 1000 < link.loss_permille || bytes.len() + HEADERS > link.mtu;
        if lost || link.blocked || self.hosts[host].blocked || self.hosts[receiver].blocked {
            return;
        }
        self.fly(link.latency, Arrival::Datagram { host: receiver, socket, from, bytes });
    }

    /// Sends a packet through a region's relay.
    pub fn send_relayed(&mut self, from: Host, region: u16, to: Host, bytes: Vec<u8>) {
        if !self.relays_down.contains(&region) {
            self.fly(self.relay_latency, Arrival::Relayed { host: to, region, from, bytes });
        }
    }

    /// The next arrival at or before `until`, the clock moved to it; else `None`, and the clock at `until`.
    pub fn next_arrival(&mut self, until: Instant) -> Option<Arrival> {
        match self.flying.first_entry() {
            Some(entry) if entry.key().0 <= until => {
                self.now = self.now.max(entry.key().0);
                Some(entry.remove())
            }
            _ => {
                self.now = self.now.max(until);
                None
            }
        }
    }

    fn fly(&mut self, latency: Duration, arrival: Arrival) {
        self.sent += 1;
        self.flying.insert((self.now + latency, self.sent), arrival);
    }

    fn add_nat(&mut self, kind: Kind, outside: IpAddr) -> usize {
        let seed = self.seed.wrapping_mul(1000).wrapping_add(self.nats.len() as u64);
        self.nats.push(Nat::new(kind, outside, seed));
        self.nats.len() - 1
    }

    /// Whether `to` is another host of the same local network.
    fn is_beside(&self, host: Host, to: SocketAddr) -> bool {
        let nat = self.hosts[host].nat;
        let mut others = self.hosts.iter().enumerate().filter(|(other, _)| *other != host);
        !self.nats[nat].is_transparent()
            && others.any(|(_, other)| other.nat == nat && other.inside == to.ip())
    }

    /// The socket inside that a translated datagram reaches.
    fn enter(&self, from_nat: usize, from: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        let mut nats = self.nats.iter().enumerate().filter(|(_, nat)| nat.outside() == to.ip());
        nats.find_map(|(index, nat)| {
            let allowed = index != from_nat || nat.is_transparent() || self.hairpins.contains(&index);
            allowed.then(|| nat.inbound(from, to)).flatten()
        })
    }

    /// The host and its socket at an inside address.
    fn find(&self, inside: SocketAddr) -> Option<(Host, u16)> {
        let host = self.hosts.iter().position(|place| place.inside == inside.ip())?;
        let socket = if inside.port() == PORT { 0 } else { inside.port().checked_sub(MORE_PORTS)? };
        Some((host, socket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(kind_a: Kind, kind_b: Kind) -> (Network, Host, Host) {
        let mut network = Network::new(Instant::now(), 1);
        let a = network.add_host(kind_a);
        let b = network.add_host(kind_b);
        (network, a, b)
    }

    fn arrival(network: &mut Network) -> Option<Arrival> {
        let until = network.now() + Duration::from_secs(1);
        network.next_arrival(until)
    }

    #[test]
    fn a_datagram_arrives_after_the_latency() {
        let (mut network, a, b) = exchange(Kind::Open, Kind::Open);
        let to = network.address(b);
        network.send(a, to, vec![7]);
        let from = network.address(a);
        assert_eq!(
            arrival(&mut network),
            Some(Arrival::Datagram { host: b, socket: 0, from, bytes: vec![7] })
        );
        assert_eq!(network.elapsed(), Duration::from_millis(10));
    }

    #[test]
    fn a_restricted_nat_lets_only_answers_in() {
        let (mut network, a, b) = exchange(Kind::PortRestricted, Kind::Open);
        let server = network.address(b);
        network.send(a, server, vec![1]);
        let Some(Arrival::Datagram { from: mapped, .. }) = arrival(&mut network) else { panic!("lost") };
        network.send(b, mapped, vec![2]);
        assert!(matches!(arrival(&mut network), Some(Arrival::Datagram { host, .. }) if host == a));
        let stranger = network.add_host(Kind::Open);
        network.send(stranger, mapped, vec![3]);
        assert_eq!(arrival(&mut network), None);
    }

    #[test]
    fn a_symmetric_nat_maps_by_destination() {
        let (mut network, a, b) = exchange(Kind::Symmetric, Kind::Open);
        let c = network.add_host(Kind::Open);
        let mut sources = BTreeSet::new();
        for host in [b, c] {
            let to = network.address(host);
            network.send(a, to, vec![1]);
            let Some(Arrival::Datagram { from, .. }) = arrival(&mut network) else { panic!("lost") };
            sources.insert(from);
        }
        assert_eq!(sources.len(), 2);
    }

    /// Sockets of one host have mappings of their own; neighbours need no NAT, and hairpin only by their public address.
    #[test]
    fn neighbours_and_further_sockets() {
        let (mut network, a, server) = exchange(Kind::FullCone, Kind::Open);
        let b = network.add_neighbour(a);
        let to = network.address(b);
        network.send_by(a, 3, to, vec![1]);
        let Some(Arrival::Datagram { host, socket, from, .. }) = arrival(&mut network) else {
            panic!("lost")
        };
        assert_eq!((host, socket, from.ip()), (b, 0, network.address(a).ip()));
        network.send(b, from, vec![2]);
        assert!(matches!(arrival(&mut network), Some(Arrival::Datagram { socket: 3, .. })));

        let meet = network.address(server);
        network.send_by(b, 7, meet, vec![3]);
        let Some(Arrival::Datagram { from: public, .. }) = arrival(&mut network) else { panic!("lost") };
        assert_eq!(public.ip(), network.outside(a));
        network.send(a, public, vec![4]);
        assert_eq!(arrival(&mut network), None);
        network.set_hairpin(a, true);
        network.send(a, public, vec![5]);
        let Some(Arrival::Datagram { host, socket, from, .. }) = arrival(&mut network) else {
            panic!("lost")
        };
        assert_eq!((host, socket, from.ip()), (b, 7, network.outside(a)));
    }

    #[test]
    fn large_packets_vanish_on_a_narrow_link() {
        let (mut network, a, b) = exchange(Kind::Open, Kind::Open);
        network.set_link(a, b, Link { mtu: 128, ..Link::default() });
        let to = network.address(b);
        network.send(a, to, vec![0; 101]);
        assert_eq!(arrival(&mut network), None);
        network.send(a, to, vec![0; 100]);
        assert!(arrival(&mut network).is_some());
    }

    #[test]
    fn loss_comes_from_the_seed() {
        let count = |seed| {
            let mut network = Network::new(Instant::now(), seed);
            let (a, b) = (network.add_host(Kind::Open), network.add_host(Kind::Open));
            network.set_link(a, b, Link { loss_permille: 500, ..Link::default() });
            let to = network.address(b);
            (0..100).for_each(|_| network.send(a, to, Vec::new()));
            network.flying.len()
        };
        assert_eq!(count(3), count(3));
        assert!((20..80).contains(&count(3)));
    }
}
