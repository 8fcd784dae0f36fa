//! Whole packets that are not TCP streams: datagrams, and the reset that answers a stray segment.

use std::net::SocketAddrV6;

use tcp::Segment;
use wire::ip::{self, HEADER_LEN};

use crate::connection::Key;

/// Bytes of a UDP header.
pub const UDP_HEADER: usize = 8;
/// ICMPv6 echo request (RFC 4443 section 4.1).
pub const ECHO_REQUEST: u8 = 128;
/// ICMPv6 echo reply (RFC 4443 section 4.2).
pub const ECHO_REPLY: u8 = 129;

/// A UDP datagram. The caller has checked that the payload fits.
pub fn datagram(from: &SocketAddrV6, to: &SocketAddrV6, payload: &[u8]) -> Vec<u8> {
    let len = (UDP_HEADER + payload.len()) as u16;
    let mut packet = Vec::with_capacity(HEADER_LEN + usize::from(len));
    packet.extend_from_slice(&ip::header(*from.ip(), *to.ip(), ip::UDP, len));
    packet.extend_from_slice(&from.port().to_be_bytes());
    packet.extend_from_slice(&to.port().to_be_bytes());
    packet.extend_from_slice(&len.to_be_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(payload);
    let mut sum = ip::pseudo_header(*from.ip(), *to.ip(), ip::UDP, u32::from(len));
    sum.add(&packet[HEADER_LEN..]);
    // RFC 8200 section 8.1: a checksum that comes out as zero is sent as all ones.
    let sum = if sum.finish() == 0 { u16::MAX } else { sum.finish() };
    packet[HEADER_LEN + 6..HEADER_LEN + UDP_HEADER].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Ports and payload of a UDP datagram; `None` when it is malformed.
pub fn parse_datagram(segment: &[u8]) -> Option<(u16, u16, &[u8])> {
    let [s0, s1, d0, d1, l0, l1, _, _] = *segment.first_chunk::<UDP_HEADER>()?;
    let payload = segment.get(UDP_HEADER..usize::from(u16::from_be_bytes([l0, l1])))?;
    let (source, destination) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
    (destination != 0).then_some((source, destination, payload))
}

/// The reset that answers a segment nobody wants.
pub fn reset(key: &Key, stray: &Segment<'_>) -> Vec<u8> {
    let (seq, ack, flags) = stray.reset();
    let (from, to) = (*key.local.ip(), *key.remote.ip());
    let len = tcp::HEADER_LEN as u16;
    let mut packet = Vec::with_capacity(HEADER_LEN + tcp::HEADER_LEN);
    packet.extend_from_slice(&ip::header(from, to, ip::TCP, len));
    packet.extend_from_slice(&key.local.port().to_be_bytes());
    packet.extend_from_slice(&key.remote.port().to_be_bytes());
    packet.extend_from_slice(&seq.to_be_bytes());
    packet.extend_from_slice(&ack.to_be_bytes());
    packet.extend_from_slice(&[5 << 4, flags, 0, 0, 0, 0, 0, 0]);
    let mut sum = ip::pseudo_header(from, to, ip::TCP, u32::from(len));
    sum.add(&packet[HEADER_LEN..]);
    packet[HEADER_LEN + 16..HEADER_LEN + 18].copy_from_slice(&sum.finish().to_be_bytes());
    packet
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sum(packet: &[u8]) -> u16 {
        let view = ip::Ipv6::parse(packet).unwrap();
        let mut sum =
            ip::pseudo_header(view.src(), view.dst(), view.next_header(), view.payload().len() as u32);
        sum.add(view.payload());
        sum.finish()
    }

    #[test]
    fn a_datagram_parses_back() {
        let from = "[fd7a::1]:53".parse().unwrap();
        let packet = datagram(&from, &"[fd7a::2]:5353".parse().unwrap(), b"query");
        assert_eq!(parse_datagram(&packet[HEADER_LEN..]), Some((53, 5353, &b"query"[..])));
        assert_eq!(sum(&packet), 0);
        for end in HEADER_LEN..packet.len() {
            assert_eq!(parse_datagram(&packet[HEADER_LEN..end]), None);
        }
    }

    #[test]
    fn a_reset_is_summed_and_answers_the_stray() {
        let key = Key::new("fd7a::1".parse().unwrap(), 80, "fd7a::2".parse().unwrap(), 5000);
        let stray = Segment {
            source: 5000,
            destination: 80,
            seq: 7,
            ack: 9,
            flags: tcp::ACK,
            window: 0,
            options: &[],
            payload: &[],
        };
        let packet = reset(&key, &stray);
        let answer = Segment::parse(&packet[HEADER_LEN..]).unwrap();
        assert_eq!((answer.source, answer.destination, answer.seq, answer.flags), (80, 5000, 9, tcp::RST));
        assert_eq!(sum(&packet), 0);
    }
}
