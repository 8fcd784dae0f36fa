//! Packets on their way out.

use std::collections::VecDeque;
use std::net::Ipv6Addr;

use wire::ip::HEADER_LEN;

/// How many small packets may wait: answers to what came in, datagrams, pings.
const LIMIT: usize = 4096;

/// Where a stack's packets go. The caller owns the buffers, so that a packet is written straight to its final place.
pub trait Sink {
    /// Room for a packet to `destination`, at least as large as the stack's MTU, or `None` to be left alone until the
    /// next poll: nothing is lost, the packet is offered again. Room that is asked for and not committed is given back.
    fn buffer(&mut self, destination: &Ipv6Addr) -> Option<&mut [u8]>;

    /// The first `len` bytes of the room handed out last are a packet now.
    fn commit(&mut self, len: usize);
}

/// Small packets that were built whole, waiting for the sink.
#[derive(Default)]
pub struct Outbox {
    packets: VecDeque<Vec<u8>>,
}

impl Outbox {
    /// Queues a packet; false when too many wait.
    pub fn push(&mut self, packet: Vec<u8>) -> bool {
        let room = self.packets.len() < LIMIT;
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
            let Some(to) = packet.get(24..HEADER_LEN).and_then(<[u8]>::first_chunk::<16>) else {
                return false;
            };
            let Some(room) = sink.buffer(&Ipv6Addr::from(*to)).and_then(|room| room.get_mut(..packet.len()))
            else {
                return false;
            };
            room.copy_from_slice(packet);
            sink.commit(packet.len());
            self.packets.pop_front();
        }
        true
    }
}
