//! Payloads of the steady state, one enum per direction. Nothing is copied; unknown types are values, not errors.

use std::net::SocketAddr;
use std::time::Duration;

use super::{DerpError, FrameType, MAGIC, MAX_PACKET, MAX_PING};
use crate::addr;
use crate::keys::NodePublic;

/// Why a peer is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerGoneReason {
    /// It left this server, or the region.
    Disconnected,
    /// The server knows no such peer.
    NotHere,
    /// A reason this version does not know.
    Other(u8),
}

impl PeerGoneReason {
    /// From the byte on the wire.
    pub const fn from_u8(byte: u8) -> Self {
        match byte {
            0 => Self::Disconnected,
            1 => Self::NotHere,
            other => Self::Other(other),
        }
    }

    /// The byte on the wire.
    pub const fn to_u8(self) -> u8 {
        match self {
            Self::Disconnected => 0,
            Self::NotHere => 1,
            Self::Other(byte) => byte,
        }
    }
}

/// What a server says of a peer in PeerPresent; zero if it says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// An ordinary client; set only when no other flag is.
    pub const REGULAR: Self = Self(1);
    /// Another server of the region.
    pub const MESH: Self = Self(2);
    /// A client that only measures.
    pub const PROBER: Self = Self(4);
    /// Connected, but not to the node of the region it should prefer.
    pub const NOT_IDEAL: Self = Self(8);
}

/// What a client receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromServer<'a> {
    /// The greeting; after the login to be skipped (a fast start reads it late).
    ServerKey(NodePublic),
    /// To be opened by [`super::login::open_server_info`].
    ServerInfo(&'a [u8]),
    /// A packet and who sent it.
    Packet {
        /// Proved to the server by its login.
        from: NodePublic,
        /// As the peer sent it.
        packet: &'a [u8],
    },
    /// The server is alive.
    KeepAlive,
    /// Nothing sent to this peer through this server arrives.
    PeerGone(NodePublic, PeerGoneReason),
    /// A peer is connected; only mesh watchers are told.
    PeerPresent {
        /// Its key.
        key: NodePublic,
        /// Where it connects from, if the server says so.
        addr: Option<SocketAddr>,
        /// More about it.
        flags: Flags,
    },
    /// To be answered with a pong of the same bytes.
    Ping([u8; 8]),
    /// Answers our ping.
    Pong([u8; 8]),
    /// A problem in words (in UTF-8, if the server behaves); empty when healthy again.
    Health(&'a [u8]),
    /// The server will restart: wait, then retry for a while before treating it as a failure.
    Restarting {
        /// How long to wait.
        reconnect_in: Duration,
        /// How long to retry.
        try_for: Duration,
    },
    /// To be skipped.
    Unknown(u8),
}

impl<'a> FromServer<'a> {
    /// Reads a payload. On [`DerpError::Short`] a client skips the frame.
    #[inline]
    pub fn parse(frame: FrameType, payload: &'a [u8]) -> Result<Self, DerpError> {
        let short = DerpError::Short(frame);
        Ok(match frame {
            FrameType::RecvPacket => {
                let (from, packet) = split_key(payload).ok_or(short)?;
                Self::Packet { from, packet }
            }
            FrameType::ServerKey => Self::ServerKey(parse_greeting(payload)?),
            FrameType::ServerInfo => Self::ServerInfo(payload),
            FrameType::KeepAlive => Self::KeepAlive,
            FrameType::PeerGone => {
                let (key, rest) = split_key(payload).ok_or(short)?;
                Self::PeerGone(key, PeerGoneReason::from_u8(rest.first().copied().unwrap_or(0)))
            }
            FrameType::PeerPresent => parse_peer_present(payload).ok_or(short)?,
            FrameType::Ping => Self::Ping(*payload.first_chunk().ok_or(short)?),
            FrameType::Pong => Self::Pong(*payload.first_chunk().ok_or(short)?),
            FrameType::Health => Self::Health(payload),
            FrameType::Restarting => parse_restarting(payload).ok_or(short)?,
            other => Self::Unknown(other.to_u8()),
        })
    }
}

/// What a server receives after the login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromClient<'a> {
    /// A packet for a peer.
    Packet {
        /// Whom it is for.
        to: NodePublic,
        /// To be delivered as it is, or dropped.
        packet: &'a [u8],
    },
    /// A packet another server of the region relays; mesh only.
    Forward {
        /// Who sent it there.
        from: NodePublic,
        /// Whom it is for.
        to: NodePublic,
        /// To be delivered as it is, or dropped.
        packet: &'a [u8],
    },
    /// Whether this server's region is the client's home.
    NotePreferred(bool),
    /// Tell me of all your clients; mesh only.
    WatchConns,
    /// End this key's connections; mesh only.
    ClosePeer(NodePublic),
    /// To be answered with a pong of the same bytes.
    Ping([u8; 8]),
    /// To be skipped. A late pong or ClientInfo counts as unknown too.
    Unknown(u8),
}

impl<'a> FromClient<'a> {
    /// Reads a payload. Any error ends the connection.
    #[inline]
    pub fn parse(frame: FrameType, payload: &'a [u8]) -> Result<Self, DerpError> {
        let (short, long) = (DerpError::Short(frame), DerpError::Long(frame));
        Ok(match frame {
            FrameType::SendPacket => {
                let (to, packet) = split_key(payload).ok_or(short)?;
                Self::Packet { to, packet: limited(packet, frame)? }
            }
            FrameType::ForwardPacket => {
                let (from, rest) = split_key(payload).ok_or(short)?;
                let (to, packet) = split_key(rest).ok_or(short)?;
                Self::Forward { from, to, packet: limited(packet, frame)? }
            }
            FrameType::NotePreferred => match payload {
                [] => return Err(short),
                [home] => Self::NotePreferred(*home != 0),
                _ => return Err(long),
            },
            FrameType::WatchConns if payload.is_empty() => Self::WatchConns,
            FrameType::WatchConns => return Err(long),
            FrameType::ClosePeer => match split_key(payload).ok_or(short)? {
                (key, []) => Self::ClosePeer(key),
                _ => return Err(long),
            },
            FrameType::Ping if payload.len() > MAX_PING => return Err(long),
            FrameType::Ping => Self::Ping(*payload.first_chunk().ok_or(short)?),
            other => Self::Unknown(other.to_u8()),
        })
    }

    /// Most payload bytes a server needs to read for this frame type; `None` for frames it skips unread.
    ///
    /// A longer frame is an error before its payload has arrived.
    #[inline]
    pub const fn max_payload(frame: FrameType) -> Option<usize> {
        const KEY: usize = crate::keys::KEY_LEN;
        match frame {
            FrameType::SendPacket => Some(KEY + MAX_PACKET),
            FrameType::ForwardPacket => Some(2 * KEY + MAX_PACKET),
            FrameType::NotePreferred => Some(1),
            FrameType::WatchConns => Some(0),
            FrameType::ClosePeer => Some(KEY),
            FrameType::Ping => Some(MAX_PING),
            _ => None,
        }
    }
}

#[inline]
fn split_key(payload: &[u8]) -> Option<(NodePublic, &[u8])> {
    let (key, rest) = payload.split_first_chunk()?;
    Some((NodePublic::from_bytes(*key), rest))
}

#[inline]
fn limited(packet: &[u8], frame: FrameType) -> Result<&[u8], DerpError> {
    if packet.len() > MAX_PACKET { Err(DerpError::Long(frame)) } else { Ok(packet) }
}

fn parse_greeting(payload: &[u8]) -> Result<NodePublic, DerpError> {
    let key = payload.strip_prefix(&MAGIC).ok_or(DerpError::Greeting)?;
    NodePublic::from_prefix(key).ok_or(DerpError::Greeting)
}

fn parse_peer_present(payload: &[u8]) -> Option<FromServer<'_>> {
    let (key, rest) = split_key(payload)?;
    let addr = rest.first_chunk().map(addr::decode);
    let flags = Flags(rest.get(addr::LEN).copied().unwrap_or(0));
    Some(FromServer::PeerPresent { key, addr, flags })
}

fn parse_restarting(payload: &[u8]) -> Option<FromServer<'_>> {
    let (reconnect_in, rest) = payload.split_first_chunk()?;
    let try_for = rest.first_chunk()?;
    let millis = |bytes: &[u8; 4]| Duration::from_millis(u32::from_be_bytes(*bytes).into());
    Some(FromServer::Restarting { reconnect_in: millis(reconnect_in), try_for: millis(try_for) })
}
