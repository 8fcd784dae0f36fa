//! One TCP connection: its packets, and what has been reported of it.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::Instant;

use tcp::{End, State};
use wire::ip::{self, Checksum, HEADER_LEN};

use crate::event::{Event, Flow};
use crate::timers::Slot;

/// Where TCP's checksum lies in its header.
const CHECKSUM: usize = 16;
/// Free room in the send buffer that is worth an event.
const WRITABLE: usize = 64 << 10;

/// What identifies a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub local: SocketAddrV6,
    pub remote: SocketAddrV6,
}

impl Key {
    pub fn new(local: Ipv6Addr, local_port: u16, remote: Ipv6Addr, remote_port: u16) -> Self {
        let local = SocketAddrV6::new(local, local_port, 0, 0);
        Self { local, remote: SocketAddrV6::new(remote, remote_port, 0, 0) }
    }
}

/// One connection.
pub struct Connection {
    pub flow: Flow,
    pub key: Key,
    pub tcp: tcp::Connection,
    pub timer: Slot,
    /// Whether it waits in the list of those with something to do.
    pub dirty: bool,
    /// The shell has let go of it.
    pub released: bool,
    /// The IPv6 header of its packets, and the sum of its addresses and protocol.
    header: [u8; HEADER_LEN],
    sum: Checksum,
    connected_told: bool,
    readable_told: bool,
    wants_room: bool,
    finished_told: bool,
    over_told: bool,
}

impl Connection {
    pub fn new(flow: Flow, key: Key, tcp: tcp::Connection) -> Self {
        let (local, remote) = (*key.local.ip(), *key.remote.ip());
        Self {
            flow,
            key,
            tcp,
            timer: Slot::default(),
            dirty: false,
            released: false,
            header: ip::header(local, remote, ip::TCP, 0),
            sum: ip::pseudo_header(local, remote, ip::TCP, 0),
            connected_told: false,
            readable_told: false,
            wants_room: false,
            finished_told: false,
            over_told: false,
        }
    }

    /// Writes the next packet to the front of `room`; its length, `None` when nothing may leave now.
    #[inline]
    pub fn write(&mut self, now: Instant, room: &mut [u8]) -> Option<usize> {
        let (header, rest) = room.split_first_chunk_mut::<HEADER_LEN>()?;
        let len = self.tcp.poll(now, rest)?;
        *header = self.header;
        let [high, low] = (len as u16).to_be_bytes();
        (header[4], header[5]) = (high, low);
        let segment = rest.get_mut(..len)?;
        let mut sum = self.sum;
        sum.add(&[high, low]);
        sum.add(segment);
        segment.get_mut(CHECKSUM..CHECKSUM + 2)?.copy_from_slice(&sum.finish().to_be_bytes());
        Some(HEADER_LEN + len)
    }

    /// Whether it waits out its last seconds, nothing left to receive.
    pub fn replaceable(&self) -> bool {
        self.tcp.state() == State::TimeWait && self.released
    }

    /// Whether nothing is left to do for anybody.
    pub fn is_done(&self) -> bool {
        self.released && self.tcp.is_over()
    }

    /// The shell lets go.
    pub fn release(&mut self, now: Instant) {
        self.released = true;
        self.tcp.detach(now);
    }

    /// Gives up: the peer, if it lives, gets a reset.
    pub fn abort(&mut self) {
        self.released = true;
        self.tcp.abort();
    }

    /// Passes what can be received to `take`, which says how much it took; how much that was.
    pub fn recv(&mut self, take: impl FnOnce(&[u8]) -> usize) -> usize {
        let taken = self.tcp.recv(take);
        if self.tcp.recv_queue() == 0 {
            self.readable_told = false;
        }
        taken
    }

    /// Passes free room to `fill`, which says how much it filled; how much that was.
    pub fn send(&mut self, now: Instant, fill: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let filled = self.tcp.send(now, fill);
        self.wants_room = self.tcp.may_send() && self.tcp.send_room() == 0;
        filled
    }

    /// Compares the connection with what has been reported and reports the difference.
    #[inline]
    pub fn notice(&mut self, report: &mut impl FnMut(Event)) {
        if self.released || self.over_told {
            return;
        }
        if !self.connected_told
            && !matches!(self.tcp.state(), State::SynSent | State::SynReceived | State::Closed)
        {
            self.connected_told = true;
            report(Event::Connected(self.flow));
        }
        let over = match self.tcp.end() {
            None | Some(End::Finished | End::Aborted) => None,
            Some(End::Refused) => Some(Event::Refused(self.flow)),
            Some(End::Reset) => Some(Event::Reset(self.flow)),
            Some(End::TimedOut) => Some(Event::TimedOut(self.flow)),
        };
        match over {
            Some(event) => {
                self.over_told = true;
                report(event);
            }
            None => self.notice_data(report),
        }
    }

    /// Reports what can be received and sent.
    #[inline]
    fn notice_data(&mut self, report: &mut impl FnMut(Event)) {
        let readable = self.tcp.recv_queue() > 0;
        if readable && !self.readable_told {
            self.readable_told = true;
            report(Event::Readable(self.flow));
        }
        if self.wants_room && self.tcp.send_room() >= WRITABLE.min(self.tcp.send_size() / 2).max(1) {
            self.wants_room = false;
            report(Event::Writable(self.flow));
        }
        if !readable && self.tcp.peer_finished() && !self.finished_told {
            self.finished_told = true;
            report(Event::Finished(self.flow));
        }
    }
}
