//! One direction of the link: what it does to packets, with the time as an argument and no device anywhere.
//!
//! A packet that arrives is lost, refused, or given the instant it leaves at: after everything before it was put on
//! the wire at the link's rate, plus the delay. The queue limit counts the bytes not yet on the wire; what is under way
//! afterwards takes no room.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::Serialize;

/// A packet in a buffer that is used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// As long as the longest packet.
    pub buffer: Box<[u8]>,
    /// Bytes of it that are the packet.
    pub len: usize,
}

impl Packet {
    /// The packet itself.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

/// How one direction treats packets.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Bits per second, of whole IP packets; none: as fast as they come.
    pub rate: Option<u64>,
    /// From the last bit on the wire to its arrival.
    pub delay: Duration,
    /// Up to this much is added to each delay, evenly spread; order is kept.
    pub jitter: Duration,
    /// Share of packets, from 0 to 1, that are held back and so overtaken.
    pub reorder: f64,
    /// How long those are held back.
    pub hold: Duration,
    /// Share of packets, from 0 to 1, that are lost.
    pub loss: f64,
    /// Mean number of packets lost in a row (Gilbert-Elliott); 1: each on its own.
    pub burst: f64,
    /// Bytes that may wait for the wire; more are refused at the tail.
    pub limit: usize,
    /// Longer packets vanish without a word: a path MTU black hole.
    pub largest: usize,
    /// A link that is down loses everything.
    pub up: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rate: None,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            reorder: 0.0,
            hold: Duration::from_millis(3),
            loss: 0.0,
            burst: 1.0,
            limit: 1 << 20,
            largest: usize::MAX,
            up: true,
        }
    }
}

/// What became of the packets of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// All that came.
    pub arrived: u64,
    /// Their bytes.
    pub arrived_bytes: u64,
    /// All that left at the other end.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Taken by chance.
    pub lost: u64,
    /// Refused by a full queue.
    pub overflowed: u64,
    /// Longer than the largest allowed.
    pub too_long: u64,
    /// Arrived while the link was down.
    pub down: u64,
    /// Held back on purpose.
    pub reordered: u64,
}

/// One direction.
#[derive(Debug)]
pub struct Lane {
    settings: Settings,
    counters: Counters,
    chance: ChaCha8Rng,
    in_bad_state: bool,
    wire_free: Instant,
    /// Bit-nanoseconds that a whole nanosecond of `wire_free` could not hold, so that the rate is exact.
    remainder: u64,
    last_due: Instant,
    under_way: VecDeque<(Instant, Packet)>,
}

impl Lane {
    /// A direction with nothing under way. The same seed loses the same packets.
    pub fn new(settings: Settings, seed: u64, now: Instant) -> Self {
        Self {
            settings,
            counters: Counters::default(),
            chance: ChaCha8Rng::seed_from_u64(seed),
            in_bad_state: false,
            wire_free: now,
            remainder: 0,
            last_due: now,
            under_way: VecDeque::new(),
        }
    }

    /// To change how packets that arrive from now on are treated.
    pub fn settings(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// What became of the packets so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Takes a packet in, or gives it back when it is not to be delivered.
    pub fn arrive(&mut self, now: Instant, packet: Packet) -> Option<Packet> {
        self.counters.arrived += 1;
        self.counters.arrived_bytes += packet.len as u64;
        let fate = if !self.settings.up {
            &mut self.counters.down
        } else if packet.len > self.settings.largest {
            &mut self.counters.too_long
        } else if self.is_lost() {
            &mut self.counters.lost
        } else if self.backlog(now) + packet.len > self.settings.limit {
            &mut self.counters.overflowed
        } else {
            self.admit(now, packet);
            return None;
        };
        *fate += 1;
        Some(packet)
    }

    /// When the next packet leaves.
    pub fn next_departure(&self) -> Option<Instant> {
        self.under_way.front().map(|(due, _)| *due)
    }

    /// A packet that leaves by now.
    pub fn depart(&mut self, now: Instant) -> Option<Packet> {
        if self.next_departure()? > now {
            return None;
        }
        let (_, packet) = self.under_way.pop_front()?;
        self.counters.delivered += 1;
        self.counters.delivered_bytes += packet.len as u64;
        Some(packet)
    }

    /// Bytes not yet on the wire.
    fn backlog(&self, now: Instant) -> usize {
        let Some(rate) = self.settings.rate else { return 0 };
        let wait = self.wire_free.saturating_duration_since(now).as_nanos();
        (wait * u128::from(rate) / 8_000_000_000) as usize
    }

    fn admit(&mut self, now: Instant, packet: Packet) {
        let sent = self.put_on_wire(now, packet.len);
        if self.settings.reorder > 0.0 && self.roll() < self.settings.reorder {
            self.counters.reordered += 1;
            let due = sent + self.settings.delay + self.settings.hold;
            let place = self.under_way.partition_point(|(other, _)| *other <= due);
            self.under_way.insert(place, (due, packet));
            return;
        }
        let mut extra = Duration::ZERO;
        if !self.settings.jitter.is_zero() {
            extra = self.settings.jitter.mul_f64(self.roll());
        }
        let due = (sent + self.settings.delay + extra).max(self.last_due);
        self.last_due = due;
        // Only those held back can stand behind it, so this looks at few.
        let mut place = self.under_way.len();
        while place > 0 && self.under_way[place - 1].0 > due {
            place -= 1;
        }
        self.under_way.insert(place, (due, packet));
    }

    /// The instant the last bit of a packet of so many bytes has left.
    fn put_on_wire(&mut self, now: Instant, len: usize) -> Instant {
        let Some(rate) = self.settings.rate else { return now };
        if self.wire_free < now {
            self.wire_free = now;
            self.remainder = 0;
        }
        let work = len as u64 * 8 * 1_000_000_000 + self.remainder;
        self.wire_free += Duration::from_nanos(work / rate);
        self.remainder = work % rate;
        self.wire_free
    }

    /// Gilbert-Elliott with two states, of which one loses everything: `loss` is the share of time in it and `burst` its
    /// mean length in packets.
    fn is_lost(&mut self) -> bool {
        let Settings { loss, burst, .. } = self.settings;
        if loss <= 0.0 {
            return false;
        }
        if burst <= 1.0 || loss >= 1.0 {
            return self.roll() < loss;
        }
        let leave_bad = 1.0 / burst;
        let enter_bad = loss * leave_bad / (1.0 - loss);
        let roll = self.roll();
        self.in_bad_state = if self.in_bad_state { roll >= leave_bad } else { roll < enter_bad };
        self.in_bad_state
    }

    /// From 0 up to 1.
    fn roll(&mut self) -> f64 {
        (self.chance.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(len: usize) -> Packet {
        Packet { buffer: vec![0; len.max(1)].into(), len }
    }

    fn numbered(number: u8) -> Packet {
        Packet { buffer: vec![number; 100].into(), len: 100 }
    }

    fn lane(settings: Settings) -> (Lane, Instant) {
        let now = Instant::now();
        (Lane::new(settings, 7, now), now)
    }

    fn departures(lane: &mut Lane) -> Vec<u8> {
        let end = Instant::now() + Duration::from_secs(3600);
        std::iter::from_fn(|| lane.depart(end)).map(|packet| packet.buffer[0]).collect()
    }

    fn share_lost(settings: Settings) -> (f64, f64) {
        let (mut lane, now) = lane(settings);
        let (mut lost, mut bursts, mut before) = (0u32, 0u32, false);
        for _ in 0..200_000 {
            let gone = lane.arrive(now, packet(100)).is_some();
            lost += u32::from(gone);
            bursts += u32::from(gone && !before);
            before = gone;
        }
        (f64::from(lost) / 200_000.0, f64::from(lost) / f64::from(bursts))
    }

    #[test]
    fn a_packet_leaves_after_its_bits_and_the_delay() {
        let (mut lane, now) =
            lane(Settings { rate: Some(8_000_000), delay: Duration::from_millis(10), ..Settings::default() });
        assert_eq!(lane.arrive(now, packet(1000)), None);
        assert_eq!(lane.arrive(now, packet(500)), None);
        let first = now + Duration::from_millis(11);
        assert_eq!(lane.next_departure(), Some(first));
        assert_eq!(lane.depart(first - Duration::from_nanos(1)), None);
        assert_eq!(lane.depart(first).map(|packet| packet.len), Some(1000));
        assert_eq!(lane.next_departure(), Some(first + Duration::from_micros(500)));
    }

    #[test]
    fn a_rate_that_divides_no_nanosecond_is_exact_over_time() {
        let (mut lane, now) =
            lane(Settings { rate: Some(999_999_937), limit: usize::MAX, ..Settings::default() });
        for _ in 0..1_000_000 {
            assert_eq!(lane.arrive(now, packet(1280)), None);
        }
        let exact = 1_000_000u128 * 1280 * 8 * 1_000_000_000 / 999_999_937;
        assert_eq!(lane.wire_free.duration_since(now).as_nanos(), exact);
    }

    #[test]
    fn the_queue_refuses_at_its_tail_and_drains_with_time() {
        let (mut lane, now) = lane(Settings { rate: Some(8_000_000), limit: 2000, ..Settings::default() });
        assert_eq!(lane.arrive(now, packet(1000)), None);
        assert_eq!(lane.arrive(now, packet(1000)), None);
        assert!(lane.arrive(now, packet(1000)).is_some());
        assert_eq!(lane.counters().overflowed, 1);
        assert_eq!(lane.arrive(now + Duration::from_millis(1), packet(1000)), None);
    }

    #[test]
    fn loss_takes_its_share_one_at_a_time() {
        let (share, burst) = share_lost(Settings { loss: 0.03, ..Settings::default() });
        assert!((0.028..0.032).contains(&share), "{share}");
        assert!(burst < 1.1, "{burst}");
    }

    #[test]
    fn loss_in_bursts_takes_the_same_share_in_a_row() {
        let (share, burst) = share_lost(Settings { loss: 0.03, burst: 5.0, ..Settings::default() });
        assert!((0.026..0.034).contains(&share), "{share}");
        assert!((4.5..5.5).contains(&burst), "{burst}");
    }

    #[test]
    fn the_same_seed_loses_the_same_packets() {
        let run = |seed| {
            let now = Instant::now();
            let mut lane = Lane::new(Settings { loss: 0.5, ..Settings::default() }, seed, now);
            (0..64).map(|_| lane.arrive(now, packet(1)).is_some()).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn jitter_keeps_the_order() {
        let (mut lane, now) = lane(Settings { jitter: Duration::from_millis(5), ..Settings::default() });
        for number in 0..100 {
            lane.arrive(now + Duration::from_micros(u64::from(number)), numbered(number));
        }
        assert_eq!(departures(&mut lane), (0..100).collect::<Vec<u8>>());
    }

    #[test]
    fn a_packet_held_back_is_overtaken() {
        let (mut lane, now) = lane(Settings { reorder: 1.0, ..Settings::default() });
        lane.arrive(now, numbered(0));
        lane.settings().reorder = 0.0;
        lane.arrive(now, numbered(1));
        lane.arrive(now + Duration::from_millis(4), numbered(2));
        assert_eq!(departures(&mut lane), [1, 0, 2]);
        assert_eq!(lane.counters().reordered, 1);
    }

    #[test]
    fn a_link_that_is_down_and_a_packet_that_is_too_long_deliver_nothing() {
        let (mut lane, now) = lane(Settings { largest: 1280, ..Settings::default() });
        assert!(lane.arrive(now, packet(1281)).is_some());
        lane.settings().up = false;
        assert!(lane.arrive(now, packet(1)).is_some());
        lane.settings().up = true;
        assert_eq!(lane.arrive(now, packet(1280)), None);
        let counters = lane.counters();
        assert_eq!((counters.too_long, counters.down, counters.arrived), (1, 1, 3));
    }
}
