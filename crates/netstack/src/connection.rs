//! One TCP connection: `smoltcp`'s socket, what has been reported of it, and its long timers.

use std::net::SocketAddrV6;
use std::time::{Duration, Instant};

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};

use crate::config::Config;
use crate::event::{Event, Flow};
use crate::ip::{self, TcpHeader};
use crate::timers::Slot;

/// Pause between keepalive probes once they have begun.
const PROBE_INTERVAL: Duration = Duration::from_secs(75);
/// Unanswered keepalive probes after which the peer is taken for dead.
const PROBES: u32 = 9;
/// How long a released connection waits for the FIN of a peer that acknowledged ours.
const ORPHAN_TIMEOUT: Duration = Duration::from_secs(60);
/// Repeated acknowledgements that mean loss (RFC 5681 section 3.2).
const LOSS: u32 = 3;
/// Free room in the send buffer that is worth an event.
const WRITABLE: usize = 64 << 10;

/// What identifies a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub local: SocketAddrV6,
    pub remote: SocketAddrV6,
}

/// Where a connection is in its life, as the shell knows it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Accepting,
    Open,
    Over,
}

/// One connection.
pub struct Connection {
    pub flow: Flow,
    pub key: Key,
    pub sockets: SocketSet<'static>,
    handle: SocketHandle,
    pub timer: Slot,
    /// Whether it waits in the list of those with something to do.
    pub dirty: bool,
    /// How far this connection's clock is ahead: the only way to make `smoltcp` retransmit early.
    pub skew: Duration,
    /// The last acknowledgement number seen.
    acknowledged: Option<u32>,
    /// How often it came again without data.
    repeated: u32,
    /// Bytes acknowledged since the congestion window was last cut.
    pub opened: u64,
    /// When a retransmission is due although `smoltcp` would wait longer.
    pub retransmit_at: Option<Instant>,
    /// The last time anything came from the peer, or there began to be something it should answer.
    pub heard: Instant,
    pub keepalive: Option<Duration>,
    probing: Option<Instant>,
    outstanding: bool,
    phase: Phase,
    readable_told: bool,
    wants_room: bool,
    finished_told: bool,
    /// The state at the last look.
    seen: State,
    /// The peer's FIN and everything before it has arrived.
    peer_finished: bool,
    /// The shell has let go of it.
    pub released: bool,
    released_at: Option<Instant>,
}

impl Connection {
    pub fn new(flow: Flow, key: Key, config: &Config, now: Instant, incoming: bool) -> Self {
        let mut socket = Socket::new(
            SocketBuffer::new(vec![0; config.receive_capacity()]),
            SocketBuffer::new(vec![0; config.send_buffer]),
        );
        socket.set_congestion_control(CongestionControl::Cubic);
        socket.set_nagle_enabled(false);
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Self {
            flow,
            key,
            sockets,
            handle,
            timer: Slot::default(),
            dirty: false,
            skew: Duration::ZERO,
            acknowledged: None,
            repeated: 0,
            opened: 0,
            retransmit_at: None,
            heard: now,
            keepalive: config.keepalive,
            probing: None,
            outstanding: true,
            phase: if incoming { Phase::Accepting } else { Phase::Connecting },
            readable_told: false,
            wants_room: false,
            finished_told: false,
            seen: State::Closed,
            peer_finished: false,
            released: false,
            released_at: None,
        }
    }

    pub fn socket(&self) -> &Socket<'static> {
        self.sockets.get(self.handle)
    }

    pub fn socket_mut(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// Whether the peer owes us an answer.
    pub fn outstanding(&self) -> bool {
        let socket = self.socket();
        match socket.state() {
            State::SynSent | State::SynReceived | State::FinWait1 | State::Closing | State::LastAck => true,
            State::Established | State::CloseWait => socket.send_queue() > 0,
            State::Listen | State::Closed | State::FinWait2 | State::TimeWait => false,
        }
    }

    /// Whether the connection waits out its last seconds, nothing left to receive.
    pub fn replaceable(&self) -> bool {
        self.socket().state() == State::TimeWait && self.released
    }

    /// TIME-WAIT's end would throw away what has not been received; it can wait.
    pub fn must_linger(&self) -> bool {
        self.socket().state() == State::TimeWait && self.socket().can_recv()
    }

    /// Notes that a packet from the peer is about to be processed.
    pub fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.retransmit_at = None;
        if self.probing.take().is_some() {
            self.socket_mut().set_keep_alive(None);
        }
    }

    /// Notes an acknowledgement; how many bytes of our data it is the first to acknowledge, when it does.
    pub fn advance(&mut self, header: &TcpHeader) -> Option<u32> {
        if header.flags & ip::ACK == 0 {
            return None;
        }
        let before = self.acknowledged.unwrap_or(header.ack);
        let advance = header.ack.wrapping_sub(before);
        let is_data = advance as usize <= self.socket().send_queue();
        if is_data || self.acknowledged.is_none() || advance < u32::MAX / 2 {
            self.acknowledged = Some(header.ack);
        }
        self.repeated = if advance == 0 && header.payload == 0 { self.repeated.saturating_add(1) } else { 0 };
        if self.repeated >= LOSS {
            self.opened = 0;
        }
        if !is_data || advance == 0 {
            return None;
        }
        self.opened += u64::from(advance);
        Some(advance)
    }

    /// The shell lets go. Data nobody will read means the peer must learn that it was lost (RFC 9293 section 3.6.1).
    pub fn release(&mut self, now: Instant) {
        let unread = self.socket().can_recv();
        self.released = true;
        self.released_at = Some(now);
        match self.phase {
            Phase::Over => {}
            Phase::Open if !unread => self.socket_mut().close(),
            _ => self.socket_mut().abort(),
        }
    }

    /// Gives up: the peer, if it lives, gets a reset.
    pub fn abort(&mut self) {
        self.released = true;
        self.phase = Phase::Over;
        self.socket_mut().abort();
    }

    /// Whether nothing is left to do for anybody.
    pub fn is_done(&self) -> bool {
        self.released && self.socket().state() == State::Closed && self.socket().remote_endpoint().is_none()
    }

    /// Passes what can be received to `take`, which says how much it took; how much that was.
    pub fn recv(&mut self, take: impl FnOnce(&[u8]) -> usize) -> usize {
        let taken = self.socket_mut().recv(|data| {
            let taken = take(data).min(data.len());
            (taken, taken)
        });
        if !self.socket().can_recv() {
            self.readable_told = false;
        }
        taken.unwrap_or(0)
    }

    /// Passes free room to `fill`, which says how much it filled; how much that was.
    pub fn send(&mut self, now: Instant, fill: impl FnOnce(&mut [u8]) -> usize) -> usize {
        if !self.outstanding {
            self.heard = now;
            self.outstanding = true;
        }
        let filled = self.socket_mut().send(|room| {
            let filled = fill(room).min(room.len());
            (filled, filled)
        });
        self.wants_room = self.socket().may_send() && !self.socket().can_send();
        filled.unwrap_or(0)
    }

    /// Ends what waits for a peer that is silent for too long, begins keepalive probes; whether the connection timed out.
    pub fn tick(&mut self, now: Instant, config: &Config) -> bool {
        if self.outstanding() {
            self.opened = 0;
        }
        let dead = self.silence_limit(config).is_some_and(|limit| limit <= now);
        if dead {
            self.phase = Phase::Over;
            self.socket_mut().abort();
        } else if self.orphan_limit().is_some_and(|limit| limit <= now) {
            self.socket_mut().abort();
        } else if self.probe_start().is_some_and(|start| start <= now) {
            self.probing = Some(now);
            self.socket_mut().set_keep_alive(Some(PROBE_INTERVAL.into()));
        }
        dead && !self.released
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn deadline(&mut self, now: Instant, config: &Config) -> Option<Instant> {
        let outstanding = self.outstanding();
        if outstanding && !self.outstanding {
            self.heard = now;
        }
        self.outstanding = outstanding;
        [self.silence_limit(config), self.orphan_limit(), self.probe_start(), self.retransmit_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// When the peer's silence means that it is gone.
    fn silence_limit(&self, config: &Config) -> Option<Instant> {
        match (self.phase, self.probing) {
            (Phase::Over, _) => None,
            (Phase::Connecting | Phase::Accepting, _) => Some(self.heard + config.connect_timeout),
            (Phase::Open, _) if self.outstanding => Some(self.heard + config.user_timeout),
            (Phase::Open, Some(start)) => Some(start + PROBES * PROBE_INTERVAL),
            (Phase::Open, None) => None,
        }
    }

    /// When a peer that never finishes has had enough time.
    fn orphan_limit(&self) -> Option<Instant> {
        let waits = self.socket().state() == State::FinWait2;
        self.released_at.filter(|_| waits).map(|released| released + ORPHAN_TIMEOUT)
    }

    /// When the first keepalive probe is due.
    fn probe_start(&self) -> Option<Instant> {
        let quiet = self.phase == Phase::Open && !self.outstanding && self.probing.is_none();
        let alive = matches!(self.socket().state(), State::Established | State::CloseWait | State::FinWait2);
        self.keepalive.filter(|_| quiet && alive).map(|idle| self.heard + idle)
    }

    /// Compares the socket with what has been reported and reports the difference.
    pub fn notice(&mut self, report: &mut impl FnMut(Event)) {
        let (flow, state) = (self.flow, self.socket().state());
        let before = std::mem::replace(&mut self.seen, state);
        self.peer_finished |=
            matches!(state, State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
        if self.released {
            self.refuse_more_data(state);
            return;
        }
        match (self.phase, state) {
            (Phase::Connecting, State::Closed) => return self.over(Event::Refused(flow), report),
            // A reset takes a socket that was accepting back to where it would accept anybody.
            (Phase::Accepting, State::Listen | State::Closed) => {
                self.socket_mut().close();
                return self.over(Event::Reset(flow), report);
            }
            (Phase::Connecting | Phase::Accepting, State::SynSent | State::SynReceived) => return,
            (Phase::Connecting | Phase::Accepting, _) => {
                self.phase = Phase::Open;
                report(Event::Connected(flow));
            }
            (Phase::Open | Phase::Over, _) => {}
        }
        if self.phase == Phase::Open
            && state == State::Closed
            && !matches!(before, State::LastAck | State::TimeWait | State::Closed)
        {
            return self.over(Event::Reset(flow), report);
        }
        self.notice_data(report);
    }

    /// Reports what can be received and sent.
    fn notice_data(&mut self, report: &mut impl FnMut(Event)) {
        let socket = self.sockets.get::<Socket>(self.handle);
        if socket.can_recv() && !self.readable_told {
            self.readable_told = true;
            report(Event::Readable(self.flow));
        }
        if self.wants_room
            && socket.send_capacity() - socket.send_queue() >= WRITABLE.min(socket.send_capacity() / 2)
        {
            self.wants_room = false;
            report(Event::Writable(self.flow));
        }
        if !socket.can_recv() && self.peer_finished && !self.finished_told {
            self.finished_told = true;
            report(Event::Finished(self.flow));
        }
    }

    /// Nobody will read what comes after the shell has let go.
    fn refuse_more_data(&mut self, state: State) {
        if state == State::Listen {
            self.socket_mut().close();
        } else if state != State::Closed && self.socket().can_recv() {
            self.socket_mut().abort();
        }
    }

    /// Reports the connection's untimely end, the last thing to be said of it.
    fn over(&mut self, event: Event, report: &mut impl FnMut(Event)) {
        self.phase = Phase::Over;
        self.finished_told = true;
        self.readable_told = true;
        self.wants_room = false;
        report(event);
    }
}
