//! One connection: both halves, the handshake before and the ending after them.

use std::time::{Duration, Instant};

use crate::chunks::Chunks;
use crate::config::Config;
use crate::congestion::Controller;
use crate::receiver::Receiver;
use crate::segment::{ACK, RST, Segment, Template};
use crate::sender::Sender;
use crate::state::{End, State, Stats};
use crate::timers::Keepalive;

/// Positions are sequence numbers with this much more above them, so that none is ever below zero.
const BASE: u64 = 1 << 40;

/// One TCP connection.
///
/// After [`arrives`](Self::arrives), [`send`](Self::send), [`recv`](Self::recv) and the like, [`poll`](Self::poll) says
/// what leaves, until it answers `None`; [`poll_at`](Self::poll_at) then says when to ask again.
#[derive(Debug)]
pub struct Connection {
    pub(crate) config: Config,
    pub(crate) state: State,
    pub(crate) end: Option<End>,
    pub(crate) template: Template,
    pub(crate) tx: Sender,
    pub(crate) rx: Receiver,
    /// Position of our SYN.
    pub(crate) first: u64,
    /// Our SYN is to be sent (again).
    pub(crate) syn_due: bool,
    /// When our SYN was sent, and how often before.
    pub(crate) syn_sent: Option<(Instant, u32)>,
    /// A reset to send: sequence number, acknowledgement number, flags.
    pub(crate) reset: Option<(u32, u32, u8)>,
    /// An acknowledgement of something unacceptable is to be sent.
    pub(crate) challenge: bool,
    /// Begin of the second for which challenges are counted, and their number.
    pub(crate) challenges: (Instant, u32),
    /// The last time anything came from the peer, or there began to be something it should answer.
    pub(crate) heard: Instant,
    pub(crate) waiting: bool,
    pub(crate) keepalive: Keepalive,
    pub(crate) detached: Option<Instant>,
    pub(crate) time_wait: Option<Instant>,
    /// When something last happened; spare memory goes when that is a while ago.
    pub(crate) active: Instant,
    /// When the timers were last looked at.
    pub(crate) looked: Option<Instant>,
}

impl Connection {
    /// Begins a connection from port `local` to port `remote`. `iss` is the initial sequence number, which nobody must be
    /// able to guess (RFC 6528).
    pub fn connect(config: &Config, local: u16, remote: u16, iss: u32, now: Instant) -> Self {
        Self::new(config, State::SynSent, (local, remote), iss, now)
    }

    /// Answers a SYN; `None` when the segment is none.
    pub fn accept(config: &Config, iss: u32, syn: &Segment<'_>, now: Instant) -> Option<Self> {
        if !syn.opens() {
            return None;
        }
        let mut connection = Self::new(config, State::SynReceived, (syn.destination, syn.source), iss, now);
        connection.take_offer(syn);
        Some(connection)
    }

    fn new(config: &Config, state: State, ports: (u16, u16), iss: u32, now: Instant) -> Self {
        let first = BASE + u64::from(iss);
        let controller = config.congestion.build(u64::from(config.mss), now);
        Self {
            state,
            end: None,
            template: Template::new(ports.0, ports.1),
            tx: Sender::new(config, first + 1, now, controller),
            rx: Receiver::new(config, BASE, now),
            first,
            syn_due: true,
            syn_sent: None,
            reset: None,
            challenge: false,
            challenges: (now, 0),
            heard: now,
            waiting: true,
            keepalive: Keepalive::new(config.keepalive),
            detached: None,
            time_wait: None,
            active: now,
            looked: None,
            config: config.clone(),
        }
    }

    /// Replaces the congestion controller the settings chose.
    #[must_use]
    pub fn with_controller(mut self, controller: Box<dyn Controller>) -> Self {
        self.tx.controller = controller;
        self.tx.refresh();
        self
    }

    /// What the peer's SYN offers (RFC 7323 section 2.2: both scale their windows, or neither).
    pub(crate) fn take_offer(&mut self, syn: &Segment<'_>) {
        let offer = syn.offer();
        self.rx.begin(BASE + u64::from(syn.seq) + 1);
        self.tx.agree(offer.mss, offer.sack);
        self.rx.sack = offer.sack;
        match offer.shift {
            Some(shift) => self.tx.shift = shift,
            None => self.rx.unscaled(),
        }
        let seq = BASE + u64::from(syn.seq);
        self.tx.window_says(seq, self.first, u64::from(syn.window));
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Why it is closed, once it is.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Whether nothing is left to do, be it to send a reset.
    pub fn is_over(&self) -> bool {
        self.state == State::Closed && self.reset.is_none()
    }

    /// Whether data may still be queued.
    pub fn may_send(&self) -> bool {
        let open =
            matches!(self.state, State::SynSent | State::SynReceived | State::Established | State::CloseWait);
        open && !self.tx.fin
    }

    /// Whether data can be taken, now or later.
    pub fn may_recv(&self) -> bool {
        let open = matches!(self.state, State::Established | State::FinWait1 | State::FinWait2);
        open || self.rx.readable() > 0
    }

    /// Offers free room in the send buffer to `fill`, which says how much it filled. Returns the same, 0 when there is no
    /// room or nothing may be sent. The room may be part of what is free only.
    pub fn send(&mut self, now: Instant, fill: impl FnOnce(&mut [u8]) -> usize) -> usize {
        if !self.may_send() {
            return 0;
        }
        let filled = self.tx.send(fill);
        self.note_waiting(now);
        filled
    }

    /// Offers received bytes to `take`, which says how many it is done with. Returns the same, 0 when there are none.
    pub fn recv(&mut self, take: impl FnOnce(&[u8]) -> usize) -> usize {
        self.active = self.looked.map_or(self.active, |looked| looked.max(self.active));
        self.rx.recv(take)
    }

    /// Bytes that can be received.
    pub fn recv_queue(&self) -> usize {
        self.rx.readable() as usize
    }

    /// Bytes queued and not acknowledged.
    pub fn send_queue(&self) -> usize {
        self.tx.queued() as usize
    }

    /// The size of the send buffer now.
    pub fn send_size(&self) -> usize {
        self.tx.capacity() as usize
    }

    /// Free bytes in the send buffer; 0 when nothing may be sent.
    pub fn send_room(&self) -> usize {
        if self.may_send() { self.send_size().saturating_sub(self.send_queue()) } else { 0 }
    }

    /// Whether the peer has finished and all it sent has arrived.
    pub fn peer_finished(&self) -> bool {
        self.rx.finished()
    }

    /// Finishes sending: a FIN follows what is queued. Receiving goes on.
    pub fn shutdown(&mut self) {
        if self.may_send() {
            self.tx.fin = true;
        }
    }

    /// Cuts the connection: the peer gets a reset.
    pub fn abort(&mut self) {
        match self.state {
            State::TimeWait | State::Closed => {}
            // Whoever holds the SYN learns that it need not be answered.
            State::SynSent if self.syn_sent.is_some() => self.reset = Some((self.tx.nxt as u32, 0, RST)),
            State::SynSent => {}
            _ => self.reset = Some((self.tx.nxt as u32, self.rx.nxt as u32, RST | ACK)),
        }
        self.over(End::Aborted);
    }

    /// Nobody will receive any more: what is queued is still delivered and a FIN sent, but data that was not taken or
    /// that still comes turns this into an [`abort`](Self::abort) (RFC 9293 section 3.6.1).
    pub fn detach(&mut self, now: Instant) {
        self.detached = Some(now);
        match self.state {
            State::SynSent | State::SynReceived => self.abort(),
            State::Closed => {}
            _ if self.rx.readable() > 0 => self.abort(),
            _ => self.shutdown(),
        }
    }

    /// The path came back: what waits for an answer is repeated at once, if nothing was heard for `quiet`.
    pub fn kick(&mut self, now: Instant, quiet: Duration) {
        if !self.outstanding() || self.heard + quiet > now {
            return;
        }
        if matches!(self.state, State::SynSent | State::SynReceived) {
            self.syn_due = true;
        } else if self.tx.board.is_empty() {
            self.tx.force = true;
        } else {
            self.tx.time_out(now);
            self.tx.retries = 1;
        }
    }

    /// Whether the peer owes us an answer.
    pub(crate) fn outstanding(&self) -> bool {
        match self.state {
            State::SynSent | State::SynReceived | State::FinWait1 | State::Closing | State::LastAck => true,
            State::Established | State::CloseWait => self.tx.una < self.tx.last(),
            State::FinWait2 | State::TimeWait | State::Closed => false,
        }
    }

    /// Silence counts from when there began to be something to answer.
    pub(crate) fn note_waiting(&mut self, now: Instant) {
        let outstanding = self.outstanding();
        if outstanding && !self.waiting {
            self.heard = now;
        }
        self.waiting = outstanding;
    }

    /// It is over.
    pub(crate) fn over(&mut self, end: End) {
        self.end.get_or_insert(end);
        self.state = State::Closed;
        self.tx.buffer = Chunks::new(self.tx.end);
        self.tx.end = self.tx.una.min(self.tx.end);
        self.tx.board = crate::board::Board::default();
    }

    /// Figures, for people.
    pub fn stats(&self) -> Stats {
        Stats {
            smoothed_rtt: self.tx.rtt.smoothed(),
            rtt_variation: self.tx.rtt.variation(),
            min_rtt: self.tx.rtt.min(),
            congestion_window: self.tx.cwnd,
            pacing_rate: self.tx.pace,
            in_flight: self.tx.board.in_flight(),
            retransmitted_segments: self.tx.retransmitted_segments,
            retransmitted_bytes: self.tx.retransmitted_bytes,
            lost: self.tx.rate.lost,
            delivered: self.tx.rate.delivered,
            spurious: self.tx.spurious,
            receive_buffer: self.rx.size(),
            send_buffer: self.tx.capacity(),
            memory: self.rx.memory() + self.tx.buffer.held(),
            congestion: self.tx.controller.name(),
        }
    }

    /// Whether its books are in order; for tests.
    #[doc(hidden)]
    pub fn is_consistent(&self) -> bool {
        self.tx.board.is_consistent()
            && self.tx.una <= self.tx.nxt
            && (self.state == State::Closed || self.tx.nxt <= self.tx.last())
            && self.rx.nxt <= self.rx.edge() + 1
            && self.recv_queue() as u64 <= self.rx.size() + u64::from(u16::MAX)
    }
}
