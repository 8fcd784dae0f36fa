//! TCP connections as the shell sees them.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::{Duration, Instant};

use tcp::{Segment, Stats as FlowStats};

use crate::connection::{Connection, Key};
use crate::event::{Flow, SendError};
use crate::format;
use crate::stack::Stack;

/// First and number of the ports outgoing connections use (RFC 6335 section 6).
const EPHEMERAL: (u16, u16) = (49152, 16384);
/// Silence after which a connection with unanswered data is worth a retransmission when the path comes back.
const QUIET: Duration = Duration::from_millis(200);

impl Stack {
    /// How many connections there are, those that are still closing included.
    pub fn flows(&self) -> usize {
        self.connections.len()
    }

    /// Begins a connection; `Connected`, `Refused` or `TimedOut` tells how it went.
    ///
    /// # Errors
    /// When there is nowhere to connect from or to.
    pub fn connect(&mut self, now: Instant, to: SocketAddrV6) -> Result<Flow, SendError> {
        let remote = SocketAddrV6::new(*to.ip(), to.port(), 0, 0);
        if remote.port() == 0 || remote.ip().is_unspecified() || remote.ip().is_multicast() {
            return Err(SendError::BadDestination);
        }
        let source = self.source(remote.ip())?;
        let port = self.free_port(source, remote)?;
        let iss = self.random.next() as u32;
        let connection = tcp::Connection::connect(&self.tcp, port, remote.port(), iss, now);
        Ok(self.insert(Key::new(source, port, *remote.ip(), remote.port()), connection))
    }

    /// Lets a held connection proceed; `None` when its peer has given up or it has waited too long.
    pub fn accept(&mut self, now: Instant, id: u64) -> Option<Flow> {
        let held = self.waiting.take(id).filter(|held| !self.by_key.contains_key(&held.key))?;
        let iss = self.random.next() as u32;
        let connection = tcp::Connection::accept(&self.tcp, iss, &Segment::parse(&held.syn)?, now)?;
        Some(self.insert(held.key, connection))
    }

    /// Answers a held connection with a reset.
    pub fn refuse(&mut self, id: u64) {
        if let Some(held) = self.waiting.take(id)
            && let Some(syn) = Segment::parse(&held.syn)
        {
            self.queue(format::reset(&held.key, &syn));
        }
    }

    /// Offers free room in the send buffer to `fill`, which returns how many bytes it wrote. Returns the same, 0 when
    /// nothing can be sent now or any more. The room may be only part of what is free: call again for the rest. After a
    /// call that left the buffer full, [`Event::Writable`](crate::Event::Writable) tells when to go on.
    pub fn send(&mut self, now: Instant, flow: Flow, fill: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let Some(connection) = self.get(flow) else { return 0 };
        let sent = connection.send(now, fill);
        if sent > 0 {
            self.touch(flow.slot);
        }
        sent
    }

    /// Offers received bytes to `take`, which returns how many it is done with. Returns the same, 0 when there are none.
    /// Call until it returns 0: only then is [`Event::Readable`](crate::Event::Readable) reported again.
    pub fn recv(&mut self, flow: Flow, take: impl FnOnce(&[u8]) -> usize) -> usize {
        let Some(connection) = self.get(flow) else { return 0 };
        let taken = connection.recv(take);
        if taken > 0 {
            self.notice(flow.slot);
            self.touch(flow.slot);
        }
        taken
    }

    /// Free bytes in the send buffer; 0 when nothing may be sent.
    pub fn send_capacity(&self, flow: Flow) -> usize {
        self.peek(flow).map_or(0, |connection| connection.tcp.send_room())
    }

    /// Bytes sent and not yet acknowledged, or not yet on their way.
    pub fn send_queue(&self, flow: Flow) -> usize {
        self.peek(flow).map_or(0, |connection| connection.tcp.send_queue())
    }

    /// Bytes that can be received.
    pub fn recv_queue(&self, flow: Flow) -> usize {
        self.peek(flow).map_or(0, |connection| connection.tcp.recv_queue())
    }

    /// Who a connection leads to.
    pub fn remote(&self, flow: Flow) -> Option<Ipv6Addr> {
        self.peek(flow).map(|connection| *connection.key.remote.ip())
    }

    /// Whether the connection is open for sending.
    pub fn may_send(&self, flow: Flow) -> bool {
        self.peek(flow).is_some_and(|connection| connection.tcp.may_send())
    }

    /// Whether more can be received, now or later.
    pub fn may_recv(&self, flow: Flow) -> bool {
        self.peek(flow).is_some_and(|connection| connection.tcp.may_recv())
    }

    /// Sets how long the connection is quiet before the peer is probed; `None`: for ever.
    pub fn set_keepalive(&mut self, flow: Flow, idle: Option<Duration>) {
        if let Some(connection) = self.get(flow) {
            connection.tcp.set_keepalive(idle);
            self.touch(flow.slot);
        }
    }

    /// Finishes sending: a FIN follows what is queued. Receiving goes on.
    pub fn shutdown(&mut self, flow: Flow) {
        if let Some(connection) = self.get(flow) {
            connection.tcp.shutdown();
            self.touch(flow.slot);
        }
    }

    /// Lets go of a connection: what is queued is still delivered, its memory is freed when it has finished. Bytes that
    /// were received and not taken turn this into an [`abort`](Self::abort).
    pub fn close(&mut self, now: Instant, flow: Flow) {
        if let Some(connection) = self.get(flow) {
            connection.release(now);
            self.touch(flow.slot);
        }
    }

    /// Cuts a connection: the peer gets a reset, what is queued is lost, the flow is gone.
    pub fn abort(&mut self, flow: Flow) {
        if let Some(connection) = self.get(flow) {
            connection.abort();
            self.touch(flow.slot);
        }
    }

    /// The stack ends: connections with something that was never sent are cut, so that their peers do not wait for it.
    /// Those whose last bytes are on their way are left alone.
    pub fn give_up(&mut self) {
        for (index, connection) in &mut self.connections {
            let unsent = connection.tcp.send_queue() as u64 > connection.tcp.stats().in_flight;
            if unsent {
                connection.abort();
                if !std::mem::replace(&mut connection.dirty, true) {
                    self.dirty.push_back(index as u32);
                }
            }
        }
    }

    /// The path came back: connections that wait for an answer repeat their question at once.
    pub fn kick(&mut self, now: Instant) {
        for (index, connection) in &mut self.connections {
            connection.tcp.kick(now, QUIET);
            if !std::mem::replace(&mut connection.dirty, true) {
                self.dirty.push_back(index as u32);
            }
        }
    }

    /// What a connection has measured, for people.
    pub fn flow_stats(&self, flow: Flow) -> Option<FlowStats> {
        self.peek(flow).map(|connection| connection.tcp.stats())
    }

    fn insert(&mut self, key: Key, connection: tcp::Connection) -> Flow {
        self.generation = self.generation.wrapping_add(1);
        let entry = self.connections.vacant_entry();
        let index = entry.key() as u32;
        let flow = Flow { slot: index, generation: self.generation };
        entry.insert(Connection::new(flow, key, connection));
        self.by_key.insert(key, index);
        self.touch(index);
        flow
    }

    /// A connection the shell has not let go of.
    fn get(&mut self, flow: Flow) -> Option<&mut Connection> {
        self.connections
            .get_mut(flow.slot as usize)
            .filter(|connection| connection.flow == flow && !connection.released)
    }

    fn peek(&self, flow: Flow) -> Option<&Connection> {
        self.connections
            .get(flow.slot as usize)
            .filter(|connection| connection.flow == flow && !connection.released)
    }

    /// Our address that shares the longest prefix with `to`; the first one when several do.
    pub(crate) fn source(&self, to: &Ipv6Addr) -> Result<Ipv6Addr, SendError> {
        let distance = |address: &&Ipv6Addr| u128::from(**address) ^ u128::from(*to);
        let bits = |address: &&Ipv6Addr| 128 - distance(address).leading_zeros();
        self.config.addresses.iter().min_by_key(bits).copied().ok_or(SendError::NoSource)
    }

    /// A random local port that is free for this destination.
    fn free_port(&mut self, source: Ipv6Addr, remote: SocketAddrV6) -> Result<u16, SendError> {
        let (first, count) = EPHEMERAL;
        let start = (self.random.next() % u64::from(count)) as u16;
        (0..count)
            .map(|step| first + (start + step) % count)
            .find(|&port| {
                !self.by_key.contains_key(&Key { local: SocketAddrV6::new(source, port, 0, 0), remote })
            })
            .ok_or(SendError::NoPort)
    }
}
