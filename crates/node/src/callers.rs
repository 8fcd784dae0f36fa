//! UDP for callers on this machine: what they send to a local socket arrives at a peer, from one port of the tunnel for each
//! of them, and answers find their way back by that port.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use netstack::Stack;
use slab::Slab;

use crate::command::DatagramCounts;
use crate::datagrams::idle_limit;
use crate::events::{NodeId, RequestId};
use crate::reactor::{Interest, Reactor, Source};

/// Callers of one socket; the one that was silent for longest makes room for another.
const FLOWS: usize = 1024;
/// Largest datagram taken from a caller; longer ones do not fit the tunnel.
const LARGEST: usize = 1500;
/// Datagrams taken from one socket before others get their turn.
const READS: usize = 64;
/// Pause between two searches for callers that were silent for too long.
const SWEEP: Duration = Duration::from_secs(10);
/// First and number of the ports used inside the tunnel (RFC 6335 section 6).
const EPHEMERAL: (u16, u16) = (49152, 16384);

/// One local socket.
struct Door {
    request: RequestId,
    socket: UdpSocket,
    to: SocketAddrV6,
    /// Callers and the port each has inside the tunnel.
    by_caller: BTreeMap<SocketAddr, u16>,
    counts: DatagramCounts,
}

/// One caller.
struct Caller {
    door: usize,
    address: SocketAddr,
    used: Instant,
}

/// All local sockets of a node whose datagrams go to peers.
pub(crate) struct Callers {
    doors: Slab<Door>,
    by_port: BTreeMap<u16, Caller>,
    /// Where the search for a free port goes on.
    next: u16,
    /// When to look for callers that were silent for too long.
    sweep: Option<Instant>,
}

impl Callers {
    /// `seed` decides which port is the first.
    pub(crate) fn new(seed: u64) -> Self {
        let next = (seed % u64::from(EPHEMERAL.1)) as u16;
        Self { doors: Slab::new(), by_port: BTreeMap::new(), next, sweep: None }
    }

    /// Forwards what comes to the socket until the request is cancelled.
    pub(crate) fn open(
        &mut self,
        node: NodeId,
        reactor: &Reactor,
        request: RequestId,
        to: SocketAddrV6,
        socket: OwnedFd,
    ) -> std::io::Result<()> {
        let socket = UdpSocket::from(socket);
        socket.set_nonblocking(true)?;
        let entry = self.doors.vacant_entry();
        reactor.add(&socket, Source::Callers(node, entry.key() as u32), Interest::READ)?;
        let counts = DatagramCounts::default();
        entry.insert(Door { request, socket, to, by_caller: BTreeMap::new(), counts });
        Ok(())
    }

    /// Lets go of a request's socket.
    pub(crate) fn cancel(&mut self, reactor: &Reactor, request: RequestId) {
        if let Some((index, _)) = self.doors.iter().find(|(_, door)| door.request == request) {
            let door = self.doors.remove(index);
            // Others may hold the same socket open, and with it what epoll knows of it.
            reactor.remove(&door.socket);
            for port in door.by_caller.values() {
                self.by_port.remove(port);
            }
        }
    }

    /// Lets go of all; answers the requests that wait for them.
    pub(crate) fn close(&mut self, reactor: &Reactor) -> Vec<RequestId> {
        let requests: Vec<RequestId> = self.doors.iter().map(|(_, door)| door.request).collect();
        for request in &requests {
            self.cancel(reactor, *request);
        }
        requests
    }

    /// What came through the socket of a request.
    pub(crate) fn counts(&self, request: RequestId) -> Option<DatagramCounts> {
        let (_, door) = self.doors.iter().find(|(_, door)| door.request == request)?;
        Some(DatagramCounts { open: door.by_caller.len() as u64, ..door.counts })
    }

    /// Sends to the peer what callers have sent.
    pub(crate) fn ready(&mut self, now: Instant, index: u32, stack: &mut Stack) {
        let index = index as usize;
        // One byte more shows that a datagram was cut, and cannot go on.
        let mut buffer = [0; LARGEST + 1];
        for _ in 0..READS {
            let Some(door) = self.doors.get_mut(index) else { return };
            let (length, address) = match door.socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error)
                    if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::Interrupted) =>
                {
                    continue;
                }
                Err(_) => return,
            };
            let Some(port) = self.port(now, index, address) else { return };
            let Some(door) = self.doors.get_mut(index) else { return };
            let from = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0);
            match buffer.get(..length).map(|bytes| stack.send_datagram(from, door.to, bytes)) {
                Some(Ok(())) => door.counts.sent += length as u64,
                _ => door.counts.lost += 1,
            }
        }
    }

    /// Hands a peer's datagram to the caller it answers; false when it answers none.
    pub(crate) fn arrived(
        &mut self,
        now: Instant,
        from: SocketAddrV6,
        to: SocketAddrV6,
        bytes: &[u8],
    ) -> bool {
        let Some(caller) = self.by_port.get_mut(&to.port()) else { return false };
        let Some(door) = self.doors.get_mut(caller.door).filter(|door| door.to == from) else { return false };
        caller.used = now;
        match door.socket.send_to(bytes, caller.address) {
            Ok(_) => door.counts.received += bytes.len() as u64,
            Err(_) => door.counts.lost += 1,
        }
        true
    }

    /// The port a caller has inside the tunnel, a new one if it is new.
    fn port(&mut self, now: Instant, index: usize, address: SocketAddr) -> Option<u16> {
        if let Some(port) = self.doors.get(index)?.by_caller.get(&address) {
            self.by_port.get_mut(port)?.used = now;
            return Some(*port);
        }
        if self.doors.get(index)?.by_caller.len() >= FLOWS {
            let ports = self.doors.get(index)?.by_caller.values().copied();
            let oldest = ports.min_by_key(|port| self.by_port.get(port).map(|caller| caller.used));
            self.forget(oldest?);
        }
        let port = self.free_port()?;
        let door = self.doors.get_mut(index)?;
        door.counts.opened += 1;
        door.by_caller.insert(address, port);
        self.by_port.insert(port, Caller { door: index, address, used: now });
        self.sweep.get_or_insert(now + SWEEP);
        Some(port)
    }

    fn free_port(&mut self) -> Option<u16> {
        let (first, count) = EPHEMERAL;
        for _ in 0..count {
            let port = first + self.next;
            self.next = (self.next + 1) % count;
            if !self.by_port.contains_key(&port) {
                return Some(port);
            }
        }
        None
    }

    fn forget(&mut self, port: u16) {
        if let Some(caller) = self.by_port.remove(&port)
            && let Some(door) = self.doors.get_mut(caller.door)
        {
            door.by_caller.remove(&caller.address);
        }
    }

    /// When to look for callers that were silent for too long.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.sweep
    }

    /// Forgets callers that were silent for too long.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let limit = |caller: &Caller| self.doors.get(caller.door).map(|door| idle_limit(door.to.port()));
        let due = |caller: &Caller| limit(caller).is_none_or(|limit| caller.used + limit <= now);
        let ports: Vec<u16> =
            self.by_port.iter().filter(|(_, caller)| due(caller)).map(|(port, _)| *port).collect();
        for port in ports {
            self.forget(port);
        }
        self.sweep = (!self.by_port.is_empty()).then(|| now + SWEEP);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use netstack::{Config, Sink};
    use wire::ip::Ipv6;

    use super::*;

    const PEER: SocketAddrV6 = SocketAddrV6::new(Ipv6Addr::new(0xfd7a, 0, 0, 0, 0, 0, 0, 2), 53, 0, 0);
    const OWN: Ipv6Addr = Ipv6Addr::new(0xfd7a, 0, 0, 0, 0, 0, 0, 1);

    /// Keeps the packets of a stack.
    #[derive(Default)]
    struct Kept {
        room: Vec<u8>,
        packets: Vec<Vec<u8>>,
    }

    impl Sink for Kept {
        fn buffer(&mut self, _: &Ipv6Addr) -> Option<&mut [u8]> {
            self.room.resize(1280, 0);
            Some(&mut self.room)
        }

        fn commit(&mut self, len: usize) {
            self.packets.push(self.room[..len].to_vec());
        }
    }

    /// A door for `PEER`, its reactor, its stack and its address.
    fn door() -> (Callers, Reactor, Stack, SocketAddr) {
        let (reactor, now) = (Reactor::new().unwrap(), Instant::now());
        let socket = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let mut callers = Callers::new(7);
        callers.open(1, &reactor, 9, PEER, socket.into()).unwrap();
        (callers, reactor, Stack::new(Config::new(vec![OWN]), 1, now), address)
    }

    /// The tunnel's packets: source port and payload of each.
    fn sent(stack: &mut Stack, now: Instant) -> Vec<(u16, Vec<u8>)> {
        let mut kept = Kept::default();
        stack.poll(now, &mut kept);
        let read = |packet: &Vec<u8>| {
            let packet = Ipv6::parse(packet).unwrap();
            assert_eq!((packet.src(), packet.dst()), (OWN, *PEER.ip()));
            let payload = packet.payload();
            (u16::from_be_bytes([payload[0], payload[1]]), payload[8..].to_vec())
        };
        kept.packets.iter().map(read).collect()
    }

    fn caller() -> UdpSocket {
        let caller = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        caller.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        caller
    }

    #[test]
    fn each_caller_has_a_port_of_its_own_and_gets_its_own_answers() {
        let (mut callers, _reactor, mut stack, address) = door();
        let (now, one, two) = (Instant::now(), caller(), caller());
        one.send_to(b"one", address).unwrap();
        two.send_to(b"two", address).unwrap();
        one.send_to(b"more", address).unwrap();
        callers.ready(now, 0, &mut stack);
        let packets = sent(&mut stack, now);
        let [(first, a), (second, b), (third, c)] = &packets[..] else { panic!("{packets:?}") };
        assert_eq!((&a[..], &b[..], &c[..]), (&b"one"[..], &b"two"[..], &b"more"[..]));
        assert_eq!(first, third);
        assert_ne!(first, second);
        for (port, answer) in [(first, b"for one"), (second, b"for two")] {
            assert!(callers.arrived(now, PEER, SocketAddrV6::new(OWN, *port, 0, 0), answer));
        }
        let mut buffer = [0; 64];
        assert_eq!(one.recv(&mut buffer).map(|length| buffer[..length].to_vec()).unwrap(), b"for one");
        assert_eq!(two.recv(&mut buffer).map(|length| buffer[..length].to_vec()).unwrap(), b"for two");
        let counts = DatagramCounts { open: 2, opened: 2, lost: 0, sent: 10, received: 14 };
        assert_eq!(callers.counts(9), Some(counts));
    }

    #[test]
    fn an_answer_from_elsewhere_or_to_another_port_is_nobodys() {
        let (mut callers, _reactor, mut stack, address) = door();
        let (now, one) = (Instant::now(), caller());
        one.send_to(b"one", address).unwrap();
        callers.ready(now, 0, &mut stack);
        let port = sent(&mut stack, now)[0].0;
        let stranger = SocketAddrV6::new(*PEER.ip(), 54, 0, 0);
        assert!(!callers.arrived(now, stranger, SocketAddrV6::new(OWN, port, 0, 0), b"x"));
        assert!(!callers.arrived(now, PEER, SocketAddrV6::new(OWN, port ^ 1, 0, 0), b"x"));
        assert_eq!(callers.counts(9).map(|counts| counts.received), Some(0));
    }

    #[test]
    fn what_does_not_fit_the_tunnel_is_counted_as_lost() {
        let (mut callers, _reactor, mut stack, address) = door();
        let (now, one) = (Instant::now(), caller());
        for length in [1232, 1233, 1501, 9000] {
            one.send_to(&vec![0; length], address).unwrap();
        }
        callers.ready(now, 0, &mut stack);
        assert_eq!(sent(&mut stack, now).len(), 1);
        let counts = callers.counts(9).unwrap();
        assert_eq!((counts.sent, counts.lost), (1232, 3));
    }

    #[test]
    fn silent_callers_are_forgotten_and_the_oldest_makes_room() {
        let (mut callers, _reactor, mut stack, address) = door();
        let (start, one) = (Instant::now(), caller());
        one.send_to(b"one", address).unwrap();
        callers.ready(start, 0, &mut stack);
        for number in 0..FLOWS as u16 {
            let later = start + Duration::from_millis(1 + u64::from(number));
            callers.port(later, 0, SocketAddr::from((Ipv6Addr::LOCALHOST, 1 + number))).unwrap();
        }
        let counts = callers.counts(9).unwrap();
        assert_eq!((counts.open, counts.opened), (FLOWS as u64, FLOWS as u64 + 1));
        assert!(!callers.by_port.values().any(|caller| caller.address == one.local_addr().unwrap()));
        let limit = idle_limit(PEER.port());
        callers.handle_timeout(start + limit);
        assert_eq!(callers.counts(9).map(|counts| counts.open), Some(FLOWS as u64));
        callers.handle_timeout(start + limit + Duration::from_secs(2));
        assert_eq!((callers.counts(9).map(|counts| counts.open), callers.next_timeout()), (Some(0), None));
    }

    #[test]
    fn a_cancelled_request_lets_go_of_a_socket_that_others_hold_open() {
        let (mut callers, reactor, mut stack, address) = door();
        let other = callers.doors.get(0).unwrap().socket.try_clone().unwrap();
        let one = caller();
        one.send_to(b"one", address).unwrap();
        callers.ready(Instant::now(), 0, &mut stack);
        one.send_to(b"two", address).unwrap();
        callers.cancel(&reactor, 9);
        let mut ready = Vec::new();
        reactor.wait(Some(Duration::ZERO), &mut ready).unwrap();
        assert!(ready.is_empty());
        assert_eq!((callers.counts(9), callers.by_port.len()), (None, 0));
        drop(other);
    }
}
