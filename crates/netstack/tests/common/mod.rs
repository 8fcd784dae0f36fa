//! Two stacks on a link in virtual time.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::{Duration, Instant};

use netstack::{Config, Event, Flow, Sink, Stack};

pub const A: &str = "fd7a:115c:a1e0:4111:8222:3333:4444:5555";
pub const B: &str = "fd7a:115c:a1e0:4b0f:9be3:2a1d:7e5c:9f10";

/// Collects packets, up to a limit.
pub struct Collect {
    pub packets: Vec<Vec<u8>>,
    pub limit: usize,
}

impl Collect {
    pub fn all() -> Self {
        Self { packets: Vec::new(), limit: usize::MAX }
    }
}

impl Sink for Collect {
    fn buffer(&mut self, _: &Ipv6Addr) -> Option<&mut [u8]> {
        if self.packets.last().is_none_or(|packet| packet.len() != 1280 || packet[0] != 0) {
            if self.packets.len() >= self.limit {
                return None;
            }
            self.packets.push(vec![0; 1280]);
        }
        self.packets.last_mut().map(Vec::as_mut_slice)
    }

    fn commit(&mut self, len: usize) {
        self.packets.last_mut().unwrap().truncate(len);
    }
}

/// What a stack has to send now.
pub fn drain(stack: &mut Stack, now: Instant) -> Vec<Vec<u8>> {
    let mut sink = Collect::all();
    stack.poll(now, &mut sink);
    sink.packets.retain(|packet| packet[0] != 0);
    sink.packets
}

pub fn address(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

pub fn at(text: &str, port: u16) -> SocketAddrV6 {
    SocketAddrV6::new(address(text), port, 0, 0)
}

pub fn config(text: &str) -> Config {
    Config::new(vec![address(text)])
}

/// Everything the packets of one direction suffer.
#[derive(Clone, Copy, Default)]
pub struct Weather {
    pub loss: f64,
    pub duplicate: f64,
    pub reorder: f64,
    pub down: bool,
}

pub struct Net {
    pub now: Instant,
    pub a: Stack,
    pub b: Stack,
    pub weather: Weather,
    pub delay: Duration,
    pub sent: usize,
    /// By time of arrival, then by order of sending.
    queue: BTreeMap<(Instant, usize), (bool, Vec<u8>)>,
    random: u64,
}

impl Net {
    pub fn new(seed: u64) -> Self {
        Self::with(seed, config(A), config(B))
    }

    pub fn with(seed: u64, a: Config, b: Config) -> Self {
        let now = Instant::now();
        Self {
            now,
            a: Stack::new(a, seed, now),
            b: Stack::new(b, seed + 1, now),
            weather: Weather::default(),
            delay: Duration::from_millis(5),
            sent: 0,
            queue: BTreeMap::new(),
            random: seed * 2 + 1,
        }
    }

    pub fn chance(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    fn schedule(&mut self, to_b: bool, packet: Vec<u8>) {
        assert!(packet.len() <= 1280);
        self.sent += 1;
        if self.weather.down || self.chance() < self.weather.loss {
            return;
        }
        if self.chance() < self.weather.duplicate {
            self.queue.insert((self.now + self.delay * 2, self.sent), (to_b, packet.clone()));
        }
        let late = if self.chance() < self.weather.reorder { self.delay / 5 } else { Duration::ZERO };
        self.queue.insert((self.now + self.delay + late, self.sent), (to_b, packet));
    }

    /// Lets both ends send; when something happens next.
    fn send(&mut self) -> Option<Instant> {
        for packet in drain(&mut self.a, self.now) {
            self.schedule(true, packet);
        }
        for packet in drain(&mut self.b, self.now) {
            self.schedule(false, packet);
        }
        let arrival = self.queue.keys().next().map(|key| key.0);
        [arrival, self.a.poll_at(self.now), self.b.poll_at(self.now)].into_iter().flatten().min()
    }

    fn arrive(&mut self, next: Instant) {
        self.now = self.now.max(next);
        while let Some(entry) = self.queue.first_entry()
            && entry.key().0 <= self.now
        {
            let (to_b, packet) = entry.remove();
            if to_b { self.b.inject(self.now, &packet) } else { self.a.inject(self.now, &packet) }
        }
    }

    /// Lets both ends send, then moves to the next thing that happens; false when nothing ever will.
    pub fn step(&mut self) -> bool {
        let next = self.send();
        next.into_iter().for_each(|next| self.arrive(next));
        next.is_some()
    }

    /// Steps until `done` says so.
    pub fn run(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..2_000_000 {
            if done(self) {
                return;
            }
            assert!(self.step(), "nothing will ever happen again");
        }
        panic!("no end in sight");
    }

    /// Lets `span` pass.
    pub fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(next) = self.send()
            && next <= end
        {
            self.arrive(next);
        }
        self.now = end;
    }

    /// A connection from `a` to `port` of `b`.
    pub fn connect(&mut self, port: u16) -> (Flow, Flow) {
        let out = self.a.connect(self.now, at(B, port)).unwrap();
        let (mut into, mut up) = (None, 0);
        self.run(|net| {
            for event in events(&mut net.b) {
                match event {
                    Event::Incoming { id, to, .. } if to.port() == port => into = net.b.accept(net.now, id),
                    Event::Connected(flow) if Some(flow) == into => up += 1,
                    _ => {}
                }
            }
            up += usize::from(events(&mut net.a).contains(&Event::Connected(out)));
            up == 2
        });
        (out, into.unwrap())
    }
}

pub fn events(stack: &mut Stack) -> Vec<Event> {
    std::iter::from_fn(|| stack.next_event()).collect()
}

/// Sends as much of `data` as there is room for.
pub fn send(stack: &mut Stack, now: Instant, flow: Flow, data: &[u8]) -> usize {
    let mut sent = 0;
    loop {
        let more = stack.send(now, flow, |room| {
            let len = room.len().min(data.len() - sent);
            room[..len].copy_from_slice(&data[sent..sent + len]);
            len
        });
        sent += more;
        if more == 0 || sent == data.len() {
            return sent;
        }
    }
}

/// Receives everything there is.
pub fn recv(stack: &mut Stack, flow: Flow, into: &mut Vec<u8>) -> usize {
    let before = into.len();
    while stack.recv(flow, |data| {
        into.extend_from_slice(data);
        data.len()
    }) > 0
    {}
    into.len() - before
}

/// Bytes that differ everywhere.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}
