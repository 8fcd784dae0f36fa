//! The stack: everything one node's packets meet.

use std::collections::{HashMap, VecDeque};
use std::net::Ipv6Addr;
use std::time::Instant;

use slab::Slab;
use wire::ip::{self, Ipv6};

use crate::config::Config;
use crate::connection::{Connection, Key};
use crate::event::{Counters, Event, SendError};
use crate::held::Waiting;
use crate::output::{Outbox, Sink};
use crate::timers::Timers;

/// How many packets a connection sends before others have their turn.
const TURN: usize = 32;

/// The TCP/IP stack of one node. See the crate's description.
pub struct Stack {
    pub(crate) config: Config,
    /// What connections are told of the settings.
    pub(crate) tcp: tcp::Config,
    pub(crate) connections: Slab<Connection>,
    pub(crate) by_key: HashMap<Key, u32>,
    /// The connection the last segment belonged to.
    pub(crate) last: Option<(Key, u32)>,
    /// Connections that may have something to send or a new deadline.
    pub(crate) dirty: VecDeque<u32>,
    timers: Timers,
    pub(crate) waiting: Waiting,
    pub(crate) outbox: Outbox,
    pub(crate) events: VecDeque<Event>,
    pub(crate) datagrams: usize,
    pub(crate) counters: Counters,
    pub(crate) random: Random,
    pub(crate) generation: u32,
}

impl Stack {
    /// A stack that knows nobody. `seed` decides ports and initial sequence numbers: to be drawn from the operating
    /// system's randomness, except in tests.
    pub fn new(mut config: Config, seed: u64, _: Instant) -> Self {
        config.mtu = config.mtu.clamp(1280, usize::from(u16::MAX));
        Self {
            tcp: config.tcp(),
            config,
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
            random: Random(seed),
            generation: 0,
        }
    }

    /// Takes in one IPv6 packet from a peer. The caller has checked that the source address is that peer's.
    ///
    /// Whatever the bytes, the worst that happens is a count in [`Counters`]. Answers leave with the next
    /// [`poll`](Self::poll): injecting a batch before polling makes one acknowledgement do for the batch.
    pub fn inject(&mut self, now: Instant, packet: &[u8]) {
        let Some(packet) = Ipv6::parse(packet).filter(|packet| is_unicast(&packet.src())) else {
            self.counters.malformed += 1;
            return;
        };
        if !self.config.addresses.contains(&packet.dst()) {
            self.counters.foreign += 1;
            return;
        }
        match packet.next_header() {
            ip::TCP => self.inject_tcp(now, &packet),
            ip::UDP => self.inject_datagram(&packet),
            ip::ICMPV6 => self.inject_echo(&packet),
            ip::TSMP => self.inject_tsmp(&packet),
            _ => self.counters.unsupported += 1,
        }
    }

    /// Sends everything there is to send, until the sink is full.
    pub fn poll(&mut self, now: Instant, sink: &mut impl Sink) {
        self.counters.held_expired += self.waiting.expire(now);
        while let Some((due, index)) = self.timers.next(&mut self.connections)
            && due <= now
        {
            self.expire(index);
        }
        if !self.outbox.flush(sink) {
            return;
        }
        while let Some(index) = self.dirty.pop_front() {
            match self.transmit(now, index, sink) {
                Turn::Done => self.settle(index),
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
        for _ in 0..TURN {
            let Some(room) = sink.buffer(connection.key.remote.ip()) else { return Turn::Full };
            let room = room.get_mut(..self.config.mtu).unwrap_or_default();
            let Some(written) = connection.write(now, room) else {
                connection.dirty = false;
                return Turn::Done;
            };
            sink.commit(written);
        }
        connection.dirty = false;
        Turn::More
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

    /// A connection's deadline has passed.
    fn expire(&mut self, index: u32) {
        if let Some(connection) = self.connections.get_mut(index as usize) {
            self.timers.set(&mut connection.timer, None, index, connection.flow.generation);
        }
        self.touch(index);
    }

    /// A connection has nothing to send now: reports what changed and finds out when to look again.
    fn settle(&mut self, index: u32) {
        self.notice(index);
        let Some(connection) = self.connections.get_mut(index as usize) else { return };
        if connection.is_done() {
            self.remove(index);
            return;
        }
        let due = connection.tcp.poll_at();
        self.timers.set(&mut connection.timer, due, index, connection.flow.generation);
    }

    /// Reports what changed at a connection.
    pub(crate) fn notice(&mut self, index: u32) {
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

    pub(crate) fn queue_or_fail(&mut self, packet: Vec<u8>) -> Result<(), SendError> {
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

    /// Forgets a connection.
    pub(crate) fn remove(&mut self, index: u32) {
        if let Some(connection) = self.connections.try_remove(index as usize) {
            if self.by_key.get(&connection.key) == Some(&index) {
                self.by_key.remove(&connection.key);
            }
            self.last = None;
        }
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

/// Whether a packet may come from this address.
fn is_unicast(address: &Ipv6Addr) -> bool {
    !address.is_unspecified() && !address.is_multicast()
}

/// A small generator of well-spread numbers from a seed (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
