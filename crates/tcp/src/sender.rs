//! The sending half: what is queued, what may leave, and what is written down about it.

use std::time::{Duration, Instant};

use crate::board::{Board, Fate, Sent};
use crate::chunks::Chunks;
use crate::config::Config;
use crate::congestion::Controller;
use crate::pacer::Pacer;
use crate::prr::Prr;
use crate::rack::Rack;
use crate::rate::Rate;
use crate::recovery::{Frto, Probe, Refutation};
use crate::rtt::Rtt;

/// Least send buffer.
const BUFFER: u64 = 256 << 10;
/// Most segments on the scoreboard.
const SEGMENTS: usize = 1 << 16;
/// Least segment size, whatever the peer asks for.
const LEAST_MSS: u64 = 64;

/// A segment that is to be written now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing {
    pub start: u64,
    pub len: usize,
    pub fin: bool,
    /// Nothing is queued behind it.
    pub last: bool,
}

/// What keeps the next segment back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Obstacle {
    /// Nothing is queued.
    Nothing,
    /// The peer's window.
    Window,
    /// The congestion window, or the scoreboard.
    Congestion,
    /// Its time has not come.
    Pace,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) buffer: Chunks,
    /// The first position not acknowledged.
    pub(crate) una: u64,
    /// The first position not sent.
    pub(crate) nxt: u64,
    /// The end of what is queued.
    pub(crate) end: u64,
    /// A FIN follows what is queued.
    pub(crate) fin: bool,
    pub(crate) window: u64,
    max_window: u64,
    /// Sequence and acknowledgement number of the last window update (RFC 9293: WL1, WL2).
    updated_by: (u64, u64),
    pub(crate) shift: u8,
    pub(crate) mss: u64,
    pub(crate) sack: bool,
    /// The send buffer's size: it does not shrink while something is queued.
    size: u64,
    max_size: u64,
    pub(crate) retransmit_limit: Duration,
    pub(crate) board: Board,
    pub(crate) rack: Rack,
    pub(crate) rtt: Rtt,
    pub(crate) rate: Rate,
    pub(crate) pacer: Pacer,
    pub(crate) prr: Option<Prr>,
    pub(crate) controller: Box<dyn Controller>,
    pub(crate) cwnd: u64,
    pub(crate) pace: Option<u64>,
    /// A recovery episode lasts until this is acknowledged.
    pub(crate) recovery: Option<u64>,
    /// The episode began with a timeout.
    pub(crate) timed_out: bool,
    pub(crate) frto: Frto,
    pub(crate) refutation: Refutation,
    pub(crate) probe: Option<Probe>,
    pub(crate) probe_due: bool,
    /// Timeouts in a row, or probes of a closed window.
    pub(crate) retries: u32,
    /// Acknowledgements in a row that said nothing new, of a peer that does not speak SACK.
    pub(crate) repeated: u32,
    /// When the retransmission timer was last started anew.
    pub(crate) timer_base: Instant,
    /// When something was last sent or acknowledged.
    pub(crate) progress: Instant,
    /// When a closed window was noticed, or last probed.
    pub(crate) closed_since: Option<Instant>,
    /// The next segment may be as small as the peer's window makes it.
    pub(crate) force: bool,
    pub(crate) app_limited: bool,
    paced_out: bool,
    pub(crate) retransmitted_segments: u64,
    pub(crate) retransmitted_bytes: u64,
    pub(crate) spurious: u64,
}

impl Sender {
    /// A sender whose first data byte has this position.
    pub fn new(config: &Config, start: u64, now: Instant, controller: Box<dyn Controller>) -> Self {
        let mut sender = Self {
            buffer: Chunks::new(start),
            una: start,
            nxt: start,
            end: start,
            fin: false,
            window: 0,
            max_window: 0,
            updated_by: (0, 0),
            shift: 0,
            mss: u64::from(config.mss).max(LEAST_MSS),
            sack: false,
            size: 0,
            max_size: (config.send_buffer as u64).max(1),
            retransmit_limit: config.retransmit_limit,
            board: Board::default(),
            rack: Rack::default(),
            rtt: Rtt::default(),
            rate: Rate::new(now),
            pacer: Pacer::new(now),
            prr: None,
            controller,
            cwnd: 0,
            pace: None,
            recovery: None,
            timed_out: false,
            frto: Frto::Off,
            refutation: Refutation::default(),
            probe: None,
            probe_due: false,
            retries: 0,
            repeated: 0,
            timer_base: now,
            progress: now,
            closed_since: None,
            force: false,
            app_limited: true,
            paced_out: false,
            retransmitted_segments: 0,
            retransmitted_bytes: 0,
            spurious: 0,
        };
        sender.refresh();
        sender
    }

    /// What the peer's SYN said.
    pub fn agree(&mut self, mss: Option<u16>, sack: bool) {
        self.mss = self.mss.min(u64::from(mss.unwrap_or(536)).max(LEAST_MSS));
        self.sack = sack;
    }

    /// Asks the controller again.
    pub fn refresh(&mut self) {
        self.cwnd = self.controller.window();
        self.pace = self.controller.pacing_rate();
        let wanted = (self.cwnd * 2).max(BUFFER).min(self.max_size);
        self.size = if self.queued() == 0 { wanted } else { self.size.max(wanted) };
    }

    /// Bytes queued, on their way included.
    pub fn queued(&self) -> u64 {
        self.end - self.una.min(self.end)
    }

    /// How much may be queued.
    pub fn capacity(&self) -> u64 {
        self.size
    }

    /// Offers room to `fill`, which says how much it filled.
    pub fn send(&mut self, fill: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let free = self.capacity().saturating_sub(self.queued());
        if self.fin || free == 0 {
            return 0;
        }
        let room = self.buffer.room(self.end, 1);
        let len = room.len().min(usize::try_from(free).unwrap_or(usize::MAX));
        let Some(room) = room.get_mut(..len) else { return 0 };
        let filled = fill(room).min(len);
        self.end += filled as u64;
        filled
    }

    /// The end of the sequence space in use, the FIN included.
    pub fn last(&self) -> u64 {
        self.end + u64::from(self.fin)
    }

    /// Whether something was never sent.
    pub fn has_fresh(&self) -> bool {
        self.nxt < self.last()
    }

    /// Takes in the window a segment says (RFC 9293 section 3.10.7.4).
    #[inline]
    pub fn window_says(&mut self, seq: u64, ack: u64, window: u64) {
        if self.updated_by.0 < seq || (self.updated_by.0 == seq && self.updated_by.1 <= ack) {
            self.updated_by = (seq, ack);
            if window > self.window {
                self.closed_since = None;
                self.retries = if self.board.is_empty() { 0 } else { self.retries };
            }
            self.window = window;
            self.max_window = self.max_window.max(window);
        }
    }

    /// The largest window the peer ever had.
    pub fn max_window(&self) -> u64 {
        self.max_window
    }

    /// The next segment to leave now, taken note of.
    pub fn next(&mut self, now: Instant) -> Option<Outgoing> {
        if self.probe_due {
            self.probe_due = false;
            return self.send_probe(now);
        }
        let lost = if self.frto == Frto::Probing { None } else { self.board.first_lost() };
        if self.frto == Frto::First && lost != Some(0) && !self.board.is_empty() {
            return self.note(now, Obstacle::Congestion);
        }
        if let Some(index) = lost {
            let len = self.board.get(index).map_or(0, |sent| sent.len);
            return match self.obstacle(now, u64::from(len)) {
                None => self.resend(now, index),
                Some(obstacle) => self.note(now, obstacle),
            };
        }
        self.next_fresh(now)
    }

    fn next_fresh(&mut self, now: Instant) -> Option<Outgoing> {
        let (len, fin) = match self.fresh() {
            Ok(fresh) => fresh,
            Err(obstacle) => return self.note(now, obstacle),
        };
        match self.obstacle(now, len + u64::from(fin)) {
            None => Some(self.send_fresh(now, len, fin)),
            Some(obstacle) => self.note(now, obstacle),
        }
    }

    /// How much of what was never sent the peer's window lets into a segment, and whether the FIN goes with it.
    fn fresh(&self) -> Result<(u64, bool), Obstacle> {
        if !self.has_fresh() {
            return Err(Obstacle::Nothing);
        }
        let waiting = self.end.saturating_sub(self.nxt);
        let window = (self.una + self.window).saturating_sub(self.nxt);
        let len = waiting.min(self.mss).min(window);
        let fin = self.fin && len == waiting && window > len;
        // Silly windows are not used (RFC 9293 section 3.8.6.2.1).
        let silly = len < waiting && len < self.mss && (len == 0 || len * 2 < self.max_window) && !self.force;
        if silly || (len == 0 && !fin) { Err(Obstacle::Window) } else { Ok((len, fin)) }
    }

    fn obstacle(&mut self, now: Instant, len: u64) -> Option<Obstacle> {
        let in_flight = self.board.in_flight();
        let window = self.prr.as_ref().map_or(self.cwnd, Prr::window);
        if (in_flight > 0 && in_flight + len > window) || self.board.len() >= SEGMENTS {
            return Some(Obstacle::Congestion);
        }
        match self.pace {
            Some(rate) if !self.pacer.may_send(now, rate, self.mss) => Some(Obstacle::Pace),
            _ => None,
        }
    }

    /// Remembers why nothing leaves.
    fn note(&mut self, now: Instant, obstacle: Obstacle) -> Option<Outgoing> {
        self.app_limited = matches!(obstacle, Obstacle::Nothing | Obstacle::Window);
        self.paced_out = obstacle == Obstacle::Pace;
        if self.app_limited {
            self.pacer.rest();
        }
        // The peer's window says as little about the path as an application that has nothing to send.
        if self.app_limited && self.board.in_flight() < self.cwnd {
            self.rate.exhausted(self.board.in_flight());
        }
        if obstacle == Obstacle::Window && self.board.is_empty() {
            self.closed_since.get_or_insert(now);
        }
        None
    }

    /// When pacing lets the next burst go, if that is all that keeps it back.
    pub fn paced_until(&self) -> Option<Instant> {
        self.paced_out.then(|| self.pacer.next())
    }

    /// A segment never sent, whatever the congestion window says.
    pub(crate) fn fresh_probe(&mut self, now: Instant) -> Option<Outgoing> {
        let (len, fin) = self.fresh().ok().filter(|_| self.board.len() < SEGMENTS)?;
        Some(self.send_fresh(now, len, fin))
    }

    /// Whether the peer's window lets something new through.
    pub(crate) fn can_send_fresh(&self) -> bool {
        self.fresh().is_ok()
    }

    fn send_fresh(&mut self, now: Instant, len: u64, fin: bool) -> Outgoing {
        let idle = self.board.in_flight() == 0;
        let space = len + u64::from(fin);
        let in_flight = self.board.in_flight() + space;
        if self.board.is_empty() {
            self.timer_base = now;
            self.retries = 0;
            self.closed_since = None;
        }
        let snapshot = self.rate.sent(now, in_flight, idle);
        let start = self.nxt;
        let fate = Fate::Flying;
        self.board.push(Sent { start, len: space as u32, fate, resent: false, sent_at: now, snapshot });
        self.nxt += space;
        self.force = false;
        self.left(now, space, idle);
        Outgoing { start, len: len as usize, fin, last: self.nxt == self.last() }
    }

    /// Sends a segment again.
    pub(crate) fn resend(&mut self, now: Instant, index: usize) -> Option<Outgoing> {
        let idle = self.board.in_flight() == 0;
        let sent = self.board.get(index)?;
        let again = if sent.fate == Fate::Lost { u64::from(sent.len) } else { 0 };
        let snapshot = self.rate.sent(now, self.board.in_flight() + again, idle);
        let sent = self.board.resend(index, now, snapshot)?;
        if index == 0 {
            self.timer_base = now;
        }
        let fin = self.fin && sent.end() > self.end;
        let len = sent.len as usize - usize::from(fin);
        self.retransmitted_segments += 1;
        self.retransmitted_bytes += len as u64;
        self.left(now, u64::from(sent.len), idle);
        Some(Outgoing { start: sent.start, len, fin, last: sent.end() == self.last() })
    }

    fn left(&mut self, now: Instant, bytes: u64, idle: bool) {
        self.progress = now;
        self.paced_out = false;
        self.controller.on_sent(now, bytes, self.board.in_flight(), idle);
        if idle {
            self.refresh();
        }
        if let Some(rate) = self.pace {
            self.pacer.sent(bytes, rate);
        }
        if let Some(prr) = &mut self.prr {
            prr.sent(bytes);
        }
    }
}
