//! Bytes of a stream by their position, in pieces that exist only while something is in them.

use std::collections::VecDeque;

/// Bytes of a piece.
pub(crate) const CHUNK: usize = 64 << 10;
/// Empty pieces kept for what comes next.
const SPARES: usize = 8;

/// A window on a stream. Nothing moves when it grows, and nothing is kept when it is empty but a few spare pieces.
#[derive(Debug)]
pub(crate) struct Chunks {
    /// Number of the first piece, its position divided by its size.
    first: u64,
    slots: VecDeque<Option<Box<[u8]>>>,
    spare: Vec<Box<[u8]>>,
}

impl Chunks {
    /// An empty one that begins at `position`.
    pub fn new(position: u64) -> Self {
        Self { first: position / CHUNK as u64, slots: VecDeque::new(), spare: Vec::new() }
    }

    fn locate(&self, position: u64) -> Option<(usize, usize)> {
        let slot = (position / CHUNK as u64).checked_sub(self.first)?;
        Some((slot as usize, position as usize % CHUNK))
    }

    /// Room at `position`, to the end of its piece; empty below what was released. The caller bounds the position.
    #[inline]
    pub fn room(&mut self, position: u64) -> &mut [u8] {
        let Some((slot, offset)) = self.locate(position) else { return &mut [] };
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, || None);
        }
        let spare = &mut self.spare;
        let Some(piece) = self.slots.get_mut(slot) else { return &mut [] };
        let piece =
            piece.get_or_insert_with(|| spare.pop().unwrap_or_else(|| vec![0; CHUNK].into_boxed_slice()));
        piece.get_mut(offset..).unwrap_or_default()
    }

    /// Stores `bytes` at `position`.
    #[inline]
    pub fn write(&mut self, mut position: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.room(position);
            let len = room.len().min(bytes.len());
            let (now, later) = bytes.split_at(len);
            let Some(room) = room.get_mut(..len).filter(|room| !room.is_empty()) else { return };
            room.copy_from_slice(now);
            position += len as u64;
            bytes = later;
        }
    }

    /// The bytes from `position` that lie in one piece, at most `len`; empty if there are none.
    #[inline]
    pub fn read(&self, position: u64, len: usize) -> &[u8] {
        let piece =
            self.locate(position).and_then(|(slot, offset)| self.slots.get(slot)?.as_ref()?.get(offset..));
        let piece = piece.unwrap_or_default();
        piece.get(..len).unwrap_or(piece)
    }

    /// Fills `out` from `position`.
    #[inline]
    pub fn copy(&self, mut position: u64, mut out: &mut [u8]) {
        while !out.is_empty() {
            let bytes = self.read(position, out.len());
            let Some((now, later)) = out.split_at_mut_checked(bytes.len()).filter(|(now, _)| !now.is_empty())
            else {
                return;
            };
            now.copy_from_slice(bytes);
            position += now.len() as u64;
            out = later;
        }
    }

    /// Lets go of everything below `position`; `empty` says that there is nothing above it either.
    #[inline]
    pub fn release(&mut self, position: u64, empty: bool) {
        let target = position / CHUNK as u64;
        while self.first < target || (empty && !self.slots.is_empty()) {
            match self.slots.pop_front() {
                Some(Some(piece)) if self.spare.len() < SPARES => self.spare.push(piece),
                Some(_) => {}
                None => {
                    self.first = target;
                    return;
                }
            }
            self.first += 1;
        }
        if empty {
            self.first = target;
        }
    }

    /// Gives spare memory back; whether there was any.
    pub fn trim(&mut self) {
        self.spare = Vec::new();
        if self.slots.is_empty() {
            self.slots = VecDeque::new();
        }
    }

    /// Whether there is memory to give back.
    pub fn has_spare(&self) -> bool {
        !self.spare.is_empty()
    }

    /// Bytes of memory held.
    pub fn held(&self) -> usize {
        (self.spare.len() + self.slots.iter().flatten().count()) * CHUNK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_across_pieces_and_memory_goes() {
        let start = (1 << 40) + 5;
        let mut chunks = Chunks::new(start);
        let data: Vec<u8> = (0..200_000u32).map(|at| (at / 7) as u8).collect();
        chunks.write(start + 100_000, &data[100_000..]);
        assert!(chunks.held() < 200_000);
        chunks.write(start, &data[..100_000]);
        let mut out = vec![0; data.len()];
        chunks.copy(start, &mut out);
        assert!(out == data);
        assert_eq!(chunks.read(start + 10, 20), &data[10..30]);
        chunks.release(start + 200_000, true);
        assert_eq!((chunks.read(start, 1).len(), chunks.room(start).len()), (0, 0));
        chunks.trim();
        assert_eq!(chunks.held(), 0);
        chunks.write(start + 200_000, b"more");
        assert_eq!(chunks.read(start + 200_000, 4), b"more");
    }
}
