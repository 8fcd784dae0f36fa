//! Packets on their way out.

use std::collections::VecDeque;
use std::net::Ipv6Addr;

use crate::ip::{self, IPV6, TCP};

/// How many full segments the TCP stack hands over at once. Enough to make its cost for each negligible, few enough for
/// the buffer to stay in the fastest cache between being written and being cut up.
pub const BATCH: usize = 20;

/// How many small packets may wait: answers to what came in, datagrams, pings.
const OUTBOX: usize = 4096;

/// Where a stack's packets go. The caller owns the buffers, so that a packet is written straight to its final place.
pub trait Sink {
    /// Room for a packet of exactly `len` bytes to `destination`, or `None` to be left alone until the next poll: nothing
    /// is lost, the packet is offered again.
    fn buffer(&mut self, destination: &Ipv6Addr, len: usize) -> Option<&mut [u8]>;

    /// The buffer handed out last now holds a packet.
    fn commit(&mut self);
}

/// Small packets that were built whole, waiting for the sink.
#[derive(Default)]
pub struct Outbox {
    packets: VecDeque<Vec<u8>>,
}

impl Outbox {
    /// Queues a packet; false when too many wait.
    pub fn push(&mut self, packet: Vec<u8>) -> bool {
        let room = self.packets.len() < OUTBOX;
        if room {
            self.packets.push_back(packet);
        }
        room
    }

    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Moves packets to the sink; false when it is full.
    pub fn flush(&mut self, sink: &mut impl Sink) -> bool {
        while let Some(packet) = self.packets.front() {
            let Some(buffer) = destination(packet).and_then(|to| sink.buffer(&to, packet.len())) else {
                return false;
            };
            buffer.copy_from_slice(packet);
            sink.commit();
            self.packets.pop_front();
        }
        true
    }
}

/// One large TCP segment, and how much of it has been cut off and sent.
pub struct Scratch {
    buffer: Vec<u8>,
    len: usize,
    /// Payload bytes of each packet, when it must be cut.
    segment: Option<usize>,
    /// Payload bytes already sent.
    sent: usize,
}

impl Scratch {
    pub fn new(mtu: usize) -> Self {
        Self { buffer: vec![0; Self::capacity(mtu)], len: 0, segment: None, sent: 0 }
    }

    /// The largest packet the TCP stack may hand over.
    pub fn capacity(mtu: usize) -> usize {
        IPV6 + TCP + BATCH * (mtu - IPV6 - TCP)
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The room for a packet of `len` bytes, to be cut into `segment` bytes of payload each.
    pub fn fill(&mut self, len: usize, segment: Option<usize>) -> &mut [u8] {
        if self.buffer.len() < len {
            self.buffer.resize(len, 0);
        }
        (self.len, self.segment, self.sent) = (len, segment, 0);
        &mut self.buffer[..len]
    }

    /// Cuts the packet up into the sink; false when it is full and some is left.
    pub fn flush(&mut self, sink: &mut impl Sink) -> bool {
        if self.len == 0 {
            return true;
        }
        let whole = &self.buffer[..self.len];
        let Some(to) = destination(whole) else { return true };
        let header = IPV6 + usize::from(whole[IPV6 + 12] >> 4) * 4;
        let (header, payload) = whole.split_at(header);
        let size = self.segment.unwrap_or(payload.len());
        let first = ip::be32(header, IPV6 + 4);
        loop {
            let end = payload.len().min(self.sent + size);
            let piece = &payload[self.sent..end];
            let Some(packet) = sink.buffer(&to, header.len() + piece.len()) else { return false };
            packet[..header.len()].copy_from_slice(header);
            packet[header.len()..].copy_from_slice(piece);
            let length = (packet.len() - IPV6) as u16;
            packet[4..6].copy_from_slice(&length.to_be_bytes());
            packet[IPV6 + 4..IPV6 + 8].copy_from_slice(&first.wrapping_add(self.sent as u32).to_be_bytes());
            if end < payload.len() {
                packet[IPV6 + 13] &= !(ip::FIN | ip::PSH);
            }
            ip::write_checksum(packet, 16);
            sink.commit();
            self.sent = end;
            if end == payload.len() {
                self.len = 0;
                return true;
            }
        }
    }
}

/// The destination of a packet we built.
fn destination(packet: &[u8]) -> Option<Ipv6Addr> {
    let octets: &[u8; 16] = packet.get(24..IPV6)?.first_chunk()?;
    Some(Ipv6Addr::from(*octets))
}
