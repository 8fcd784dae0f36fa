//! From the frame a client sent to the frame its peer receives, in the buffer it was read into.
//!
//! Only the first bytes are touched, so the rest of the frame need not have arrived yet.

use super::{FrameType, HEADER_LEN, Header};
use crate::keys::{KEY_LEN, NodePublic};

/// Bytes of header and key in front of the packet of a SendPacket or RecvPacket frame.
pub const PREFIX_LEN: usize = HEADER_LEN + KEY_LEN;
/// Bytes of header and keys in front of the packet of a ForwardPacket frame.
pub const FORWARD_PREFIX_LEN: usize = PREFIX_LEN + KEY_LEN;

/// Turns a SendPacket frame into the RecvPacket frame of the same length that `source`'s peer is to get.
///
/// Returns the destination it named; `None`, and nothing changed, if `frame` does not start with such a frame.
#[inline]
pub fn send_to_recv(frame: &mut [u8], source: &NodePublic) -> Option<NodePublic> {
    let prefix = frame.first_chunk_mut::<PREFIX_LEN>()?;
    let (kind, len) = Header::parse(prefix)?;
    if kind != FrameType::SendPacket || len < KEY_LEN {
        return None;
    }
    let destination = NodePublic::from_prefix(&prefix[HEADER_LEN..])?;
    prefix[0] = FrameType::RecvPacket.to_u8();
    prefix[HEADER_LEN..].copy_from_slice(source.as_bytes());
    Some(destination)
}

/// Turns a ForwardPacket frame into the RecvPacket frame its destination is to get.
///
/// Returns the destination and where in `frame` the new, shorter frame starts; `None`, and nothing changed, if
/// `frame` does not start with such a frame.
#[inline]
pub fn forward_to_recv(frame: &mut [u8]) -> Option<(NodePublic, usize)> {
    let prefix = frame.first_chunk_mut::<FORWARD_PREFIX_LEN>()?;
    let (kind, len) = Header::parse(prefix)?;
    if kind != FrameType::ForwardPacket || len < 2 * KEY_LEN {
        return None;
    }
    let destination = NodePublic::from_prefix(&prefix[PREFIX_LEN..])?;
    prefix.copy_within(HEADER_LEN..PREFIX_LEN, PREFIX_LEN);
    prefix[KEY_LEN..KEY_LEN + HEADER_LEN]
        .copy_from_slice(&Header::bytes(FrameType::RecvPacket, len - KEY_LEN));
    Some((destination, KEY_LEN))
}
