//! One direction of a path: a bottleneck link with a finite queue, then a delay.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// What a [`Bottleneck`] does to packets. They are never reordered.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Bytes per second the link carries.
    pub rate: u64,
    /// Propagation delay, one way.
    pub delay: Duration,
    /// Bytes that may wait for the link; what comes on top is dropped.
    pub queue: u64,
    /// Packets lost at random, of a million, before they reach the queue.
    pub loss: u32,
    /// Packets lost at random, of a million, after they left the queue.
    pub loss_behind: u32,
    /// Delay added at random, from nothing up to this.
    pub jitter: Duration,
    /// Packets arrive in bunches this far apart, as over a radio link. Zero: each at its time.
    pub slot: Duration,
    /// A token bucket in front of the queue: bytes per second, and bytes it holds. What finds no token is dropped.
    pub policer: Option<(u64, u64)>,
    /// Nothing gets through.
    pub blocked: bool,
}

impl Shape {
    /// A clean link: no loss, no jitter, no policer.
    pub fn new(rate: u64, delay: Duration, queue: u64) -> Self {
        Self {
            rate,
            delay,
            queue,
            loss: 0,
            loss_behind: 0,
            jitter: Duration::ZERO,
            slot: Duration::ZERO,
            policer: None,
            blocked: false,
        }
    }
}

#[derive(Debug)]
struct Packet<T> {
    leaves: Instant,
    arrives: Instant,
    bytes: u64,
    item: T,
}

/// One direction of a path, under the caller's clock.
#[derive(Debug)]
pub struct Bottleneck<T> {
    shape: Shape,
    rng: ChaCha8Rng,
    start: Instant,
    packets: VecDeque<Packet<T>>,
    free_at: Instant,
    last_arrival: Instant,
    tokens: f64,
    tokens_at: Instant,
    dropped: u64,
}

impl<T> Bottleneck<T> {
    /// An empty path; chance comes from `seed`.
    pub fn new(shape: Shape, start: Instant, seed: u64) -> Self {
        let burst = shape.policer.map_or(0.0, |(_, burst)| burst as f64);
        Self {
            shape,
            rng: ChaCha8Rng::seed_from_u64(seed),
            start,
            packets: VecDeque::new(),
            free_at: start,
            last_arrival: start,
            tokens: burst,
            tokens_at: start,
            dropped: 0,
        }
    }

    /// How it behaves now.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Changes how it behaves; what waits in the queue leaves at the new rate.
    pub fn reshape(&mut self, now: Instant, shape: Shape) {
        self.shape = shape;
        self.free_at = now;
        self.last_arrival = self.start;
        for packet in &mut self.packets {
            if packet.leaves > now {
                self.free_at += Duration::from_secs_f64(packet.bytes as f64 / shape.rate as f64);
                packet.leaves = self.free_at;
                packet.arrives = packet.leaves + shape.delay;
            }
            packet.arrives = packet.arrives.max(self.last_arrival);
            self.last_arrival = packet.arrives;
        }
    }

    /// How long a packet sent now waits before the link takes it.
    pub fn queueing(&self, now: Instant) -> Duration {
        self.free_at.saturating_duration_since(now)
    }

    /// Packets that did not get through so far, for whatever reason.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Sends a packet; `false` when it is lost.
    pub fn send(&mut self, now: Instant, bytes: u64, item: T) -> bool {
        let waiting = self.queueing(now).as_secs_f64() * self.shape.rate as f64;
        let lost = self.shape.blocked
            || self.chance(self.shape.loss)
            || !self.police(now, bytes)
            || waiting as u64 > self.shape.queue;
        if lost {
            self.dropped += 1;
            return false;
        }
        let leaves = self.free_at.max(now) + Duration::from_secs_f64(bytes as f64 / self.shape.rate as f64);
        self.free_at = leaves;
        if self.chance(self.shape.loss_behind) {
            self.dropped += 1;
            return false;
        }
        let delayed = leaves + self.shape.delay + self.jitter();
        let arrives = self.bunched(delayed).max(self.last_arrival);
        self.last_arrival = arrives;
        self.packets.push_back(Packet { leaves, arrives, bytes, item });
        true
    }

    /// When the next packet arrives.
    pub fn next_at(&self) -> Option<Instant> {
        self.packets.front().map(|packet| packet.arrives)
    }

    /// The next packet that has arrived by `now`.
    pub fn arrived(&mut self, now: Instant) -> Option<T> {
        self.packets.pop_front_if(|packet| packet.arrives <= now).map(|packet| packet.item)
    }

    fn chance(&mut self, per_million: u32) -> bool {
        per_million > 0 && self.rng.next_u32() % 1_000_000 < per_million
    }

    fn jitter(&mut self) -> Duration {
        if self.shape.jitter.is_zero() {
            return Duration::ZERO;
        }
        self.shape.jitter.mul_f64(f64::from(self.rng.next_u32()) / f64::from(u32::MAX))
    }

    fn police(&mut self, now: Instant, bytes: u64) -> bool {
        let Some((rate, burst)) = self.shape.policer else { return true };
        let earned = now.saturating_duration_since(self.tokens_at).as_secs_f64() * rate as f64;
        self.tokens = (self.tokens + earned).min(burst as f64);
        self.tokens_at = now;
        let enough = self.tokens >= bytes as f64;
        if enough {
            self.tokens -= bytes as f64;
        }
        enough
    }

    fn bunched(&self, at: Instant) -> Instant {
        let slot = self.shape.slot.as_nanos();
        if slot == 0 {
            return at;
        }
        let slots = (at - self.start).as_nanos().div_ceil(slot);
        self.start + Duration::from_nanos((slots * slot) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_packet_takes_its_time_on_the_link_and_the_delay() {
        let start = Instant::now();
        let mut path = Bottleneck::new(Shape::new(1_000_000, millis(10), 10_000), start, 1);
        assert!(path.send(start, 1000, 'a'));
        assert!(path.send(start, 1000, 'b'));
        assert_eq!(path.queueing(start), millis(2));
        assert_eq!(path.next_at(), Some(start + millis(11)));
        assert_eq!(path.arrived(start + millis(11)), Some('a'));
        assert_eq!(path.arrived(start + millis(11)), None);
        assert_eq!(path.arrived(start + millis(12)), Some('b'));
    }

    #[test]
    fn what_does_not_fit_is_dropped() {
        let start = Instant::now();
        let mut path = Bottleneck::new(Shape::new(1_000_000, millis(10), 3000), start, 1);
        let sent = (0..10).filter(|n| path.send(start, 1000, *n)).count();
        assert_eq!(sent, 4, "one is on the link, the others wait");
        assert_eq!(path.dropped(), 6);
    }

    #[test]
    fn a_slower_link_keeps_what_waits() {
        let start = Instant::now();
        let mut path = Bottleneck::new(Shape::new(1_000_000, millis(10), 10_000), start, 1);
        (0..3).for_each(|n| assert!(path.send(start, 1000, n)));
        path.reshape(start, Shape::new(100_000, millis(10), 10_000));
        assert_eq!(path.next_at(), Some(start + millis(20)));
        assert_eq!(path.queueing(start), millis(30));
    }

    #[test]
    fn a_policer_lets_its_burst_and_then_its_rate_through() {
        let start = Instant::now();
        let shape = Shape { policer: Some((100_000, 5000)), ..Shape::new(1_000_000_000, millis(1), 100_000) };
        let mut path = Bottleneck::new(shape, start, 1);
        let through = |path: &mut Bottleneck<u32>, at| (0..10).filter(|n| path.send(at, 1000, *n)).count();
        assert_eq!(through(&mut path, start), 5);
        assert_eq!(through(&mut path, start + millis(20)), 2);
    }

    #[test]
    fn bunches_arrive_on_their_slots() {
        let start = Instant::now();
        let shape = Shape { slot: millis(4), ..Shape::new(1_000_000, millis(10), 10_000) };
        let mut path = Bottleneck::new(shape, start, 1);
        (0..3).for_each(|n| assert!(path.send(start, 500, n)));
        assert_eq!(path.next_at(), Some(start + millis(12)));
        assert_eq!((0..3).filter_map(|_| path.arrived(start + millis(12))).count(), 3);
    }
}
