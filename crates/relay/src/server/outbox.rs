//! What one connection is still to be sent: first what may not wait, then packets, fairly by their sources.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::time::Instant;

use wire::keys::NodePublic;

use super::{ConnId, FLOW_LEAST, PIECE, QUEUE_FULL};

/// Most flows that one write serves; each brings up to two slices.
const FLOWS_AT_ONCE: usize = 24;

/// Bytes as they go on the wire, with what the policy needs to know about them.
///
/// `front` goes first: the rest of a piece that was begun, then control frames and disco packets. Behind it, each source
/// has a flow of its own, made of pieces that may be separated; flows take turns. Only a blocked socket has flows.
#[derive(Default)]
pub(super) struct Outbox {
    front: VecDeque<u8>,
    flows: BTreeMap<NodePublic, Flow>,
    /// The flows in the order of their turns.
    turns: VecDeque<NodePublic>,
    /// Bytes in all flows.
    in_flows: usize,
    /// Bytes ever taken by the socket from the front.
    taken: u64,
    /// `taken` at which the pong in the front will be gone.
    pong_until: u64,
    /// The socket took less than offered; it will be reported writable.
    pub(super) blocked: bool,
    /// When the socket last took something, or when it became blocked.
    pub(super) progressed: Option<Instant>,
}

/// What one source still has to say to one destination. Never empty.
#[derive(Default)]
pub(super) struct Flow {
    bytes: VecDeque<u8>,
    /// Lengths of the parts between which other bytes may be written.
    pieces: VecDeque<u32>,
    /// Its senders were made to wait in vain: no more waiting until it is short again.
    pub(super) stalled: bool,
    /// Its senders that are not read from until it is short.
    pub(super) waiting: Vec<ConnId>,
}

impl Flow {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes it may write in one turn: whole pieces.
    fn turn(&self, alone: bool) -> usize {
        if alone {
            return self.bytes.len();
        }
        let mut turn = 0;
        for piece in &self.pieces {
            if turn > 0 && turn + *piece as usize > PIECE {
                break;
            }
            turn += *piece as usize;
        }
        turn
    }

    /// Drops `count` bytes that were written, and moves the rest of a piece that was begun to `front`.
    fn advance(&mut self, mut count: usize, front: &mut VecDeque<u8>) {
        while count > 0 {
            let Some(piece) = self.pieces.pop_front() else { return };
            let written = count.min(piece as usize);
            self.bytes.drain(..written);
            front.extend(self.bytes.drain(..piece as usize - written));
            count -= written;
        }
    }
}

impl Outbox {
    /// Bytes that wait, of all kinds.
    pub(super) fn len(&self) -> usize {
        self.front.len() + self.in_flows
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes in front of all packets.
    pub(super) fn front_len(&self) -> usize {
        self.front.len()
    }

    /// What a flow may hold before its sender waits: the same for all.
    pub(super) fn share(&self) -> usize {
        (QUEUE_FULL / self.flows.len().max(1)).max(FLOW_LEAST)
    }

    pub(super) fn flow(&mut self, source: &NodePublic) -> Option<&mut Flow> {
        self.flows.get_mut(source)
    }

    pub(super) fn has_pong(&self) -> bool {
        self.taken < self.pong_until
    }

    /// The pong is the last thing in the front.
    pub(super) fn mark_pong(&mut self) {
        self.pong_until = self.taken + self.front.len() as u64;
    }

    /// Appends to what goes first.
    pub(super) fn push(&mut self, bytes: &[u8], memory: &mut Memory) {
        push(&mut self.front, bytes, memory);
    }

    /// Appends one piece to the flow of `source`, out of two parts.
    pub(super) fn push_piece(&mut self, source: &NodePublic, parts: [&[u8]; 2], memory: &mut Memory) {
        let Self { flows, turns, in_flows, .. } = self;
        let flow = flows.entry(*source).or_insert_with(|| {
            turns.push_back(*source);
            Flow::default()
        });
        let before = flow.len();
        parts.iter().for_each(|part| push(&mut flow.bytes, part, memory));
        let added = flow.len() - before;
        flow.pieces.push_back(added as u32);
        *in_flows += added;
    }

    /// What is to be written next, and its length.
    pub(super) fn offer(&self) -> (Vec<IoSlice<'_>>, usize) {
        let alone = self.flows.len() == 1;
        let mut slices = Vec::with_capacity(2 + 2 * self.turns.len().min(FLOWS_AT_ONCE));
        add_slices(&mut slices, &self.front, self.front.len());
        for flow in self.turns.iter().take(FLOWS_AT_ONCE).filter_map(|source| self.flows.get(source)) {
            add_slices(&mut slices, &flow.bytes, flow.turn(alone));
        }
        let offered = slices.iter().map(|slice| slice.len()).sum();
        (slices, offered)
    }

    /// The socket took `count` bytes of what was offered. Emptied memory is given back. Returns senders that may go on.
    pub(super) fn advance(&mut self, count: usize, memory: &mut Memory) -> Vec<ConnId> {
        let count = count.min(self.len());
        let of_front = count.min(self.front.len());
        self.front.drain(..of_front);
        self.taken += of_front as u64;
        memory.queued -= count;
        let mut left = count - of_front;
        let alone = self.flows.len() == 1;
        let mut freed = Vec::new();
        while left > 0 {
            let Some(source) = self.turns.pop_front() else { break };
            let Some(flow) = self.flows.get_mut(&source) else { continue };
            let before = flow.len();
            let written = left.min(flow.turn(alone));
            flow.advance(written, &mut self.front);
            left -= written;
            self.in_flows -= before - flow.len();
            if flow.bytes.is_empty() {
                if let Some(flow) = self.flows.remove(&source) {
                    freed.extend(flow.waiting);
                    memory.give(flow.bytes);
                }
            } else {
                self.turns.push_back(source);
                if flow.len() < self.share() / 2
                    && let Some(flow) = self.flows.get_mut(&source)
                {
                    flow.stalled = false;
                    freed.append(&mut flow.waiting);
                }
            }
        }
        if self.front.is_empty() && self.front.capacity() > 0 {
            memory.give(std::mem::take(&mut self.front));
        }
        freed
    }

    /// Gives the memory of a closed connection's queue back. Returns the senders that waited for it.
    pub(super) fn release(&mut self, memory: &mut Memory) -> Vec<ConnId> {
        memory.queued -= self.len();
        let flows = std::mem::take(&mut self.flows);
        memory.give(std::mem::take(&mut self.front));
        let mut freed = Vec::new();
        for flow in flows.into_values() {
            freed.extend(flow.waiting);
            memory.give(flow.bytes);
        }
        self.in_flows = 0;
        freed
    }
}

fn push(to: &mut VecDeque<u8>, bytes: &[u8], memory: &mut Memory) {
    if to.capacity() == 0 && !bytes.is_empty() {
        *to = memory.take(bytes.len());
    }
    to.extend(bytes);
    memory.queued += bytes.len();
}

/// The first `len` bytes of a queue as at most two slices.
fn add_slices<'a>(slices: &mut Vec<IoSlice<'a>>, from: &'a VecDeque<u8>, len: usize) {
    let (one, two) = from.as_slices();
    let first = one.len().min(len);
    for slice in [&one[..first], &two[..len - first]] {
        if !slice.is_empty() {
            slices.push(IoSlice::new(slice));
        }
    }
}

/// The memory of all queues: how much is in use, and a few spare ones, so that idle connections need none.
#[derive(Default)]
pub(super) struct Memory {
    queued: usize,
    spare: Vec<VecDeque<u8>>,
}

impl Memory {
    const SPARES: usize = 16;
    const WORTH_KEEPING: usize = 64 * 1024;
    /// Queues that start this small rarely grow.
    const SMALL: usize = 4 * 1024;

    /// Bytes in all queues.
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    fn take(&mut self, len: usize) -> VecDeque<u8> {
        if len <= Self::SMALL {
            return VecDeque::with_capacity(len);
        }
        self.spare.pop().unwrap_or_default()
    }

    fn give(&mut self, mut bytes: VecDeque<u8>) {
        if bytes.capacity() >= Self::WORTH_KEEPING && self.spare.len() < Self::SPARES {
            bytes.clear();
            self.spare.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(number: u8) -> NodePublic {
        NodePublic::from_bytes([number; 32])
    }

    fn offered(outbox: &Outbox) -> Vec<u8> {
        outbox.offer().0.iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn bytes_leave_in_order_and_a_pong_counts_as_pending_until_it_is_taken() {
        let (mut outbox, mut memory) = (Outbox::default(), Memory::default());
        outbox.push(b"abc", &mut memory);
        outbox.push(b"pong", &mut memory);
        outbox.mark_pong();
        outbox.push(b"later", &mut memory);
        outbox.advance(6, &mut memory);
        assert!(outbox.has_pong());
        outbox.advance(1, &mut memory);
        assert!(!outbox.has_pong());
        assert_eq!(offered(&outbox), b"later");
        outbox.advance(99, &mut memory);
        assert!(outbox.is_empty());
        assert_eq!(outbox.front.capacity(), 0);
    }

    #[test]
    fn flows_take_turns_by_pieces_and_a_begun_piece_is_finished_first() {
        let (mut outbox, mut memory) = (Outbox::default(), Memory::default());
        for piece in [b"1111", b"2222"] {
            outbox.push_piece(&source(1), [&piece[..1], &piece[1..]], &mut memory);
        }
        let large = [b'3'; PIECE];
        outbox.push_piece(&source(3), [b"", &large], &mut memory);
        outbox.push_piece(&source(3), [b"", b"4444"], &mut memory);
        assert_eq!(memory.queued(), 12 + PIECE);
        assert_eq!(offered(&outbox), [&b"11112222"[..], &large].concat());
        outbox.advance(2, &mut memory);
        // The rest of the first piece, what is urgent, and then the one whose turn it is.
        outbox.push(b"!", &mut memory);
        assert_eq!(offered(&outbox), [&b"11!"[..], &large, b"2222"].concat());
        outbox.advance(3 + PIECE, &mut memory);
        assert_eq!(offered(&outbox), b"22224444");
        outbox.advance(8, &mut memory);
        assert!(outbox.is_empty() && outbox.flows.is_empty() && outbox.turns.is_empty());
        assert_eq!(memory.queued(), 0);
    }

    #[test]
    fn large_queues_are_reused_and_small_ones_are_not_kept() {
        let (mut outbox, mut memory) = (Outbox::default(), Memory::default());
        outbox.push(&[0; 100_000], &mut memory);
        outbox.advance(100_000, &mut memory);
        assert_eq!(memory.spare.len(), 1);
        outbox.push(&[0; 10], &mut memory);
        assert_eq!(memory.spare.len(), 1);
        outbox.advance(10, &mut memory);
        outbox.push(&[0; 5000], &mut memory);
        assert_eq!(memory.spare.len(), 0);
    }
}
