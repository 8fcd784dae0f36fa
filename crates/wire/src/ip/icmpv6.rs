//! ICMPv6 echo (RFC 4443, section 4): what `ping` sends and expects.

use std::net::Ipv6Addr;

use super::{HEADER_LEN, ICMPV6, Ipv6, header, pseudo_header};

/// Bytes of an echo message in front of its data.
pub const ECHO_LEN: usize = 8;
/// Most data of an echo, so that the packet's length fits its header.
pub const MAX_DATA: usize = u16::MAX as usize - ECHO_LEN;

/// Which of the two messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To be answered.
    Request,
    /// The answer.
    Reply,
}

/// An echo message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo<'a> {
    /// Request or reply.
    pub kind: Kind,
    /// Tells apart who asks.
    pub id: u16,
    /// Tells apart the requests.
    pub seq: u16,
    /// Comes back unchanged.
    pub data: &'a [u8],
}

/// Reads an echo message; `None` if the packet is none, or its checksum is wrong.
pub fn parse<'a>(packet: &Ipv6<'a>) -> Option<Echo<'a>> {
    if packet.next_header() != ICMPV6 {
        return None;
    }
    let (head, data) = packet.payload().split_first_chunk::<ECHO_LEN>()?;
    let kind = match (head[0], head[1]) {
        (128, 0) => Kind::Request,
        (129, 0) => Kind::Reply,
        _ => return None,
    };
    let mut sum = pseudo_header(packet.src(), packet.dst(), ICMPV6, packet.payload().len() as u32);
    sum.add(packet.payload());
    let id = u16::from_be_bytes([head[4], head[5]]);
    let seq = u16::from_be_bytes([head[6], head[7]]);
    (sum.finish() == 0).then_some(Echo { kind, id, seq, data })
}

/// A complete packet with an echo message; data above [`MAX_DATA`] is cut off.
pub fn build(src: Ipv6Addr, dst: Ipv6Addr, echo: &Echo<'_>) -> Vec<u8> {
    let data = &echo.data[..echo.data.len().min(MAX_DATA)];
    let len = ECHO_LEN + data.len();
    let mut out = Vec::with_capacity(HEADER_LEN + len);
    out.extend_from_slice(&header(src, dst, ICMPV6, len as u16));
    out.extend_from_slice(&[if echo.kind == Kind::Request { 128 } else { 129 }, 0, 0, 0]);
    out.extend_from_slice(&echo.id.to_be_bytes());
    out.extend_from_slice(&echo.seq.to_be_bytes());
    out.extend_from_slice(data);
    let mut sum = pseudo_header(src, dst, ICMPV6, len as u32);
    sum.add(&out[HEADER_LEN..]);
    out[HEADER_LEN + 2..HEADER_LEN + 4].copy_from_slice(&sum.finish().to_be_bytes());
    out
}
