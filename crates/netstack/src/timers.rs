//! When which connection wants to be looked at.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::time::Instant;

use slab::Slab;

use crate::connection::Connection;

/// A connection's place in the queue.
#[derive(Clone, Copy, Default)]
pub struct Slot {
    /// When it wants to be looked at.
    pub due: Option<Instant>,
    /// The time of its entry in the heap that counts; others are left over.
    queued: Option<Instant>,
}

/// Deadlines of many connections. Moving one later is free, which is what a busy connection does with every packet: its
/// old entry stays and is put right when it comes to the top.
#[derive(Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Instant, u32, u32)>>,
}

impl Timers {
    /// Sets a connection's deadline.
    pub fn set(&mut self, slot: &mut Slot, due: Option<Instant>, index: u32, generation: u32) {
        slot.due = due;
        if let Some(due) = due
            && slot.queued.is_none_or(|queued| queued > due)
        {
            slot.queued = Some(due);
            self.heap.push(Reverse((due, index, generation)));
        }
    }

    /// The earliest deadline and whose it is.
    pub fn next(&mut self, connections: &mut Slab<Connection>) -> Option<(Instant, u32)> {
        loop {
            let mut top = self.heap.peek_mut()?;
            let Reverse((queued, index, generation)) = *top;
            let slot = connections
                .get_mut(index as usize)
                .filter(|connection| connection.flow.generation == generation)
                .map(|connection| &mut connection.timer)
                .filter(|slot| slot.queued == Some(queued));
            match slot {
                Some(Slot { due: Some(due), .. }) if *due == queued => return Some((queued, index)),
                Some(slot @ Slot { due: Some(_), .. }) => {
                    slot.queued = slot.due;
                    top.0.0 = slot.due.unwrap_or(queued);
                }
                Some(slot) => {
                    slot.queued = None;
                    PeekMut::pop(top);
                }
                None => {
                    PeekMut::pop(top);
                }
            }
        }
    }
}
