//! Frames, each appended to a buffer. Packets may have [`MAX_PACKET`](super::MAX_PACKET) bytes at most; the caller sees to that.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Flags, FrameType, Header, MAGIC, PeerGoneReason};
use crate::addr;
use crate::keys::NodePublic;

/// Appends a frame whose payload is the concatenation of `parts`.
#[inline]
pub fn frame(out: &mut Vec<u8>, frame: FrameType, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    out.reserve(super::HEADER_LEN + len);
    out.extend_from_slice(&Header::bytes(frame, len));
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// The greeting.
pub fn server_key(out: &mut Vec<u8>, key: &NodePublic) {
    frame(out, FrameType::ServerKey, &[&MAGIC, key.as_bytes()]);
}

/// A packet for `to`.
#[inline]
pub fn send_packet(out: &mut Vec<u8>, to: &NodePublic, packet: &[u8]) {
    frame(out, FrameType::SendPacket, &[to.as_bytes(), packet]);
}

/// Header and key of a SendPacket or RecvPacket frame, for callers that write the packet themselves.
#[inline]
pub fn packet_prefix(
    kind: FrameType,
    key: &NodePublic,
    packet_len: usize,
) -> [u8; super::rewrite::PREFIX_LEN] {
    let mut prefix = [0; super::rewrite::PREFIX_LEN];
    let (head, rest) = prefix.split_at_mut(super::HEADER_LEN);
    head.copy_from_slice(&Header::bytes(kind, key.as_bytes().len() + packet_len));
    rest.copy_from_slice(key.as_bytes());
    prefix
}

/// A packet from `from`.
#[inline]
pub fn recv_packet(out: &mut Vec<u8>, from: &NodePublic, packet: &[u8]) {
    frame(out, FrameType::RecvPacket, &[from.as_bytes(), packet]);
}

/// A packet from our client `from` for the other server's client `to`.
#[inline]
pub fn forward_packet(out: &mut Vec<u8>, from: &NodePublic, to: &NodePublic, packet: &[u8]) {
    frame(out, FrameType::ForwardPacket, &[from.as_bytes(), to.as_bytes(), packet]);
}

/// The server is alive.
pub fn keep_alive(out: &mut Vec<u8>) {
    frame(out, FrameType::KeepAlive, &[]);
}

/// Whether this server's region is our home.
pub fn note_preferred(out: &mut Vec<u8>, home: bool) {
    frame(out, FrameType::NotePreferred, &[&[u8::from(home)]]);
}

/// A peer is gone.
pub fn peer_gone(out: &mut Vec<u8>, key: &NodePublic, reason: PeerGoneReason) {
    frame(out, FrameType::PeerGone, &[key.as_bytes(), &[reason.to_u8()]]);
}

/// A peer is here. Without an address the frame has the short form that every client understands.
pub fn peer_present(out: &mut Vec<u8>, key: &NodePublic, from: Option<(SocketAddr, Flags)>) {
    match from {
        Some((from, flags)) => {
            frame(out, FrameType::PeerPresent, &[key.as_bytes(), &addr::encode(from), &[flags.0]]);
        }
        None => frame(out, FrameType::PeerPresent, &[key.as_bytes()]),
    }
}

/// Asks to be told of all clients.
pub fn watch_conns(out: &mut Vec<u8>) {
    frame(out, FrameType::WatchConns, &[]);
}

/// Asks to end a key's connections.
pub fn close_peer(out: &mut Vec<u8>, key: &NodePublic) {
    frame(out, FrameType::ClosePeer, &[key.as_bytes()]);
}

/// Asks for a pong.
pub fn ping(out: &mut Vec<u8>, data: &[u8; 8]) {
    frame(out, FrameType::Ping, &[data]);
}

/// Answers a ping.
pub fn pong(out: &mut Vec<u8>, data: &[u8; 8]) {
    frame(out, FrameType::Pong, &[data]);
}

/// Tells of a problem, or with an empty text that it is over.
pub fn health(out: &mut Vec<u8>, problem: &str) {
    frame(out, FrameType::Health, &[problem.as_bytes()]);
}

/// Announces a restart. Durations travel as 32 bits of milliseconds; longer ones are cut to that.
pub fn restarting(out: &mut Vec<u8>, reconnect_in: Duration, try_for: Duration) {
    let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX).to_be_bytes();
    frame(out, FrameType::Restarting, &[&millis(reconnect_in), &millis(try_for)]);
}
