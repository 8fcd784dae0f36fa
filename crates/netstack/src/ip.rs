//! IPv6 and TCP headers as far as the stack looks at them, and the Internet checksum.

use std::net::{Ipv6Addr, SocketAddrV6};

/// Length of an IPv6 header.
pub const IPV6: usize = 40;
/// Length of a TCP header without options.
pub const TCP: usize = 20;
/// Length of a UDP header.
pub const UDP: usize = 8;
/// Next header: TCP.
pub const NEXT_TCP: u8 = 6;
/// Next header: UDP.
pub const NEXT_UDP: u8 = 17;
/// Next header: ICMPv6.
pub const NEXT_ICMP: u8 = 58;
/// Next header: TSMP, the tunnel's own ping.
pub const NEXT_TSMP: u8 = 99;
/// TCP flag bits.
pub const FIN: u8 = 1;
/// See [`FIN`].
pub const SYN: u8 = 2;
/// See [`FIN`].
pub const RST: u8 = 4;
/// See [`FIN`].
pub const ACK: u8 = 16;

const HOP_LIMIT: u8 = 64;

/// An IPv6 packet whose fixed header is sound.
pub struct Packet<'a> {
    /// Exactly the packet: what followed it is cut off.
    pub whole: &'a [u8],
    /// Source address, unicast.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
    /// What the payload is.
    pub next_header: u8,
}

impl<'a> Packet<'a> {
    /// Takes `bytes` apart; `None` when they are not an IPv6 packet from a unicast address.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header: &[u8; IPV6] = bytes.first_chunk()?;
        if header[0] >> 4 != 6 {
            return None;
        }
        let whole = bytes.get(..IPV6 + usize::from(be16(header, 4)))?;
        let source = address(header, 8);
        if source.is_unspecified() || source.is_multicast() {
            return None;
        }
        Some(Self { whole, source, destination: address(header, 24), next_header: header[6] })
    }

    /// What follows the fixed header.
    pub fn payload(&self) -> &'a [u8] {
        self.whole.get(IPV6..).unwrap_or_default()
    }
}

/// The fields of a TCP header the stack itself decides by.
#[derive(Clone, Copy)]
pub struct TcpHeader {
    pub source: u16,
    pub destination: u16,
    pub seq: u32,
    pub ack: u32,
    pub header: usize,
    pub flags: u8,
    pub payload: usize,
}

impl TcpHeader {
    /// Takes a TCP segment apart; `None` when it is malformed.
    pub fn parse(segment: &[u8]) -> Option<Self> {
        let fixed: &[u8; TCP] = segment.first_chunk()?;
        let header = usize::from(fixed[12] >> 4) * 4;
        let (source, destination) = (be16(fixed, 0), be16(fixed, 2));
        if header < TCP || header > segment.len() || source == 0 || destination == 0 {
            return None;
        }
        let (seq, ack) = (be32(fixed, 4), be32(fixed, 8));
        let payload = segment.len() - header;
        Some(Self { source, destination, seq, ack, header, flags: fixed[13], payload })
    }

    /// How much of the sequence space the segment takes.
    pub fn length(&self) -> u32 {
        self.payload as u32 + u32::from(self.flags & SYN != 0) + u32::from(self.flags & FIN != 0)
    }
}

/// Writes an IPv6 header for `payload` bytes of `next_header` to the front of `packet`.
pub fn write_header(packet: &mut [u8], next_header: u8, from: &Ipv6Addr, to: &Ipv6Addr) {
    let payload = packet.len() - IPV6;
    packet[..4].copy_from_slice(&[0x60, 0, 0, 0]);
    packet[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
    packet[6] = next_header;
    packet[7] = HOP_LIMIT;
    packet[8..24].copy_from_slice(&from.octets());
    packet[24..40].copy_from_slice(&to.octets());
}

/// Computes the checksum of the upper layer of a whole packet and stores it `at` bytes into that layer.
pub fn write_checksum(packet: &mut [u8], at: usize) {
    packet[IPV6 + at..IPV6 + at + 2].fill(0);
    let sum = checksum(packet);
    // RFC 8200 section 8.1: a UDP checksum that comes out as zero is sent as all ones; for the others both mean the same.
    let sum = if sum == [0, 0] && packet[6] == NEXT_UDP { [0xff, 0xff] } else { sum };
    packet[IPV6 + at..IPV6 + at + 2].copy_from_slice(&sum);
}

/// The checksum over pseudo-header and payload of a whole packet; zero when the packet carries a correct one.
pub fn checksum(packet: &[u8]) -> [u8; 2] {
    let length = ((packet.len() - IPV6) as u32).to_be_bytes();
    let pseudo = sum(&packet[8..IPV6]) + sum(&length) + sum(&[0, packet[6]]);
    (!fold(pseudo + sum(&packet[IPV6..]))).to_ne_bytes()
}

/// Sums 16-bit words in the machine's byte order. The halves of each 64-bit load go to two accumulators, which never
/// carry, so that the compiler can keep many of them in one register.
fn sum(bytes: &[u8]) -> u64 {
    let (chunks, rest) = bytes.as_chunks::<8>();
    let (mut low, mut high) = (0u64, 0u64);
    for chunk in chunks {
        let word = u64::from_ne_bytes(*chunk);
        low += word & 0xffff_ffff;
        high += word >> 32;
    }
    let mut last = [0u8; 8];
    last[..rest.len()].copy_from_slice(rest);
    let word = u64::from_ne_bytes(last);
    u64::from(fold(low)) + u64::from(fold(high)) + u64::from(fold(word))
}

/// Folds a sum to 16 bits in one's complement.
fn fold(mut sum: u64) -> u16 {
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The big-endian 16 bits at `at`; the caller has checked the length.
pub fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The big-endian 32 bits at `at`; the caller has checked the length.
pub fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// A socket address without scope or flow label.
pub fn endpoint(address: Ipv6Addr, port: u16) -> SocketAddrV6 {
    SocketAddrV6::new(address, port, 0, 0)
}

fn address(header: &[u8; IPV6], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&header[at..at + 16]);
    Ipv6Addr::from(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow_checksum(packet: &[u8]) -> u16 {
        let mut data = packet[8..40].to_vec();
        data.extend_from_slice(&((packet.len() - 40) as u32).to_be_bytes());
        data.extend_from_slice(&[0, 0, 0, packet[6]]);
        data.extend_from_slice(&packet[40..]);
        if data.len() % 2 == 1 {
            data.push(0);
        }
        let mut sum = 0u32;
        for word in data.chunks(2) {
            sum += u32::from(be16(word, 0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    proptest::proptest! {
        #[test]
        fn checksum_agrees_with_the_definition(packet in proptest::collection::vec(proptest::num::u8::ANY, 40..1400)) {
            proptest::prop_assert_eq!(u16::from_be_bytes(checksum(&packet)), slow_checksum(&packet));
        }

        #[test]
        fn parse_never_panics(packet in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            if let Some(parsed) = Packet::parse(&packet) {
                let _ = TcpHeader::parse(parsed.payload());
            }
        }
    }

    #[test]
    fn a_written_checksum_verifies() {
        let mut packet = vec![7u8; IPV6 + 33];
        write_header(&mut packet, NEXT_TCP, &Ipv6Addr::LOCALHOST, &Ipv6Addr::LOCALHOST);
        write_checksum(&mut packet, 16);
        assert_eq!(checksum(&packet), [0, 0]);
    }
}
