//! IPv6 packets as the tunnel carries them: a view of the header, TSMP, ICMPv6 echo, the internet checksum.

pub mod icmpv6;
pub mod tsmp;

mod checksum;

pub use checksum::{Checksum, pseudo_header};

use std::net::Ipv6Addr;

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;
/// Next header: TCP.
pub const TCP: u8 = 6;
/// Next header: UDP.
pub const UDP: u8 = 17;
/// Next header: ICMPv6.
pub const ICMPV6: u8 = 58;
/// Next header: TSMP.
pub const TSMP: u8 = 99;

const HOP_LIMIT: u8 = 64;

/// A packet whose header is complete and whose declared length is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

impl<'a> Ipv6<'a> {
    /// Looks at a packet; bytes behind the declared length (WireGuard pads) are left out of it.
    ///
    /// `None` if it is not IPv6, or shorter than it says. Extension headers are not followed.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>()?;
        if header[0] >> 4 != 6 {
            return None;
        }
        let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
        Some(Self { header, payload: rest.get(..len)? })
    }

    /// Source address.
    #[inline]
    pub fn src(&self) -> Ipv6Addr {
        address(self.header, 8)
    }

    /// Destination address.
    #[inline]
    pub fn dst(&self) -> Ipv6Addr {
        address(self.header, 24)
    }

    /// What the payload is: a protocol number, or an extension header.
    #[inline]
    pub fn next_header(&self) -> u8 {
        self.header[6]
    }

    /// Remaining hops.
    #[inline]
    pub fn hop_limit(&self) -> u8 {
        self.header[7]
    }

    /// What follows the fixed header.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Bytes of the whole packet, without padding.
    #[inline]
    pub fn packet_len(&self) -> usize {
        HEADER_LEN + self.payload.len()
    }
}

/// A fixed header for `payload_len` bytes, hop limit 64, no traffic class, no flow label.
#[inline]
pub fn header(src: Ipv6Addr, dst: Ipv6Addr, next_header: u8, payload_len: u16) -> [u8; HEADER_LEN] {
    let mut out = [0; HEADER_LEN];
    out[0] = 6 << 4;
    out[4..6].copy_from_slice(&payload_len.to_be_bytes());
    out[6] = next_header;
    out[7] = HOP_LIMIT;
    out[8..24].copy_from_slice(&src.octets());
    out[24..].copy_from_slice(&dst.octets());
    out
}

#[inline]
fn address(header: &[u8; HEADER_LEN], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&header[at..at + 16]);
    Ipv6Addr::from(octets)
}
