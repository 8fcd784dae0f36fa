//! What happens with a TCP segment that came in.

use std::time::Instant;

use crate::connection::Key;
use crate::device::Ingress;
use crate::event::Event;
use crate::format;
use crate::held::Outcome;
use crate::ip::{self, IPV6, Packet, TCP, TcpHeader};
use crate::stack::Stack;

/// As how many acknowledgements one is taken at most while the congestion window opens.
const OPENING_PARTS: u32 = 256;
/// And afterwards.
const STEADY_PARTS: u32 = 16;
/// Acknowledged bytes after which the window has opened as far as it will: many times the largest window.
const OPENING: u64 = 64 << 20;

impl Stack {
    /// Takes in a TCP segment addressed to us.
    pub(crate) fn inject_tcp(&mut self, now: Instant, packet: &Packet) {
        let Some(header) = TcpHeader::parse(packet.payload()) else {
            self.counters.malformed += 1;
            return;
        };
        let key = Key {
            local: ip::endpoint(packet.destination, header.destination),
            remote: ip::endpoint(packet.source, header.source),
        };
        let opens = header.flags & (ip::SYN | ip::ACK | ip::RST | ip::FIN) == ip::SYN;
        match self.find(&key) {
            Some(index) if opens && self.connections.get(index as usize).is_some_and(|c| c.replaceable()) => {
                self.remove(index);
                self.hold(now, key, packet, &header);
            }
            Some(index) => self.segment(now, index, packet, &header),
            None if opens => self.hold(now, key, packet, &header),
            None => self.stray(&key, packet, &header),
        }
    }

    /// A segment of a connection we have.
    fn segment(&mut self, now: Instant, index: u32, packet: &Packet, header: &TcpHeader) {
        self.divide_ack(now, index, packet, header);
        self.feed(now, index, packet.whole);
        let events = &mut self.events;
        if let Some(connection) = self.connections.get_mut(index as usize) {
            connection.notice(&mut |event| events.push_back(event));
        }
        self.touch(index);
    }

    /// Hands a packet to a connection's socket.
    pub(crate) fn feed(&mut self, now: Instant, index: u32, packet: &[u8]) {
        let Some(connection) = self.connections.get_mut(index as usize) else { return };
        connection.hear(now);
        let clock = self.clock.at(now, connection.skew);
        let mut device = Ingress {
            packet: Some(packet),
            outbox: &mut self.outbox,
            overflow: &mut self.counters.output_overflow,
            mtu: self.config.mtu,
        };
        self.interface.poll_ingress_single(clock, &mut device, &mut connection.sockets);
    }

    /// Takes an acknowledgement of much data as several of less data each.
    ///
    /// The congestion window grows by a segment for every acknowledgement. A receiver that takes in large batches, as
    /// ours does, sends few; without this the window would take minutes to open on a long path (RFC 3465 has the idea).
    fn divide_ack(&mut self, now: Instant, index: u32, packet: &Packet, header: &TcpHeader) {
        let Some(connection) = self.connections.get_mut(index as usize) else { return };
        let Some(advance) = connection.advance(header) else { return };
        let limit = if connection.opened < OPENING { OPENING_PARTS } else { STEADY_PARTS };
        let segment = (self.config.mtu - IPV6 - TCP) as u32;
        let parts = (advance / segment).min(limit);
        let plain = header.flags & (ip::SYN | ip::FIN | ip::RST) == 0 && header.header == TCP;
        let Some(mut part) = packet.whole.first_chunk::<{ IPV6 + TCP }>().copied() else { return };
        if !plain || parts < 2 {
            return;
        }
        part[4..6].copy_from_slice(&(TCP as u16).to_be_bytes());
        let before = header.ack.wrapping_sub(advance);
        for step in 1..parts {
            let ack = before.wrapping_add((u64::from(advance) * u64::from(step) / u64::from(parts)) as u32);
            part[IPV6 + 8..IPV6 + 12].copy_from_slice(&ack.to_be_bytes());
            self.feed(now, index, &part);
        }
    }

    /// A SYN to a port: held until the shell decides.
    fn hold(&mut self, now: Instant, key: Key, packet: &Packet, header: &TcpHeader) {
        let (limit, keep) = (self.config.held_limit, self.config.held_timeout);
        match self.waiting.syn(now, key, packet.whole, header, limit, keep) {
            Outcome::New(id) => {
                self.events.push_back(Event::Incoming { id, from: key.remote, to: key.local })
            }
            Outcome::Known => {}
            Outcome::Full => self.counters.held_overflow += 1,
        }
    }

    /// A segment that belongs to nothing.
    fn stray(&mut self, key: &Key, packet: &Packet, header: &TcpHeader) {
        self.counters.stray += 1;
        if header.flags & ip::RST != 0 {
            self.waiting.withdraw(key);
        } else {
            self.queue(format::reset(&packet.destination, &packet.source, header));
        }
    }
}
