//! Whole packets that are not TCP streams: datagrams, echo, TSMP, and the reset that answers a stray segment.

use std::net::{Ipv6Addr, SocketAddrV6};

use crate::ip::{self, IPV6, TCP, TcpHeader, UDP};

/// ICMPv6 echo request (RFC 4443 section 4.1).
pub const ECHO_REQUEST: u8 = 128;
/// ICMPv6 echo reply (RFC 4443 section 4.2).
pub const ECHO_REPLY: u8 = 129;
const TSMP_PING: u8 = b'p';
const TSMP_PONG: u8 = b'o';

/// A TSMP message this stack acts on.
pub enum Tsmp {
    Ping([u8; 8]),
    Pong([u8; 8]),
}

/// Reads a TSMP payload; `None` for messages that need no action.
pub fn tsmp(payload: &[u8]) -> Option<Tsmp> {
    let (kind, rest) = payload.split_first()?;
    let data = *rest.first_chunk::<8>()?;
    match *kind {
        TSMP_PING => Some(Tsmp::Ping(data)),
        TSMP_PONG => Some(Tsmp::Pong(data)),
        _ => None,
    }
}

/// A TSMP ping.
pub fn tsmp_ping(from: &Ipv6Addr, to: &Ipv6Addr, data: &[u8; 8]) -> Vec<u8> {
    let mut packet = vec![0; IPV6 + 9];
    packet[IPV6] = TSMP_PING;
    packet[IPV6 + 1..].copy_from_slice(data);
    ip::write_header(&mut packet, ip::NEXT_TSMP, from, to);
    packet
}

/// A TSMP pong; its last two bytes, a port for something we do not offer, are zero.
pub fn tsmp_pong(from: &Ipv6Addr, to: &Ipv6Addr, data: &[u8; 8]) -> Vec<u8> {
    let mut packet = vec![0; IPV6 + 11];
    packet[IPV6] = TSMP_PONG;
    packet[IPV6 + 1..IPV6 + 9].copy_from_slice(data);
    ip::write_header(&mut packet, ip::NEXT_TSMP, from, to);
    packet
}

/// An ICMPv6 echo message of the given kind; `body` is identifier, sequence number and data.
pub fn echo(kind: u8, from: &Ipv6Addr, to: &Ipv6Addr, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; IPV6 + 4 + body.len()];
    packet[IPV6] = kind;
    packet[IPV6 + 4..].copy_from_slice(body);
    ip::write_header(&mut packet, ip::NEXT_ICMP, from, to);
    ip::write_checksum(&mut packet, 2);
    packet
}

/// A UDP datagram. The caller has checked that the payload fits.
pub fn datagram(from: &SocketAddrV6, to: &SocketAddrV6, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; IPV6 + UDP + payload.len()];
    packet[IPV6..IPV6 + 2].copy_from_slice(&from.port().to_be_bytes());
    packet[IPV6 + 2..IPV6 + 4].copy_from_slice(&to.port().to_be_bytes());
    packet[IPV6 + 4..IPV6 + 6].copy_from_slice(&((UDP + payload.len()) as u16).to_be_bytes());
    packet[IPV6 + UDP..].copy_from_slice(payload);
    ip::write_header(&mut packet, ip::NEXT_UDP, from.ip(), to.ip());
    ip::write_checksum(&mut packet, 6);
    packet
}

/// Ports and payload of a UDP datagram; `None` when it is malformed.
pub fn parse_datagram(segment: &[u8]) -> Option<(u16, u16, &[u8])> {
    let header: &[u8; UDP] = segment.first_chunk()?;
    let payload = segment.get(UDP..usize::from(ip::be16(header, 4)))?;
    let (source, destination) = (ip::be16(header, 0), ip::be16(header, 2));
    (destination != 0).then_some((source, destination, payload))
}

/// The reset that answers a segment nobody wants (RFC 9293 section 3.5.2): it takes its sequence number from the
/// segment's acknowledgement, or acknowledges the segment when there is none.
pub fn reset(from: &Ipv6Addr, to: &Ipv6Addr, stray: &TcpHeader) -> Vec<u8> {
    let mut packet = vec![0; IPV6 + TCP];
    let (seq, ack, flags) = if stray.flags & ip::ACK != 0 {
        (stray.ack, 0, ip::RST)
    } else {
        (0, stray.seq.wrapping_add(stray.length()), ip::RST | ip::ACK)
    };
    let segment = &mut packet[IPV6..];
    segment[..2].copy_from_slice(&stray.destination.to_be_bytes());
    segment[2..4].copy_from_slice(&stray.source.to_be_bytes());
    segment[4..8].copy_from_slice(&seq.to_be_bytes());
    segment[8..12].copy_from_slice(&ack.to_be_bytes());
    segment[12] = 5 << 4;
    segment[13] = flags;
    ip::write_header(&mut packet, ip::NEXT_TCP, from, to);
    ip::write_checksum(&mut packet, 16);
    packet
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const AGENT: &str = "fd7a:115c:a1e0:4b0f:9be3:2a1d:7e5c:9f10";
    const CLIENT: &str = "fd7a:115c:a1e0:4111:8222:3333:4444:5555";
    const PING: &str =
        "6000000000096340fd7a115ca1e041118222333344445555fd7a115ca1e04b0f9be32a1d7e5c9f1070deadbeef01020304";
    const PONG: &str = "60000000000b6340fd7a115ca1e04b0f9be32a1d7e5c9f10fd7a115ca1e0411182223333444455556fdeadbeef010203040000";
    const ECHO: &str = "60000000000d3a40fd7a115ca1e041118222333344445555fd7a115ca1e04b0f9be32a1d7e5c9f10\
                        800038bbba4f120568656c6c6f";

    #[test]
    fn packets_match_the_reference() {
        let (agent, client): (Ipv6Addr, Ipv6Addr) = (AGENT.parse().unwrap(), CLIENT.parse().unwrap());
        let data = [0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4];
        assert_eq!(hex::encode(tsmp_ping(&client, &agent, &data)), PING);
        assert_eq!(hex::encode(tsmp_pong(&agent, &client, &data)), PONG);
        // The reference's own echo requests carry a checksum that RFC 4443 does not yield (38bb): ours differ there only.
        let request = echo(ECHO_REQUEST, &client, &agent, b"\xba\x4f\x12\x05hello");
        assert_eq!(hex::encode(&request), ECHO.replace("38bb", "4fa4"));
        assert_eq!(ip::checksum(&request), [0, 0]);
    }

    #[test]
    fn short_tsmp_is_ignored_at_every_length() {
        let pong = hex::decode(PONG).unwrap();
        for end in IPV6..pong.len() {
            assert_eq!(tsmp(&pong[IPV6..end]).is_some(), end >= IPV6 + 9);
        }
    }

    #[test]
    fn a_datagram_parses_back() {
        let from = "[fd7a::1]:53".parse().unwrap();
        let packet = datagram(&from, &"[fd7a::2]:5353".parse().unwrap(), b"query");
        assert_eq!(parse_datagram(&packet[IPV6..]), Some((53, 5353, &b"query"[..])));
        assert_eq!(ip::checksum(&packet), [0, 0]);
        for end in IPV6..packet.len() {
            assert_eq!(parse_datagram(&packet[IPV6..end]), None);
        }
    }
}
