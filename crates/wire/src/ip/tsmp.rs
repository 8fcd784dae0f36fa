//! TSMP: messages below TCP that prove a tunnel works. IP protocol 99.

use std::net::Ipv6Addr;

use super::{HEADER_LEN, Ipv6, TSMP, header};

/// Bytes of a ping packet.
pub const PING_LEN: usize = HEADER_LEN + PING_BODY;
/// Bytes of a pong packet.
pub const PONG_LEN: usize = HEADER_LEN + PONG_BODY;

const PING: u8 = b'p';
const PONG: u8 = b'o';
const PING_BODY: usize = 9;
const PONG_BODY: usize = 11;

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tsmp {
    /// To be answered with a pong of the same data.
    Ping([u8; 8]),
    /// Answers a ping.
    Pong {
        /// The ping's.
        data: [u8; 8],
        /// Port of the peer's own API; zero if it has none.
        port: u16,
    },
    /// A kind this version does not act on, by its first byte.
    Other(u8),
}

/// Reads a message; `None` if the packet is not TSMP or too short. Bytes behind the known ones are ignored.
#[inline]
pub fn parse(packet: &Ipv6<'_>) -> Option<Tsmp> {
    if packet.next_header() != TSMP {
        return None;
    }
    let (kind, rest) = packet.payload().split_first()?;
    Some(match *kind {
        PING => Tsmp::Ping(*rest.first_chunk()?),
        PONG => {
            let (data, rest) = rest.split_first_chunk()?;
            Tsmp::Pong { data: *data, port: rest.first_chunk().map_or(0, |port| u16::from_be_bytes(*port)) }
        }
        other => Tsmp::Other(other),
    })
}

/// A ping packet.
pub fn ping(src: Ipv6Addr, dst: Ipv6Addr, data: [u8; 8]) -> [u8; PING_LEN] {
    let mut out = [0; PING_LEN];
    out[..HEADER_LEN].copy_from_slice(&header(src, dst, TSMP, PING_BODY as u16));
    out[HEADER_LEN] = PING;
    out[HEADER_LEN + 1..].copy_from_slice(&data);
    out
}

/// A pong packet.
pub fn pong(src: Ipv6Addr, dst: Ipv6Addr, data: [u8; 8], port: u16) -> [u8; PONG_LEN] {
    let mut out = [0; PONG_LEN];
    out[..HEADER_LEN].copy_from_slice(&header(src, dst, TSMP, PONG_BODY as u16));
    out[HEADER_LEN] = PONG;
    out[HEADER_LEN + 1..HEADER_LEN + 9].copy_from_slice(&data);
    out[HEADER_LEN + 9..].copy_from_slice(&port.to_be_bytes());
    out
}
