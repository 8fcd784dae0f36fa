//! The stack: everything one node's packets meet.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::{Duration, Instant};

use slab::Slab;
use smoltcp::iface::{Config as InterfaceConfig, Interface};
use smoltcp::socket::tcp::State;
use smoltcp::wire::{HardwareAddress, IpListenEndpoint};

use crate::config::Config;
use crate::connection::{Connection, Key};
use crate::device::Egress;
use crate::event::{Counters, Event, Flow, SendError};
use crate::held::Waiting;
use crate::ip::{self, IPV6, Packet, UDP};
use crate::message::{self, Tsmp};
use crate::output::{Outbox, Sink};
use crate::timers::Timers;

/// First and number of the ports outgoing connections use (RFC 6335 section 6).
const EPHEMERAL: (u16, u16) = (49152, 16384);
/// How many packets a connection sends before others have their turn.
const TURN: usize = 32;
/// Silence after which a connection with unanswered data is worth a retransmission when the path comes back.
const QUIET: Duration = Duration::from_millis(200);

/// The TCP/IP stack of one node. See the crate's description.
pub struct Stack {
    pub(crate) config: Config,
    pub(crate) interface: Interface,
    pub(crate) connections: Slab<Connection>,
    by_key: HashMap<Key, u32>,
    /// The connection the last segment belonged to.
    last: Option<(Key, u32)>,
    /// Connections that may have something to send or a new deadline.
    dirty: VecDeque<u32>,
    timers: Timers,
    pub(crate) waiting: Waiting,
    pub(crate) outbox: Outbox,
    pub(crate) events: VecDeque<Event>,
    datagrams: usize,
    pub(crate) counters: Counters,
    pub(crate) clock: Clock,
    random: Random,
    generation: u32,
}

impl Stack {
    /// A stack that knows nobody. `seed` decides ports and initial sequence numbers: to be drawn from the operating
    /// system's randomness, except in tests.
    pub fn new(mut config: Config, seed: u64, now: Instant) -> Self {
        config.mtu = config.mtu.clamp(1280, usize::from(u16::MAX));
        config.send_buffer = config.send_buffer.max(1);
        let mut random = Random(seed);
        let clock = Clock { start: now };
        let mut settings = InterfaceConfig::new(HardwareAddress::Ip);
        settings.random_seed = random.next();
        let mut device = Egress { room: &mut [], written: 0, mtu: config.mtu };
        let mut interface = Interface::new(settings, &mut device, clock.at(now, Duration::ZERO));
        // Which addresses are ours is checked before a packet gets there.
        interface.set_any_ip(true);
        Self {
            config,
            interface,
            connections: Slab::new(),
            by_key: HashMap::new(),
            last: None,
            dirty: VecDeque::new(),
            timers: Timers::default(),
            waiting: Waiting::default(),
            outbox: Outbox::default(),
            events: VecDeque::new(),
            datagrams: 0,
            counters: Counters::default(),
            clock,
            random,
            generation: 0,
        }
    }

    /// Takes in one IPv6 packet from a peer. The caller has checked that the source address is that peer's.
    ///
    /// Whatever the bytes, the worst that happens is a count in [`Counters`]. Answers leave with the next
    /// [`poll`](Self::poll): injecting a batch before polling makes one acknowledgement do for the batch.
    pub fn inject(&mut self, now: Instant, packet: &[u8]) {
        let Some(packet) = Packet::parse(packet) else {
            self.counters.malformed += 1;
            return;
        };
        if !self.config.addresses.contains(&packet.destination) {
            self.counters.foreign += 1;
            return;
        }
        match packet.next_header {
            ip::NEXT_TCP => self.inject_tcp(now, &packet),
            ip::NEXT_UDP => self.inject_datagram(&packet),
            ip::NEXT_ICMP => self.inject_echo(&packet),
            ip::NEXT_TSMP => self.inject_tsmp(&packet),
            _ => self.counters.unsupported += 1,
        }
    }

    /// Sends everything there is to send, until the sink is full.
    pub fn poll(&mut self, now: Instant, sink: &mut impl Sink) {
        self.counters.held_expired += self.waiting.expire(now);
        while let Some((due, index)) = self.timers.next(&mut self.connections)
            && due <= now
        {
            self.expire(now, index);
        }
        if !self.outbox.flush(sink) {
            return;
        }
        while let Some(index) = self.dirty.pop_front() {
            match self.transmit(now, index, sink) {
                Turn::Done => self.settle(now, index),
                Turn::More => self.touch(index),
                Turn::Full => {
                    self.dirty.push_front(index);
                    return;
                }
            }
        }
    }

    /// Lets a connection send until it has nothing more, the sink is full, or its turn is over.
    fn transmit(&mut self, now: Instant, index: u32, sink: &mut impl Sink) -> Turn {
        let Some(connection) = self.connections.get_mut(index as usize) else { return Turn::Done };
        let clock = self.clock.at(now, connection.skew);
        for _ in 0..TURN {
            if connection.must_linger() {
                break;
            }
            let Some(room) = sink.buffer(connection.key.remote.ip()) else { return Turn::Full };
            let mut device = Egress { room, written: 0, mtu: self.config.mtu };
            self.interface.poll_egress(clock, &mut device, &mut connection.sockets);
            let written = device.written;
            if written == 0 {
                connection.dirty = false;
                return Turn::Done;
            }
            sink.commit(written);
        }
        connection.dirty = false;
        if connection.must_linger() { Turn::Done } else { Turn::More }
    }

    /// When [`poll`](Self::poll) must be called again if nothing happens before. `None`: never.
    ///
    /// In the past when something waits to be sent, be it for room in the sink.
    pub fn poll_at(&mut self, now: Instant) -> Option<Instant> {
        if !self.dirty.is_empty() || !self.outbox.is_empty() {
            return Some(now);
        }
        let timer = self.timers.next(&mut self.connections).map(|(due, _)| due);
        [timer, self.waiting.next_timeout()].into_iter().flatten().min()
    }

    /// The next event, oldest first.
    pub fn next_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if matches!(event, Some(Event::Datagram { .. })) {
            self.datagrams -= 1;
        }
        event
    }

    /// What was dropped so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How many connections there are, those that are still closing included.
    pub fn flows(&self) -> usize {
        self.connections.len()
    }

    /// Begins a connection; `Connected`, `Refused` or `TimedOut` tells how it went.
    ///
    /// # Errors
    /// When there is nowhere to connect from or to.
    pub fn connect(&mut self, now: Instant, to: SocketAddrV6) -> Result<Flow, SendError> {
        let remote = ip::endpoint(*to.ip(), to.port());
        if remote.port() == 0 || remote.ip().is_unspecified() || remote.ip().is_multicast() {
            return Err(SendError::BadDestination);
        }
        let source = self.source(remote.ip())?;
        let port = self.free_port(source, remote)?;
        let key = Key { local: ip::endpoint(source, port), remote };
        let index = self.insert(now, key, false);
        if let Some(connection) = self.connections.get_mut(index as usize) {
            let context = self.interface.context();
            connection
                .socket_mut()
                .connect(context, (*remote.ip(), remote.port()), (source, port))
                .map_err(|_| SendError::BadDestination)?;
        }
        self.touch(index);
        Ok(self.flow(index))
    }

    /// Lets a held connection proceed; `None` when its peer has given up or it has waited too long.
    pub fn accept(&mut self, now: Instant, id: u64) -> Option<Flow> {
        let held = self.waiting.take(id)?;
        let index = self.insert(now, held.key, true);
        let local = held.key.local;
        let endpoint = IpListenEndpoint { addr: Some((*local.ip()).into()), port: local.port() };
        // A fresh socket and a port that is not zero: listening cannot fail.
        self.connections.get_mut(index as usize)?.socket_mut().listen(endpoint).ok()?;
        self.feed(now, index, &held.packet);
        let connection = self.connections.get_mut(index as usize)?;
        if connection.socket().state() != State::SynReceived {
            connection.abort();
            self.touch(index);
            return None;
        }
        self.touch(index);
        Some(self.flow(index))
    }

    /// Answers a held connection with a reset.
    pub fn refuse(&mut self, id: u64) {
        if let Some(held) = self.waiting.take(id) {
            self.queue(message::reset(held.key.local.ip(), held.key.remote.ip(), &held.header));
        }
    }

    /// Offers free room in the send buffer to `fill`, which returns how many bytes it wrote. Returns the same, 0 when
    /// nothing can be sent now or any more. The room may be only part of what is free: call again for the rest. After a
    /// call that left the buffer full, [`Event::Writable`] tells when to go on.
    pub fn send(&mut self, now: Instant, flow: Flow, fill: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let Some(connection) = self.get(flow) else { return 0 };
        let sent = connection.send(now, fill);
        if sent > 0 {
            self.touch(flow.slot);
        }
        sent
    }

    /// Offers received bytes to `take`, which returns how many it is done with. Returns the same, 0 when there are none.
    /// Call until it returns 0: only then is [`Event::Readable`] reported again.
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
        self.peek(flow).map_or(0, |connection| {
            let socket = connection.socket();
            if socket.may_send() { socket.send_capacity() - socket.send_queue() } else { 0 }
        })
    }

    /// Bytes sent and not yet acknowledged, or not yet on their way.
    pub fn send_queue(&self, flow: Flow) -> usize {
        self.peek(flow).map_or(0, |connection| connection.socket().send_queue())
    }

    /// Bytes that can be received.
    pub fn recv_queue(&self, flow: Flow) -> usize {
        self.peek(flow).map_or(0, |connection| connection.socket().recv_queue())
    }

    /// Whether the connection is open for sending.
    pub fn may_send(&self, flow: Flow) -> bool {
        self.peek(flow).is_some_and(|connection| connection.socket().may_send())
    }

    /// Whether more can be received, now or later.
    pub fn may_recv(&self, flow: Flow) -> bool {
        self.peek(flow).is_some_and(|connection| connection.socket().may_recv())
    }

    /// Sets how long the connection is quiet before the peer is probed; `None`: for ever.
    pub fn set_keepalive(&mut self, flow: Flow, idle: Option<Duration>) {
        if let Some(connection) = self.get(flow) {
            connection.keepalive = idle;
            self.touch(flow.slot);
        }
    }

    /// Finishes sending: a FIN follows what is queued. Receiving goes on.
    pub fn shutdown(&mut self, flow: Flow) {
        if let Some(connection) = self.get(flow) {
            connection.socket_mut().close();
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

    /// The path came back: connections that wait for an answer repeat their question at once.
    pub fn kick(&mut self, now: Instant) {
        let waiting: Vec<u32> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.outstanding() && connection.heard + QUIET <= now)
            .map(|(index, _)| index as u32)
            .collect();
        for index in waiting {
            self.hasten(now, index);
            self.touch(index);
        }
    }

    /// Sends a UDP datagram. `from`'s address must be ours; unspecified stands for the best one.
    ///
    /// # Errors
    /// When it cannot leave in one packet, from that address, to that destination, or now.
    pub fn send_datagram(&mut self, from: SocketAddrV6, to: SocketAddrV6, payload: &[u8]) -> Result<(), SendError> {
        if payload.len() > self.config.mtu - IPV6 - UDP {
            return Err(SendError::TooLarge);
        }
        if to.port() == 0 {
            return Err(SendError::BadDestination);
        }
        let source = if from.ip().is_unspecified() { self.source(to.ip())? } else { *from.ip() };
        if !self.config.addresses.contains(&source) {
            return Err(SendError::NoSource);
        }
        self.queue_or_fail(message::datagram(&ip::endpoint(source, from.port()), &to, payload))
    }

    /// Sends an ICMPv6 echo request; [`Event::EchoReply`] is the answer.
    ///
    /// # Errors
    /// When there is no address to send from, or too many packets wait.
    pub fn echo(&mut self, to: Ipv6Addr, id: u16, seq: u16) -> Result<(), SendError> {
        let body = (u32::from(id) << 16 | u32::from(seq)).to_be_bytes();
        let source = self.source(&to)?;
        self.queue_or_fail(message::echo(message::ECHO_REQUEST, &source, &to, &body))
    }

    /// Sends a TSMP ping; [`Event::TsmpPong`] is the answer.
    ///
    /// # Errors
    /// When there is no address to send from, or too many packets wait.
    pub fn tsmp_ping(&mut self, to: Ipv6Addr, data: [u8; 8]) -> Result<(), SendError> {
        let source = self.source(&to)?;
        self.queue_or_fail(message::tsmp_ping(&source, &to, &data))
    }

    fn inject_datagram(&mut self, packet: &Packet) {
        let Some((source, destination, payload)) = message::parse_datagram(packet.payload()) else {
            self.counters.malformed += 1;
            return;
        };
        if self.datagrams >= self.config.datagram_limit {
            self.counters.datagram_overflow += 1;
            return;
        }
        self.datagrams += 1;
        self.events.push_back(Event::Datagram {
            from: ip::endpoint(packet.source, source),
            to: ip::endpoint(packet.destination, destination),
            bytes: payload.to_vec(),
        });
    }

    /// Takes in an ICMPv6 message. Its checksum is not looked at: WireGuard has vouched for the bytes, and the reference
    /// implementation sends echo requests with a wrong one.
    fn inject_echo(&mut self, packet: &Packet) {
        match *packet.payload() {
            [message::ECHO_REQUEST, 0, _, _, ref body @ ..] if body.len() >= 4 => {
                self.queue(message::echo(message::ECHO_REPLY, &packet.destination, &packet.source, body));
            }
            [message::ECHO_REPLY, 0, _, _, i, d, s, q, ..] => {
                let (id, seq) = (u16::from_be_bytes([i, d]), u16::from_be_bytes([s, q]));
                self.events.push_back(Event::EchoReply { from: packet.source, id, seq });
            }
            [message::ECHO_REQUEST | message::ECHO_REPLY, ..] | [] => self.counters.malformed += 1,
            _ => self.counters.unsupported += 1,
        }
    }

    fn inject_tsmp(&mut self, packet: &Packet) {
        match message::tsmp(packet.payload()) {
            Some(Tsmp::Ping(data)) => {
                self.queue(message::tsmp_pong(&packet.destination, &packet.source, &data));
            }
            Some(Tsmp::Pong(data)) => self.events.push_back(Event::TsmpPong { from: packet.source, data }),
            None => self.counters.unsupported += 1,
        }
    }

    /// A connection's deadline has passed.
    fn expire(&mut self, now: Instant, index: u32) {
        let Some(connection) = self.connections.get_mut(index as usize) else { return };
        if connection.tick(now, &self.config) {
            self.events.push_back(Event::TimedOut(connection.flow));
        }
        if connection.retransmit_at.is_some_and(|at| at <= now) {
            connection.retransmit_at = None;
            self.hasten(now, index);
        }
        if let Some(connection) = self.connections.get_mut(index as usize) {
            self.timers.set(&mut connection.timer, None, index, connection.flow.generation);
        }
        self.touch(index);
    }

    /// Moves a connection's clock to its next deadline.
    fn hasten(&mut self, now: Instant, index: u32) {
        let Some(connection) = self.connections.get_mut(index as usize) else { return };
        let clock = self.clock.at(now, connection.skew);
        if let Some(due) = self.interface.poll_at(clock, &connection.sockets)
            && due > clock
        {
            connection.skew += Duration::from_micros((due - clock).total_micros());
        }
    }

    /// A connection has nothing to send now: reports what changed and finds out when to look again.
    fn settle(&mut self, now: Instant, index: u32) {
        self.notice(index);
        let Some(connection) = self.connections.get_mut(index as usize) else { return };
        if connection.is_done() {
            self.remove(index);
            return;
        }
        let clock = self.clock.at(now, connection.skew);
        let mut due = None;
        if !connection.must_linger()
            && let Some(at) = self.interface.poll_at(clock, &connection.sockets)
        {
            // It has just said that there is nothing to do now; taking its word for the contrary would be a busy loop.
            let wait = Duration::from_micros((at.max(clock) - clock).total_micros()).max(Duration::from_millis(1));
            due = Some(now + wait);
            if wait > self.config.retransmit_limit && connection.outstanding() && connection.retransmit_at.is_none() {
                connection.retransmit_at = Some(now + self.config.retransmit_limit);
            }
        }
        let due = [due, connection.deadline(now, &self.config)].into_iter().flatten().min();
        self.timers.set(&mut connection.timer, due, index, connection.flow.generation);
    }

    /// Reports what changed at a connection.
    fn notice(&mut self, index: u32) {
        let events = &mut self.events;
        if let Some(connection) = self.connections.get_mut(index as usize) {
            connection.notice(&mut |event| events.push_back(event));
        }
    }

    /// Puts a connection on the list of those with something to do.
    pub(crate) fn touch(&mut self, index: u32) {
        if let Some(connection) = self.connections.get_mut(index as usize)
            && !std::mem::replace(&mut connection.dirty, true)
        {
            self.dirty.push_back(index);
        }
    }

    /// Queues an answer; it may be lost like any packet.
    pub(crate) fn queue(&mut self, packet: Vec<u8>) {
        if !self.outbox.push(packet) {
            self.counters.output_overflow += 1;
        }
    }

    fn queue_or_fail(&mut self, packet: Vec<u8>) -> Result<(), SendError> {
        if self.outbox.push(packet) { Ok(()) } else { Err(SendError::Full) }
    }

    /// The connection with this key.
    pub(crate) fn find(&mut self, key: &Key) -> Option<u32> {
        match self.last {
            Some((last, index)) if last == *key => Some(index),
            _ => {
                let index = *self.by_key.get(key)?;
                self.last = Some((*key, index));
                Some(index)
            }
        }
    }

    fn insert(&mut self, now: Instant, key: Key, incoming: bool) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        let entry = self.connections.vacant_entry();
        let index = entry.key() as u32;
        let flow = Flow { slot: index, generation: self.generation };
        entry.insert(Connection::new(flow, key, &self.config, now, incoming));
        self.by_key.insert(key, index);
        index
    }

    /// Forgets a connection.
    pub(crate) fn remove(&mut self, index: u32) {
        if let Some(connection) = self.connections.try_remove(index as usize) {
            self.by_key.remove(&connection.key);
            self.last = None;
        }
    }

    fn flow(&self, index: u32) -> Flow {
        self.connections.get(index as usize).map_or(Flow { slot: index, generation: 0 }, |connection| connection.flow)
    }

    /// A connection the shell has not let go of.
    fn get(&mut self, flow: Flow) -> Option<&mut Connection> {
        self.connections.get_mut(flow.slot as usize).filter(|connection| connection.flow == flow && !connection.released)
    }

    fn peek(&self, flow: Flow) -> Option<&Connection> {
        self.connections.get(flow.slot as usize).filter(|connection| connection.flow == flow && !connection.released)
    }

    /// Our address that shares the longest prefix with `to`; the first one when several do.
    fn source(&self, to: &Ipv6Addr) -> Result<Ipv6Addr, SendError> {
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
            .find(|&port| !self.by_key.contains_key(&Key { local: ip::endpoint(source, port), remote }))
            .ok_or(SendError::NoPort)
    }
}

/// How a connection's turn to send ended.
enum Turn {
    /// It has nothing more to send.
    Done,
    /// It may have more to send.
    More,
    /// The sink is full.
    Full,
}

/// Time as `smoltcp` counts it.
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    /// `now` on a clock that is ahead by `skew`. Begins above zero, which `smoltcp` takes for "long ago".
    pub fn at(&self, now: Instant, skew: Duration) -> smoltcp::time::Instant {
        let elapsed = now.saturating_duration_since(self.start) + skew;
        smoltcp::time::Instant::from_micros(1_000_000 + elapsed.as_micros() as i64)
    }
}

/// A small generator of well-spread numbers from a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
