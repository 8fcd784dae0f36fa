//! The receiving half: reassembly, the window that is offered, and when to acknowledge.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::chunks::Chunks;
use crate::config::Config;
use crate::ranges::{Range, Ranges};
use crate::segment::{MAX_BLOCKS, MAX_SHIFT, OptionsOut};

/// Where the receive buffer starts.
const BUFFER: u64 = 256 << 10;
/// Most gaps in what was received.
const GAPS: usize = 4096;
/// Most ranges of which the order of arrival is remembered.
const RECENT: usize = 32;
/// A segment below this is not taken for full (RFC 9293 section 3.7.1: every path carries this much).
const LEAST_FULL: u64 = 536;
/// How long an acknowledgement may wait for company.
const DELAY: Duration = Duration::from_millis(40);
/// Shortest time over which the application's appetite is measured.
const LEAST_PERIOD: Duration = Duration::from_millis(2);
/// Longer than this is no round trip: the sender just has not more to send.
const LONGEST_LAP: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Receiver {
    buffer: Chunks,
    /// The first position not received.
    pub(crate) nxt: u64,
    /// The first position the application has not taken.
    read: u64,
    /// What is below this was promised to be accepted.
    promised: u64,
    pub(crate) shift: u8,
    pub(crate) sack: bool,
    mss: u64,
    /// What the peer fills its segments with, as far as seen.
    full: u64,
    size: u64,
    max_size: u64,
    /// What arrived beyond `nxt`.
    beyond: Ranges,
    /// A position in each of the ranges heard of last, the latest first.
    recent: VecDeque<u64>,
    /// How many of these, from the front, were not reported yet.
    untold: usize,
    /// What arrived twice and was not reported yet.
    duplicate: Option<Range>,
    /// Position of the peer's FIN.
    fin: Option<u64>,
    unacknowledged: u64,
    pub(crate) ack_now: bool,
    ack_at: Option<Instant>,
    /// The application took enough for the window to be worth telling.
    opened: bool,
    clock: Instant,
    round_trip: Duration,
    period: (Instant, u64),
    /// Arrival of this position ends a measurement of the round trip.
    lap: Option<(u64, Instant)>,
}

impl Receiver {
    /// A receiver whose shift is not agreed on yet and whose first data byte will have position `start`.
    pub fn new(config: &Config, start: u64, now: Instant) -> Self {
        let max_size = (config.receive_buffer as u64).clamp(64 << 10, 65535 << MAX_SHIFT);
        let shift = (0..MAX_SHIFT).find(|shift| 65535 << shift >= max_size).unwrap_or(MAX_SHIFT);
        Self {
            buffer: Chunks::new(start),
            nxt: start,
            read: start,
            promised: start,
            shift,
            sack: false,
            mss: u64::from(config.mss),
            full: LEAST_FULL,
            size: BUFFER.min(max_size),
            max_size,
            beyond: Ranges::default(),
            recent: VecDeque::new(),
            untold: 0,
            duplicate: None,
            fin: None,
            unacknowledged: 0,
            ack_now: false,
            ack_at: None,
            opened: false,
            clock: now,
            round_trip: Duration::from_millis(100),
            period: (now, 0),
            lap: None,
        }
    }

    /// The peer's SYN was seen: data begins at `start`.
    pub fn begin(&mut self, start: u64) {
        self.buffer = Chunks::new(start);
        (self.nxt, self.read, self.promised) = (start, start, start + self.size.min(65535));
    }

    /// The peer does not scale windows.
    pub fn unscaled(&mut self) {
        self.shift = 0;
        self.max_size = self.max_size.min(65535);
        self.size = self.size.min(self.max_size);
    }

    /// What the connection knows of the round trip.
    pub fn round_trip(&mut self, sample: Duration) {
        self.round_trip = sample;
    }

    /// The right edge of what is accepted.
    pub fn edge(&self) -> u64 {
        self.promised
    }

    /// Whether all the peer sent, its FIN included, has arrived.
    pub fn finished(&self) -> bool {
        self.fin.is_some_and(|fin| self.nxt > fin)
    }

    /// Bytes the application can take.
    pub fn readable(&self) -> u64 {
        self.nxt - u64::from(self.finished()) - self.read
    }

    /// Takes in data at `start`, followed by a FIN or not.
    #[inline]
    pub fn arrives(&mut self, now: Instant, start: u64, payload: &[u8], fin: bool) {
        self.clock = now;
        let end = start + payload.len() as u64;
        if fin
            && end <= self.promised
            && self.fin.is_none()
            && end >= self.beyond.last().map_or(self.nxt, |last| last.1)
        {
            self.fin = Some(end);
        }
        let limit = self.fin.unwrap_or(u64::MAX).min(self.promised);
        let from = start.max(self.nxt).min(limit);
        if start < from && !payload.is_empty() {
            self.received_twice((start, from.min(end)));
        }
        let fresh = (from.min(end), end.min(limit));
        if fresh.0 < fresh.1 {
            let skip = (fresh.0 - start) as usize;
            let len = (fresh.1 - fresh.0) as usize;
            self.store(fresh, payload.get(skip..skip + len).unwrap_or_default());
        }
        if end > limit {
            self.ack_now = true;
        }
        if self.fin == Some(self.nxt) {
            self.nxt += 1;
            self.ack_now = true;
        } else if fin {
            self.ack_now = true;
        }
    }

    fn store(&mut self, range: Range, bytes: &[u8]) {
        if range.0 > self.nxt {
            return self.store_beyond(range, bytes);
        }
        self.buffer.write(range.0, bytes);
        self.nxt = range.1;
        self.unacknowledged += bytes.len() as u64;
        self.full = self.full.max(bytes.len() as u64).min(self.mss);
        if self.beyond.is_empty() {
            if self.unacknowledged >= 2 * self.full {
                self.ack_now = true;
            } else if self.ack_at.is_none() {
                self.ack_at = Some(self.clock + DELAY);
            }
        } else {
            self.ack_now = true;
            while let Some(reached) = self.beyond.take_reached(self.nxt) {
                self.nxt = self.nxt.max(reached.1);
            }
        }
        self.measure_lap();
    }

    fn store_beyond(&mut self, range: Range, bytes: &[u8]) {
        self.ack_now = true;
        if self.beyond.len() >= GAPS && !self.beyond.touches(range) {
            return;
        }
        let mut new = false;
        self.beyond.insert(range, |_| new = true);
        if !new {
            return self.received_twice(range);
        }
        self.buffer.write(range.0, bytes);
        self.heard_of(range.0);
    }

    fn received_twice(&mut self, range: Range) {
        self.ack_now = true;
        self.duplicate = match self.duplicate {
            Some(known) if range.0 <= known.1 && known.0 <= range.1 => {
                Some((known.0.min(range.0), known.1.max(range.1)))
            }
            _ => Some(range),
        };
        if range.0 >= self.nxt {
            self.heard_of(range.0);
        }
    }

    /// The range around `position` is to be the first that is reported.
    fn heard_of(&mut self, position: u64) {
        let range = self.beyond.around(position).unwrap_or((position, position + 1));
        let known = self.recent.iter().position(|at| (range.0..range.1).contains(at));
        if let Some(place) = known {
            self.recent.remove(place);
            self.untold -= usize::from(place < self.untold);
        }
        self.recent.push_front(position);
        self.recent.truncate(RECENT);
        self.untold = (self.untold + 1).min(RECENT);
    }

    /// The SACK option to send, empty if there is nothing to report. Ranges that found no room come with the next one,
    /// for which another acknowledgement leaves at once.
    pub fn report(&mut self) -> OptionsOut {
        let duplicate = self.duplicate.take();
        if !self.sack || (self.beyond.is_empty() && duplicate.is_none()) {
            self.untold = 0;
            return OptionsOut::default();
        }
        let mut blocks = [(0, 0); MAX_BLOCKS];
        let mut free = blocks.iter_mut();
        let mut count = 0;
        let mut add = |range: Range| {
            if let Some(block) = free.next() {
                *block = (range.0 as u32, range.1 as u32);
                count += 1;
            }
        };
        duplicate.into_iter().for_each(&mut add);
        let room = MAX_BLOCKS - usize::from(duplicate.is_some());
        let (nxt, beyond) = (self.nxt, &self.beyond);
        let (mut place, mut seen) = (0, [0; RECENT]);
        self.recent.retain(|&position| {
            let range = beyond.around(position).filter(|range| position >= nxt && !seen.contains(&range.0));
            let alive = range.is_some();
            if let (Some(range), Some(slot)) = (range, seen.get_mut(place)) {
                *slot = range.0;
            }
            self.untold -= usize::from(!alive && place < self.untold);
            place += usize::from(alive);
            alive
        });
        let told = room.min(self.recent.len());
        self.recent.iter().take(told).filter_map(|&position| beyond.around(position)).for_each(add);
        // What is told makes way for what is not.
        let untold = self.untold.saturating_sub(told);
        if untold > 0 {
            let told: Vec<u64> = self.recent.drain(..told).collect();
            for position in told.into_iter().rev() {
                self.recent.insert(untold, position);
            }
        }
        self.untold = untold;
        OptionsOut::sack(blocks.into_iter().take(count))
    }

    /// Whether there is something only an acknowledgement without data has room to say.
    pub fn has_report(&self) -> bool {
        self.sack && self.ack_now && (!self.beyond.is_empty() || self.duplicate.is_some())
    }

    /// Whether an acknowledgement should leave now.
    #[inline]
    pub fn wants_ack(&self, now: Instant) -> bool {
        self.ack_now || self.opened || self.ack_at.is_some_and(|at| at <= now)
    }

    /// When the acknowledgement must leave at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.ack_at
    }

    /// The window field of a segment that is about to leave, which acknowledges everything.
    #[inline]
    pub fn advertise(&mut self, syn: bool) -> u16 {
        let edge = self.read + self.size;
        // Silly windows are not offered (RFC 9293 section 3.8.6.2.2).
        if edge >= self.promised + self.mss.min(self.size / 2) {
            self.promised = if syn { edge.min(self.nxt + 65535) } else { edge };
        }
        self.unacknowledged = 0;
        self.ack_now = self.untold > 0;
        self.ack_at = None;
        self.opened = false;
        let shift = if syn { 0 } else { self.shift };
        u16::try_from(self.promised.saturating_sub(self.nxt) >> shift).unwrap_or(u16::MAX)
    }

    /// Offers what can be taken to `take`, which says how much it took.
    pub fn recv(&mut self, take: impl FnOnce(&[u8]) -> usize) -> usize {
        let readable = self.readable();
        if readable == 0 {
            return 0;
        }
        let bytes = self.buffer.read(self.read, usize::try_from(readable).unwrap_or(usize::MAX));
        let taken = take(bytes).min(bytes.len());
        self.read += taken as u64;
        self.buffer.release(self.read, taken as u64 == readable && self.beyond.is_empty());
        self.measure_appetite(taken as u64);
        let growth = (self.read + self.size).saturating_sub(self.promised);
        if !self.finished()
            && growth >= self.size / 4
            && self.promised.saturating_sub(self.nxt) < self.size / 2
        {
            self.opened = true;
        }
        taken
    }

    /// The buffer doubles when more than a quarter of it was taken within a round trip: while a hole is repaired, which
    /// takes one, more than another round trip's worth arrives.
    fn measure_appetite(&mut self, taken: u64) {
        let (began, before) = self.period;
        let over = self.clock.saturating_duration_since(began) >= self.round_trip.max(LEAST_PERIOD);
        let sum = if over { taken } else { before + taken };
        self.period = (if over { self.clock } else { began }, sum);
        if sum > self.size / 4 && self.size < self.max_size {
            self.size = (self.size * 2).min(self.max_size);
            self.period = (self.clock, 0);
        }
    }

    /// A window's worth of data takes a round trip, if the sender uses the window, and longer otherwise.
    fn measure_lap(&mut self) {
        match self.lap {
            Some((end, began)) if self.nxt >= end => {
                let sample = self.clock.saturating_duration_since(began);
                if sample < self.round_trip {
                    self.round_trip = sample;
                } else if sample < LONGEST_LAP {
                    self.round_trip += (sample - self.round_trip) / 8;
                }
                self.lap = Some((self.promised, self.clock));
            }
            Some(_) => {}
            None => self.lap = Some((self.promised, self.clock)),
        }
    }

    /// The receive buffer's size now.
    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn buffer(&mut self) -> &mut Chunks {
        &mut self.buffer
    }

    pub fn memory(&self) -> usize {
        self.buffer.held()
    }

    /// Whether memory can be given back.
    pub fn has_spare(&self) -> bool {
        self.buffer.has_spare()
    }
}
