//! DERP: the frames between a relay and its clients, protocol version 2.
//!
//! A frame is `type(1) || length(4, big endian) || payload(length)`. [`Header::parse`] splits the stream, [`FromServer`]
//! and [`FromClient`] read payloads, [`encode`] appends frames to a buffer, [`login`] seals and opens the two
//! messages of the login, and [`rewrite`] turns what a client sent into what its peer receives without copying it.

pub mod encode;
pub mod login;
pub mod rewrite;

mod body;

pub use body::{Flags, FromClient, FromServer, PeerGoneReason};

/// Bytes of a frame's header.
pub const HEADER_LEN: usize = 5;
/// Protocol version both sides announce; informative, nobody refuses another.
pub const VERSION: i64 = 2;
/// First bytes of the greeting's payload.
pub const MAGIC: [u8; 8] = [0x44, 0x45, 0x52, 0x50, 0xf0, 0x9f, 0x94, 0x91];
/// Most bytes of a packet inside SendPacket, RecvPacket, ForwardPacket.
pub const MAX_PACKET: usize = 65536;
/// Most bytes of any payload a client accepts; more ends the connection.
pub const MAX_CLIENT_PAYLOAD: usize = 1 << 20;
/// Bytes of a greeting's payload a client accepts.
pub const GREETING_PAYLOAD: std::ops::RangeInclusive<usize> = 40..=1024;
/// Bytes of a ClientInfo payload a server accepts.
pub const CLIENT_INFO_PAYLOAD: std::ops::RangeInclusive<usize> = 56..=262_144;
/// Bytes of a ServerInfo payload a client accepts.
pub const SERVER_INFO_PAYLOAD: std::ops::RangeInclusive<usize> = 24..=24 + (1 << 20);
/// Most bytes of a ping's payload a server accepts.
pub const MAX_PING: usize = 1000;

/// Why a payload is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DerpError {
    /// Shorter than the fixed part of its frame type. Clients skip such a frame, servers end the connection.
    #[error("short {0:?} frame")]
    Short(FrameType),
    /// Longer than its frame type allows; ends the connection.
    #[error("long {0:?} frame")]
    Long(FrameType),
    /// The greeting is not that of a DERP server.
    #[error("not a DERP greeting")]
    Greeting,
    /// A frame of another type than the login needs.
    #[error("unexpected {0:?} frame")]
    Unexpected(FrameType),
}

macro_rules! frame_types {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        /// What a frame is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum FrameType {
            $($(#[$doc])* $name,)*
            /// A type this version does not know; to be skipped, whatever its length.
            Unknown(u8),
        }

        impl FrameType {
            /// From the byte on the wire.
            #[inline]
            pub const fn from_u8(byte: u8) -> Self {
                match byte { $($value => Self::$name,)* other => Self::Unknown(other) }
            }

            /// The byte on the wire.
            #[inline]
            pub const fn to_u8(self) -> u8 {
                match self { $(Self::$name => $value,)* Self::Unknown(byte) => byte }
            }
        }
    };
}

frame_types! {
    /// Server to client, first: magic and the server's key.
    ServerKey = 0x01,
    /// Client to server, first: the client's key and a sealed [`login::ClientInfo`].
    ClientInfo = 0x02,
    /// Server to client: a sealed [`login::ServerInfo`].
    ServerInfo = 0x03,
    /// Client to server: destination key and packet.
    SendPacket = 0x04,
    /// Server to client: source key and packet.
    RecvPacket = 0x05,
    /// Server to client: nothing, about once a minute.
    KeepAlive = 0x06,
    /// Client to server: whether this is the client's home.
    NotePreferred = 0x07,
    /// Server to client: a peer left, or was never here.
    PeerGone = 0x08,
    /// Server to mesh client: a peer is here.
    PeerPresent = 0x09,
    /// Mesh client to server: source key, destination key, packet.
    ForwardPacket = 0x0a,
    /// Mesh client to server: tell me of all your clients.
    WatchConns = 0x10,
    /// Mesh client to server: end the connections of a key.
    ClosePeer = 0x11,
    /// Either way: 8 bytes to be sent back.
    Ping = 0x12,
    /// Either way: the 8 bytes of a ping.
    Pong = 0x13,
    /// Server to client: text of a problem, empty when healthy again.
    Health = 0x14,
    /// Server to client: it will restart.
    Restarting = 0x15,
}

/// The header in front of every payload.
pub struct Header;

impl Header {
    /// Type and payload length of the frame that starts here; `None` while fewer than [`HEADER_LEN`] bytes are there.
    ///
    /// The length is what the peer claims: compare it with a limit before reserving anything for it.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<(FrameType, usize)> {
        let head = bytes.first_chunk::<HEADER_LEN>()?;
        let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        Some((FrameType::from_u8(head[0]), len as usize))
    }

    /// The bytes of a header. `payload_len` must fit 32 bits.
    #[inline]
    pub const fn bytes(frame: FrameType, payload_len: usize) -> [u8; HEADER_LEN] {
        let len = (payload_len as u32).to_be_bytes();
        [frame.to_u8(), len[0], len[1], len[2], len[3]]
    }
}

/// Whether a relayed packet looks like disco and so belongs into the queue of such packets.
#[inline]
pub fn looks_like_disco(packet: &[u8]) -> bool {
    crate::disco::is_disco(packet)
}
