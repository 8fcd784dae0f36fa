//! What one connection is still to be sent.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Instant;

use super::ConnId;

/// Bytes as they go on the wire, with what the policy needs to know about them.
#[derive(Default)]
pub(super) struct Outbox {
    bytes: VecDeque<u8>,
    /// Bytes ever taken by the socket from this queue.
    taken: u64,
    /// `taken` at which the pong in the queue will be gone.
    pong_until: u64,
    /// The socket took less than offered; it will be reported writable.
    pub(super) blocked: bool,
    /// When the socket last took something, or when it became blocked.
    pub(super) progressed: Option<Instant>,
    /// Senders were made to wait in vain: no more waiting until the queue is short again.
    pub(super) stalled: bool,
    /// Senders that are not read from until this queue is short.
    pub(super) waiting: Vec<ConnId>,
}

impl Outbox {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn has_pong(&self) -> bool {
        self.taken < self.pong_until
    }

    /// The pong is the last thing in the queue.
    pub(super) fn mark_pong(&mut self) {
        self.pong_until = self.taken + self.bytes.len() as u64;
    }

    /// Appends; an empty queue takes its memory from `memory`.
    pub(super) fn push(&mut self, bytes: &[u8], memory: &mut Memory) {
        if self.bytes.capacity() == 0 {
            self.bytes = memory.take(bytes.len());
        }
        self.bytes.extend(bytes);
        memory.queued += bytes.len();
    }

    /// The queue as at most two slices, in order.
    pub(super) fn slices(&self) -> [IoSlice<'_>; 2] {
        let (front, back) = self.bytes.as_slices();
        [IoSlice::new(front), IoSlice::new(back)]
    }

    /// The socket took `count` bytes of the queue. An emptied queue gives its memory back.
    pub(super) fn advance(&mut self, count: usize, memory: &mut Memory) {
        let count = count.min(self.bytes.len());
        self.bytes.drain(..count);
        self.taken += count as u64;
        memory.queued -= count;
        if self.bytes.is_empty() && self.bytes.capacity() > 0 {
            memory.give(std::mem::take(&mut self.bytes));
        }
    }

    /// The memory of a closed connection's queue.
    pub(super) fn release(&mut self, memory: &mut Memory) {
        let mut bytes = std::mem::take(&mut self.bytes);
        memory.queued -= bytes.len();
        bytes.clear();
        memory.give(bytes);
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

    fn give(&mut self, bytes: VecDeque<u8>) {
        if bytes.capacity() >= Self::WORTH_KEEPING && self.spare.len() < Self::SPARES {
            self.spare.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let left: Vec<u8> = outbox.slices().iter().flat_map(|slice| slice.to_vec()).collect();
        assert_eq!(left, b"later");
        outbox.advance(99, &mut memory);
        assert!(outbox.is_empty());
        assert_eq!(outbox.bytes.capacity(), 0);
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
