//! UDP for the services of this machine: each flow of a peer gets a local socket of its own.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV6, UdpSocket};
use std::time::{Duration, Instant};

use netstack::Stack;
use slab::Slab;

use crate::events::NodeId;
use crate::reactor::{Interest, Reactor, Source};

/// A flow without datagrams is forgotten after this …
const IDLE: Duration = Duration::from_secs(120);
/// … and after this for name lookups.
const IDLE_DNS: Duration = Duration::from_secs(30);
/// Flows of a node; more are not answered.
const FLOWS: usize = 1024;
/// Largest datagram taken from a service.
const LARGEST: usize = 1500;
/// Datagrams taken from one service before others get their turn.
const READS: usize = 64;

/// How long a flow to this port is remembered without datagrams.
pub(crate) fn idle_limit(port: u16) -> Duration {
    if port == 53 { IDLE_DNS } else { IDLE }
}

struct Forward {
    peer: SocketAddrV6,
    to: SocketAddrV6,
    socket: UdpSocket,
    used: Instant,
}

impl Forward {
    fn expires(&self) -> Instant {
        self.used + idle_limit(self.to.port())
    }
}

/// All UDP flows of a node.
#[derive(Default)]
pub(crate) struct Datagrams {
    flows: Slab<Forward>,
    by_peer: HashMap<(SocketAddrV6, SocketAddrV6), usize>,
}

impl Datagrams {
    /// Hands a peer's datagram to the service at the same port of the loopback address.
    pub(crate) fn forward(
        &mut self,
        now: Instant,
        node: NodeId,
        reactor: &Reactor,
        from: SocketAddrV6,
        to: SocketAddrV6,
        bytes: &[u8],
    ) {
        let index = match self.by_peer.get(&(from, to)) {
            Some(index) => *index,
            None => match self.open(now, node, reactor, from, to) {
                Some(index) => index,
                None => return,
            },
        };
        if let Some(flow) = self.flows.get_mut(index) {
            flow.used = now;
            let _ = flow.socket.send(bytes);
        }
    }

    fn open(
        &mut self,
        now: Instant,
        node: NodeId,
        reactor: &Reactor,
        peer: SocketAddrV6,
        to: SocketAddrV6,
    ) -> Option<usize> {
        if self.flows.len() >= FLOWS {
            return None;
        }
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
        socket.set_nonblocking(true).ok()?;
        socket.connect((Ipv4Addr::LOCALHOST, to.port())).ok()?;
        let entry = self.flows.vacant_entry();
        let index = entry.key();
        reactor.add(&socket, Source::Datagrams(node, index as u32), Interest::READ).ok()?;
        entry.insert(Forward { peer, to, socket, used: now });
        self.by_peer.insert((peer, to), index);
        Some(index)
    }

    /// Sends a service's datagrams back to its peer.
    pub(crate) fn ready(&mut self, now: Instant, index: u32, stack: &mut Stack) {
        let Some(flow) = self.flows.get_mut(index as usize) else { return };
        let mut buffer = [0; LARGEST];
        for _ in 0..READS {
            match flow.socket.recv(&mut buffer) {
                Ok(length) => {
                    flow.used = now;
                    // One that does not fit the tunnel is lost, as on any link.
                    let _ = stack.send_datagram(flow.to, flow.peer, &buffer[..length]);
                }
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
                Err(_) => return,
            }
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.flows.iter().map(|(_, flow)| flow.expires()).min()
    }

    /// Forgets idle flows.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let by_peer = &mut self.by_peer;
        self.flows.retain(|_, flow| {
            let alive = flow.expires() > now;
            if !alive {
                by_peer.remove(&(flow.peer, flow.to));
            }
            alive
        });
    }
}
