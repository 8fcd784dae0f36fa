//! A connection whose peer is played by the test, in virtual time. Numbers are relative: 0 is a side's SYN, 1 its first
//! byte.
#![allow(dead_code)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tcp::congestion::{Ack, Controller};
use tcp::{ACK, Config, Connection, SYN, Segment, State};

/// Both numbers wrap soon.
pub const OURS: u32 = u32::MAX - 4000;
pub const THEIRS: u32 = u32::MAX - 3000;
/// Payload of a full segment.
pub const MSS: u32 = 1000;

pub const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A segment of the connection.
#[derive(Clone, PartialEq, Eq)]
pub struct Out {
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub sack: Vec<(u32, u32)>,
    pub options: Vec<u8>,
    pub data: Vec<u8>,
}

impl std::fmt::Debug for Out {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seq, ack, flags, window, sack, .. } = self;
        write!(f, "{seq}+{} ack {ack} flags {flags} window {window} sack {sack:?}", self.data.len())
    }
}

impl Out {
    pub fn range(&self) -> (u32, u32) {
        (self.seq, self.seq.wrapping_add(self.data.len() as u32))
    }
}

/// A segment of the peer.
#[derive(Clone, Debug)]
pub struct Say {
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub options: Vec<u8>,
    pub data: usize,
}

pub fn say(seq: u32, ack: u32) -> Say {
    Say { seq, ack, flags: ACK, window: 60_000, options: vec![], data: 0 }
}

impl Say {
    pub fn flags(self, flags: u8) -> Self {
        Self { flags, ..self }
    }

    pub fn window(self, window: u16) -> Self {
        Self { window, ..self }
    }

    pub fn data(self, data: usize) -> Self {
        Self { data, ..self }
    }

    pub fn options(self, options: &[u8]) -> Self {
        Self { options: options.to_vec(), ..self }
    }

    pub fn sack(self, blocks: &[(u32, u32)]) -> Self {
        let mut options = vec![1, 1, 5, 2 + 8 * blocks.len() as u8];
        for (start, end) in blocks {
            options.extend(OURS.wrapping_add(*start).to_be_bytes());
            options.extend(OURS.wrapping_add(*end).to_be_bytes());
        }
        Self { options, ..self }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let options = self.options.len().next_multiple_of(4);
        let mut out = vec![0; 20 + options];
        out[..2].copy_from_slice(&5000u16.to_be_bytes());
        out[2..4].copy_from_slice(&80u16.to_be_bytes());
        out[4..8].copy_from_slice(&THEIRS.wrapping_add(self.seq).to_be_bytes());
        out[8..12].copy_from_slice(&OURS.wrapping_add(self.ack).to_be_bytes());
        out[12] = ((20 + options) as u8 / 4) << 4;
        out[13] = self.flags;
        out[14..16].copy_from_slice(&self.window.to_be_bytes());
        out[20..20 + self.options.len()].copy_from_slice(&self.options);
        out.extend((0..self.data).map(|at| pattern(self.seq.wrapping_add(at as u32))));
        out
    }
}

/// The byte at a relative number.
pub fn pattern(at: u32) -> u8 {
    (at.wrapping_mul(0x9e37_79b9) >> 24) as u8
}

/// What a controller is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Congestion,
    Recovered,
    Timeout,
    Spurious,
}

/// A controller that does nothing but write down.
#[derive(Clone, Debug)]
pub struct Fixed {
    pub window: u64,
    pub pace: Option<u64>,
    pub told: Arc<Mutex<Vec<Told>>>,
    pub acks: Arc<Mutex<Vec<Ack>>>,
}

impl Fixed {
    fn note(&self, told: Told) {
        self.told.lock().unwrap().push(told);
    }
}

impl Controller for Fixed {
    fn window(&self) -> u64 {
        self.window
    }

    fn pacing_rate(&self) -> Option<u64> {
        self.pace
    }

    fn on_sent(&mut self, _: Instant, _: u64, _: u64, _: bool) {}

    fn on_ack(&mut self, ack: &Ack) {
        self.acks.lock().unwrap().push(*ack);
    }

    fn on_congestion(&mut self, _: Instant, _: u64) {
        self.note(Told::Congestion);
    }

    fn on_recovered(&mut self, _: Instant) {
        self.note(Told::Recovered);
    }

    fn on_timeout(&mut self, _: Instant, _: u64) {
        self.note(Told::Timeout);
    }

    fn on_spurious(&mut self, _: Instant) {
        self.note(Told::Spurious);
    }

    fn name(&self) -> &'static str {
        "fixed"
    }
}

/// The conversation.
pub struct Script {
    pub start: Instant,
    pub now: Instant,
    pub conn: Connection,
    pub told: Arc<Mutex<Vec<Told>>>,
    pub acks: Arc<Mutex<Vec<Ack>>>,
}

/// MSS 1000, scale 7, SACK permitted.
pub const OFFER: [u8; 12] = [2, 4, 3, 232, 1, 3, 3, 7, 4, 2, 0, 0];

pub fn config() -> Config {
    Config { mss: MSS as u16, keepalive: None, ..Config::default() }
}

impl Script {
    pub fn of(conn: impl FnOnce(Instant) -> Connection) -> Self {
        let now = Instant::now();
        let (told, acks) = (Arc::default(), Arc::default());
        let fixed = Fixed { window: 100_000, pace: None, told: Arc::clone(&told), acks: Arc::clone(&acks) };
        Self { start: now, now, conn: conn(now).with_controller(Box::new(fixed)), told, acks }
    }

    pub fn window(&mut self, window: u64, pace: Option<u64>) {
        let fixed = Fixed { window, pace, told: self.told.clone(), acks: self.acks.clone() };
        let now = self.now;
        let spare = Connection::connect(&config(), 1, 1, 0, now);
        self.conn = std::mem::replace(&mut self.conn, spare).with_controller(Box::new(fixed));
    }

    pub fn connecting(config: &Config) -> Self {
        Self::of(|now| Connection::connect(config, 80, 5000, OURS, now))
    }

    pub fn accepting(config: &Config, syn: &Say) -> Self {
        let bytes = syn.bytes();
        Self::of(|now| Connection::accept(config, OURS, &Segment::parse(&bytes).unwrap(), now).unwrap())
    }

    /// An established connection with a round trip of 10 ms.
    pub fn open() -> Self {
        Self::open_with(&config(), &OFFER)
    }

    pub fn open_with(config: &Config, offer: &[u8]) -> Self {
        let mut script = Self::accepting(config, &say(0, 0).flags(SYN).options(offer));
        assert_eq!(script.hear().len(), 1);
        script.wait(ms(10));
        script.tell(say(1, 1));
        assert_eq!(script.conn.state(), State::Established);
        script
    }

    pub fn tell(&mut self, say: Say) {
        self.conn.arrives(self.now, &Segment::parse(&say.bytes()).unwrap());
        assert!(self.conn.is_consistent());
    }

    /// Tells and says what comes back at once.
    pub fn ask(&mut self, say: Say) -> Vec<Out> {
        self.tell(say);
        self.hear()
    }

    /// Everything that leaves now.
    pub fn hear(&mut self) -> Vec<Out> {
        let mut room = vec![0; 1500];
        let mut all = Vec::new();
        while let Some(len) = self.conn.poll(self.now, &mut room) {
            let segment = Segment::parse(&room[..len]).unwrap();
            let mut sack = Vec::new();
            if let [1, 1, 5, _, blocks @ ..] = segment.options {
                let number =
                    |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap()).wrapping_sub(THEIRS);
                sack.extend(blocks.chunks(8).map(|block| (number(&block[..4]), number(&block[4..]))));
            }
            all.push(Out {
                seq: segment.seq.wrapping_sub(OURS),
                ack: if segment.has(ACK) { segment.ack.wrapping_sub(THEIRS) } else { 0 },
                flags: segment.flags,
                window: segment.window,
                sack,
                options: segment.options.to_vec(),
                data: segment.payload.to_vec(),
            });
            assert!(all.len() < 100_000, "no end");
        }
        assert!(self.conn.is_consistent());
        assert!(
            self.conn.poll_at().is_none_or(|at| at > self.now),
            "nothing left to do, and yet not waiting"
        );
        all
    }

    pub fn wait(&mut self, span: Duration) {
        self.now += span;
    }

    /// What leaves during `span`, and when since the script's begin.
    pub fn pass(&mut self, span: Duration) -> Vec<(Duration, Out)> {
        let end = self.now + span;
        let mut all = Vec::new();
        loop {
            let now = self.now;
            all.extend(self.hear().into_iter().map(|out| (now - self.start, out)));
            match self.conn.poll_at() {
                Some(at) if at <= end => self.now = at,
                _ => break,
            }
        }
        self.now = end;
        all
    }

    /// Queues `len` bytes.
    pub fn send(&mut self, len: usize) {
        let mut left = len;
        while left > 0 {
            let filled = self.conn.send(self.now, |room| {
                let len = room.len().min(left);
                room[..len].fill(7);
                len
            });
            assert!(filled > 0, "no room");
            left -= filled;
        }
    }

    /// Sends `count` full segments, which must leave at once.
    pub fn flight(&mut self, count: u32) -> Vec<Out> {
        self.send((count * MSS) as usize);
        let out = self.hear();
        assert_eq!(out.len(), count as usize);
        out
    }

    pub fn recv(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while self.conn.recv(|data| {
            all.extend_from_slice(data);
            data.len()
        }) > 0
        {}
        all
    }

    pub fn told(&self) -> Vec<Told> {
        std::mem::take(&mut *self.told.lock().unwrap())
    }
}

/// The numbers of the `index`th full segment, its first byte and one past its last.
pub fn segment(index: u32) -> (u32, u32) {
    (1 + index * MSS, 1 + (index + 1) * MSS)
}

pub fn ranges(out: &[Out]) -> Vec<(u32, u32)> {
    out.iter().filter(|out| !out.data.is_empty()).map(Out::range).collect()
}
