//! Bytes of a stream by their position, in pieces that exist only while something is in them.

use std::collections::VecDeque;

/// Positions a piece stands for.
pub(crate) const CHUNK: usize = 64 << 10;
/// What a piece begins with; it doubles until it is whole.
const LEAST: usize = 4 << 10;
/// Empty pieces kept for what comes next.
const SPARES: usize = 8;

/// A window on a stream. Nothing moves when it grows, and when it is empty only a few spare pieces are kept.
#[derive(Debug)]
pub(crate) struct Chunks {
    /// Position at which the first piece begins.
    origin: u64,
    pieces: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
}

impl Chunks {
    /// An empty one that begins at `position`.
    pub fn new(position: u64) -> Self {
        Self { origin: position, pieces: VecDeque::new(), spare: Vec::new() }
    }

    /// Piece and place in it; nothing below what was released.
    fn locate(&self, position: u64) -> Option<(usize, usize)> {
        let place = usize::try_from(position.checked_sub(self.origin)?).ok()?;
        Some((place / CHUNK, place % CHUNK))
    }

    /// Room at `position` for `wanted` bytes, less at the end of a piece, and more if there is. Empty below what was
    /// released. The caller bounds the position.
    #[inline]
    pub fn room(&mut self, position: u64, wanted: usize) -> &mut [u8] {
        let Some((index, offset)) = self.locate(position) else { return &mut [] };
        if index >= self.pieces.len() {
            self.pieces.resize_with(index + 1, Vec::new);
        }
        let Some(piece) = self.pieces.get_mut(index) else { return &mut [] };
        if piece.is_empty()
            && let Some(spare) = self.spare.pop()
        {
            *piece = spare;
        }
        let needed = (offset + wanted).min(CHUNK);
        if piece.len() < needed {
            piece.resize(needed.max(piece.len() * 2).clamp(LEAST, CHUNK), 0);
        }
        piece.get_mut(offset..).unwrap_or_default()
    }

    /// Stores `bytes` at `position`.
    #[inline]
    pub fn write(&mut self, mut position: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.room(position, bytes.len());
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
        let piece = self
            .locate(position)
            .and_then(|(index, offset)| self.pieces.get(index)?.get(offset..))
            .unwrap_or_default();
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

    /// Lets go of everything below `position`; `empty` says that there is nothing above it either, so that what comes
    /// next can begin with a piece.
    #[inline]
    pub fn release(&mut self, position: u64, empty: bool) {
        while empty || self.origin + CHUNK as u64 <= position {
            let Some(piece) = self.pieces.pop_front() else { break };
            self.origin += CHUNK as u64;
            if !piece.is_empty() && self.spare.len() < SPARES {
                self.spare.push(piece);
            }
        }
        if self.pieces.is_empty() {
            self.origin = position;
        }
    }

    /// Gives spare memory back.
    pub fn trim(&mut self) {
        self.spare = Vec::new();
        if self.pieces.is_empty() {
            self.pieces = VecDeque::new();
        }
    }

    /// Whether there is memory to give back.
    pub fn has_spare(&self) -> bool {
        !self.spare.is_empty()
    }

    /// Bytes of memory held.
    pub fn held(&self) -> usize {
        self.spare.iter().chain(&self.pieces).map(Vec::len).sum()
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
        assert_eq!((chunks.read(start, 1).len(), chunks.room(start, 1).len()), (0, 0));
        chunks.trim();
        assert_eq!(chunks.held(), 0);
        chunks.write(start + 200_000, b"more");
        assert_eq!(chunks.read(start + 200_000, 4), b"more");
    }

    #[test]
    fn a_little_data_takes_little_memory() {
        let mut chunks = Chunks::new(0);
        for at in 0..100_000 {
            chunks.write(at, b"x");
            chunks.release(at + 1, true);
        }
        assert_eq!(chunks.held(), LEAST);
    }
}
