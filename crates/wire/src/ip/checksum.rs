//! The internet checksum (RFC 1071), eight bytes at a time.

use std::net::Ipv6Addr;

/// A running one's-complement sum. Pieces may be added in any order, each but the last of even length.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checksum(u64);

impl Checksum {
    /// The empty sum.
    pub const fn new() -> Self {
        Self(0)
    }

    /// Adds a piece; an odd one counts as if a zero byte followed.
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) {
        // Native byte order is enough: the sum of swapped words is the swapped sum.
        let (words, rest) = bytes.as_chunks::<8>();
        let mut sum = u128::from(self.0);
        for word in words {
            sum += u128::from(u64::from_ne_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        sum += u128::from(u64::from_ne_bytes(last));
        // 2^64 is 1 in this arithmetic, so the carries are added back in.
        let folded = (sum >> 64) as u64;
        let (low, carry) = (sum as u64).overflowing_add(folded);
        self.0 = low + u64::from(carry);
    }

    /// The checksum as it stands in a header, big endian. Over a packet that has its checksum in place the result is zero.
    #[inline]
    pub fn finish(self) -> u16 {
        let mut sum = self.0;
        sum = (sum >> 32) + (sum & 0xffff_ffff);
        sum = (sum >> 16 >> 16) + (sum >> 16 & 0xffff) + (sum & 0xffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum = (sum >> 16) + (sum & 0xffff);
        u16::from_be(!(sum as u16))
    }
}

/// The sum over the pseudo header (RFC 8200, section 8.1) that TCP, UDP and ICMPv6 checksums start from.
#[inline]
pub fn pseudo_header(src: Ipv6Addr, dst: Ipv6Addr, next_header: u8, len: u32) -> Checksum {
    let mut sum = Checksum::new();
    sum.add(&src.octets());
    sum.add(&dst.octets());
    let len = len.to_be_bytes();
    sum.add(&[len[0], len[1], len[2], len[3], 0, 0, 0, next_header]);
    sum
}
