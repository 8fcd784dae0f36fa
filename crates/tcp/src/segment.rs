//! The TCP header (RFC 9293 section 3.1) and its options, as far as this implementation speaks them.

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;
/// Most bytes of options a header has room for.
pub(crate) const MAX_OPTIONS: usize = 40;
/// The sender has nothing more to send.
pub const FIN: u8 = 1;
/// Sequence numbers are being agreed on.
pub const SYN: u8 = 2;
/// The connection is over.
pub const RST: u8 = 4;
/// The receiver should hand the data on.
pub const PSH: u8 = 8;
/// The acknowledgement number counts.
pub const ACK: u8 = 16;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;
const OPTION_WINDOW_SCALE: u8 = 3;
const OPTION_SACK_PERMITTED: u8 = 4;
const OPTION_SACK: u8 = 5;
/// Largest window shift (RFC 7323 section 2.3).
pub(crate) const MAX_SHIFT: u8 = 14;
/// Blocks a SACK option has room for.
pub(crate) const MAX_BLOCKS: usize = 4;

/// A segment, taken apart where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Port it came from, never 0.
    pub source: u16,
    /// Port it goes to, never 0.
    pub destination: u16,
    /// Sequence number of its first byte.
    pub seq: u32,
    /// Next sequence number its sender expects, if the flags say so.
    pub ack: u32,
    /// The flag bits.
    pub flags: u8,
    /// The window field, not yet scaled.
    pub window: u16,
    /// Raw options.
    pub options: &'a [u8],
    /// The data.
    pub payload: &'a [u8],
}

/// What a SYN offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offer {
    pub mss: Option<u16>,
    pub shift: Option<u8>,
    pub sack: bool,
}

impl<'a> Segment<'a> {
    /// Takes a segment apart; `None` when it is malformed. The checksum is the caller's matter.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (fixed, rest) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let [s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, offset, flags, w0, w1, ..] = *fixed;
        let options = (usize::from(offset >> 4) * 4).checked_sub(HEADER_LEN)?;
        let (options, payload) = rest.split_at_checked(options)?;
        let (source, destination) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
        (source != 0 && destination != 0).then_some(Self {
            source,
            destination,
            seq: u32::from_be_bytes([q0, q1, q2, q3]),
            ack: u32::from_be_bytes([a0, a1, a2, a3]),
            flags,
            window: u16::from_be_bytes([w0, w1]),
            options,
            payload,
        })
    }

    /// Whether all of these flags are set.
    #[inline]
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// Whether it does nothing but ask for a connection.
    pub fn opens(&self) -> bool {
        self.flags & (SYN | ACK | RST | FIN) == SYN
    }

    /// How much of the sequence space it takes.
    pub fn sequence_len(&self) -> u32 {
        self.payload.len() as u32 + u32::from(self.has(SYN)) + u32::from(self.has(FIN))
    }

    /// Sequence number, acknowledgement number and flags of the reset that answers it when nobody wants it (RFC 9293
    /// section 3.5.2): numbered by its acknowledgement, or acknowledging it when it has none.
    pub fn reset(&self) -> (u32, u32, u8) {
        if self.has(ACK) {
            (self.ack, 0, RST)
        } else {
            (0, self.seq.wrapping_add(self.sequence_len()), RST | ACK)
        }
    }

    pub(crate) fn offer(&self) -> Offer {
        let mut offer = Offer::default();
        for (kind, body) in Options(self.options) {
            match (kind, body) {
                (OPTION_MSS, &[high, low]) => offer.mss = Some(u16::from_be_bytes([high, low])),
                (OPTION_WINDOW_SCALE, &[shift]) => offer.shift = Some(shift.min(MAX_SHIFT)),
                (OPTION_SACK_PERMITTED, []) => offer.sack = true,
                _ => {}
            }
        }
        offer
    }

    /// The SACK blocks it carries, each as first and one past last sequence number.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (u32, u32)> {
        let body =
            Options(self.options).find(|(kind, _)| *kind == OPTION_SACK).map_or(&[][..], |(_, body)| body);
        let (blocks, _) = body.as_chunks::<8>();
        blocks.iter().take(MAX_BLOCKS).map(|&[a, b, c, d, e, f, g, h]| {
            (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
        })
    }
}

/// Walks over options until they end or make no sense.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (&kind, rest) = self.0.split_first()?;
            match kind {
                OPTION_END => return None,
                OPTION_NOP => self.0 = rest,
                _ => {
                    let len = usize::from(*rest.first()?).checked_sub(2)?;
                    let (body, rest) = rest.get(1..)?.split_at_checked(len)?;
                    self.0 = rest;
                    return Some((kind, body));
                }
            }
        }
    }
}

/// Options being written, padded to whole words.
pub(crate) struct OptionsOut {
    bytes: [u8; MAX_OPTIONS],
    len: usize,
}

impl Default for OptionsOut {
    fn default() -> Self {
        Self { bytes: [0; MAX_OPTIONS], len: 0 }
    }
}

impl OptionsOut {
    fn push(&mut self, bytes: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            room.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }

    pub fn offer(offer: &Offer) -> Self {
        let mut out = Self::default();
        if let Some(mss) = offer.mss {
            let [high, low] = mss.to_be_bytes();
            out.push(&[OPTION_MSS, 4, high, low]);
        }
        if offer.sack {
            out.push(&[OPTION_NOP, OPTION_NOP, OPTION_SACK_PERMITTED, 2]);
        }
        if let Some(shift) = offer.shift {
            out.push(&[OPTION_NOP, OPTION_WINDOW_SCALE, 3, shift]);
        }
        out
    }

    pub fn sack(blocks: impl ExactSizeIterator<Item = (u32, u32)>) -> Self {
        let mut out = Self::default();
        if blocks.len() > 0 {
            out.push(&[OPTION_NOP, OPTION_NOP, OPTION_SACK, 2 + 8 * blocks.len() as u8]);
            for (start, end) in blocks {
                out.push(&start.to_be_bytes());
                out.push(&end.to_be_bytes());
            }
        }
        out
    }

    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// What is the same in all headers of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Template([u8; HEADER_LEN]);

impl Template {
    pub fn new(local: u16, remote: u16) -> Self {
        let mut bytes = [0; HEADER_LEN];
        bytes[..2].copy_from_slice(&local.to_be_bytes());
        bytes[2..4].copy_from_slice(&remote.to_be_bytes());
        Self(bytes)
    }

    /// Writes a header to the front of `out`; its length, or `None` if there is no room.
    #[inline]
    pub fn write(
        &self,
        out: &mut [u8],
        seq: u32,
        ack: u32,
        flags: u8,
        window: u16,
        options: &[u8],
    ) -> Option<usize> {
        let (header, rest) = out.split_first_chunk_mut::<HEADER_LEN>()?;
        *header = self.0;
        header[4..8].copy_from_slice(&seq.to_be_bytes());
        header[8..12].copy_from_slice(&ack.to_be_bytes());
        header[12] = ((HEADER_LEN + options.len()) as u8 / 4) << 4;
        header[13] = flags;
        header[14..16].copy_from_slice(&window.to_be_bytes());
        if !options.is_empty() {
            rest.get_mut(..options.len())?.copy_from_slice(options);
        }
        Some(HEADER_LEN + options.len())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn segment(options: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 1500];
        let len = Template::new(80, 5000).write(&mut bytes, 7, 9, ACK | PSH, 1000, options).unwrap();
        bytes[len..len + payload.len()].copy_from_slice(payload);
        bytes.truncate(len + payload.len());
        bytes
    }

    #[test]
    fn what_is_written_reads_back_and_every_cut_is_refused_or_shorter() {
        let offer = Offer { mss: Some(1220), shift: Some(9), sack: true };
        let bytes = segment(OptionsOut::offer(&offer).bytes(), b"data");
        let read = Segment::parse(&bytes).unwrap();
        assert_eq!((read.source, read.destination, read.seq, read.ack), (80, 5000, 7, 9));
        assert_eq!((read.flags, read.window, read.payload), (ACK | PSH, 1000, &b"data"[..]));
        assert_eq!(read.offer(), offer);
        for end in 0..bytes.len() {
            assert_eq!(Segment::parse(&bytes[..end]).is_some(), end >= bytes.len() - 4);
        }
    }

    #[test]
    fn four_blocks_are_the_most() {
        let blocks = [(1, 2), (3, 4), (5, 6), (u32::MAX, 1)];
        let bytes = segment(OptionsOut::sack(blocks.into_iter()).bytes(), b"");
        assert_eq!(Segment::parse(&bytes).unwrap().blocks().collect::<Vec<_>>(), blocks);
    }

    #[test]
    fn the_answer_to_a_stray_segment_follows_rfc_9293() {
        let mut bytes = segment(&[], b"1234");
        assert_eq!(Segment::parse(&bytes).unwrap().reset(), (9, 0, RST));
        bytes[13] = SYN;
        assert_eq!(Segment::parse(&bytes).unwrap().reset(), (0, 7 + 4 + 1, RST | ACK));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_upset_it(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..100)) {
            if let Some(segment) = Segment::parse(&bytes) {
                let _ = (segment.offer(), segment.blocks().count(), segment.reset());
            }
        }
    }
}
