//! Disco: the messages by which two nodes find and prove a direct path.
//!
//! A packet is `magic(6) || sender's disco key(32) || nonce(24) || NaCl box of the payload`; a payload is
//! `type(1) || version(1) || body`. Types 1 to 3 are known here; any other is [`DiscoError::UnknownType`], to be ignored.

use std::net::SocketAddr;

use crate::addr;
use crate::keys::{BOX_OVERHEAD, DiscoPublic, KEY_LEN, NONCE_LEN, NodePublic, SharedBox};

/// First bytes of every packet.
pub const MAGIC: [u8; 6] = [0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac];
/// Bytes in front of the box.
pub const HEADER_LEN: usize = MAGIC.len() + KEY_LEN + NONCE_LEN;
/// Bytes of a padded ping's or pong's payload. The packet then has 1310 bytes, so that only a path that carries
/// nearly full data packets is ever proved.
pub const PADDED_PAYLOAD: usize = 1232;
/// Bytes of a packet that carries a padded payload.
pub const PADDED_PACKET: usize = HEADER_LEN + BOX_OVERHEAD + PADDED_PAYLOAD;

const PING: u8 = 1;
const PONG: u8 = 2;
const CALL_ME_MAYBE: u8 = 3;
const TX_LEN: usize = 12;
/// Type, version, transaction.
const PREFIX_LEN: usize = 2 + TX_LEN;

/// Identifies a ping; its pong carries the same.
pub type TxId = [u8; TX_LEN];

/// Why a packet is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoError {
    /// It does not look like disco.
    #[error("not a disco packet")]
    NotDisco,
    /// The box was not made by the holder of the sender's key for us.
    #[error("disco box does not open")]
    Sealed,
    /// The payload ends before its fixed part does.
    #[error("short disco message")]
    Short,
    /// A type this version does not know; a newer peer may send it, so ignore it silently.
    #[error("unknown disco message type {0:#04x}")]
    UnknownType(u8),
}

/// A disco message. `padding` counts the zero bytes behind the fixed part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Asks for a pong over the same path.
    Ping {
        /// To be copied into the pong.
        tx: TxId,
        /// Who the sender claims to be; absent in very old senders.
        node_key: Option<NodePublic>,
        /// Zero bytes at the end.
        padding: usize,
    },
    /// Answers a ping.
    Pong {
        /// Copied from the ping.
        tx: TxId,
        /// Where the ping came from, as its receiver saw it (IPv4 unmapped).
        source: SocketAddr,
        /// Zero bytes at the end.
        padding: usize,
    },
    /// Sent through a relay: "ping me at these addresses, I am pinging yours".
    CallMeMaybe {
        /// All addresses of the sender (IPv4 unmapped); empty if it wants no direct path.
        endpoints: Vec<SocketAddr>,
    },
}

impl Message {
    /// A ping padded to [`PADDED_PAYLOAD`].
    pub fn ping(tx: TxId, node_key: NodePublic) -> Self {
        Self::Ping { tx, node_key: Some(node_key), padding: PADDED_PAYLOAD - PREFIX_LEN - KEY_LEN }
    }

    /// A pong padded to [`PADDED_PAYLOAD`].
    pub fn pong(tx: TxId, source: SocketAddr) -> Self {
        Self::Pong { tx, source, padding: PADDED_PAYLOAD - PREFIX_LEN - addr::LEN }
    }

    /// The payload, before sealing.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Ping { tx, node_key, padding } => {
                let key = node_key.as_ref().map_or(&[][..], |key| key.as_bytes());
                with_tx(PING, tx, key, *padding)
            }
            Self::Pong { tx, source, padding } => with_tx(PONG, tx, &addr::encode(*source), *padding),
            Self::CallMeMaybe { endpoints } => {
                let mut out = Vec::with_capacity(2 + endpoints.len() * addr::LEN);
                out.extend_from_slice(&[CALL_ME_MAYBE, 0]);
                endpoints.iter().for_each(|endpoint| out.extend_from_slice(&addr::encode(*endpoint)));
                out
            }
        }
    }

    /// Reads an opened payload.
    pub fn decode(payload: &[u8]) -> Result<Self, DiscoError> {
        let [kind, version, body @ ..] = payload else { return Err(DiscoError::Short) };
        match *kind {
            PING => decode_ping(body),
            PONG => decode_pong(body),
            CALL_ME_MAYBE => Ok(Self::CallMeMaybe { endpoints: decode_endpoints(*version, body) }),
            other => Err(DiscoError::UnknownType(other)),
        }
    }
}

/// Whether a packet looks like disco: long enough for the header, and the magic in front.
#[inline]
pub fn is_disco(packet: &[u8]) -> bool {
    packet.len() >= HEADER_LEN && packet.starts_with(&MAGIC)
}

/// The disco key the sender claims; proved only by opening the box.
#[inline]
pub fn sender(packet: &[u8]) -> Option<DiscoPublic> {
    if is_disco(packet) { DiscoPublic::from_prefix(&packet[MAGIC.len()..]) } else { None }
}

/// The complete packet with `message`. `sender` is our own public key, `shared` the box with the receiver's.
pub fn seal(sender: &DiscoPublic, shared: &SharedBox, nonce: [u8; NONCE_LEN], message: &Message) -> Vec<u8> {
    let payload = message.encode();
    let mut out = Vec::with_capacity(HEADER_LEN + BOX_OVERHEAD + payload.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(sender.as_bytes());
    out.extend_from_slice(&nonce);
    shared.seal_into(nonce, &payload, &mut out);
    out
}

/// Opens a packet and reads its message. `shared` is the box with the key that [`sender`] tells.
pub fn open(shared: &SharedBox, packet: &[u8]) -> Result<Message, DiscoError> {
    if !is_disco(packet) {
        return Err(DiscoError::NotDisco);
    }
    let (nonce, sealed) =
        packet[MAGIC.len() + KEY_LEN..].split_first_chunk::<NONCE_LEN>().ok_or(DiscoError::NotDisco)?;
    Message::decode(&shared.open(*nonce, sealed).ok_or(DiscoError::Sealed)?)
}

fn with_tx(kind: u8, tx: &TxId, fixed: &[u8], padding: usize) -> Vec<u8> {
    let len = PREFIX_LEN + fixed.len() + padding;
    // Receivers ignore the version of pings and pongs; the padded form is marked 1 by the peers that invented it.
    let version = u8::from(len == PADDED_PAYLOAD);
    let mut out = Vec::with_capacity(len);
    out.extend_from_slice(&[kind, version]);
    out.extend_from_slice(tx);
    out.extend_from_slice(fixed);
    out.resize(len, 0);
    out
}

fn decode_ping(body: &[u8]) -> Result<Message, DiscoError> {
    let (tx, rest) = body.split_first_chunk::<TX_LEN>().ok_or(DiscoError::Short)?;
    let node_key = NodePublic::from_prefix(rest).filter(|key| !key.is_zero());
    let padding = rest.len() - node_key.map_or(0, |_| KEY_LEN);
    Ok(Message::Ping { tx: *tx, node_key, padding })
}

fn decode_pong(body: &[u8]) -> Result<Message, DiscoError> {
    let (tx, rest) = body.split_first_chunk::<TX_LEN>().ok_or(DiscoError::Short)?;
    let (source, rest) = rest.split_first_chunk::<{ addr::LEN }>().ok_or(DiscoError::Short)?;
    Ok(Message::Pong { tx: *tx, source: addr::decode(source), padding: rest.len() })
}

fn decode_endpoints(version: u8, body: &[u8]) -> Vec<SocketAddr> {
    let (endpoints, rest) = body.as_chunks::<{ addr::LEN }>();
    if version != 0 || !rest.is_empty() {
        return Vec::new();
    }
    endpoints.iter().map(addr::decode).collect()
}
