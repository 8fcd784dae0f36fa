//! STUN (RFC 5389): the one request and the one response by which a node learns its address as others see it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Identifies a request; its response carries the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TxId(pub [u8; 12]);

/// Bytes of [`request`].
pub const REQUEST_LEN: usize = 40;

const HEADER_LEN: usize = 20;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const BINDING_REQUEST: [u8; 2] = [0, 1];
const BINDING_SUCCESS: [u8; 2] = [1, 1];
const MAPPED_ADDRESS: u16 = 0x0001;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// The number drafts of RFC 5389 used.
const XOR_MAPPED_ADDRESS_OLD: u16 = 0x8020;
const SOFTWARE: u16 = 0x8022;
const FINGERPRINT: u16 = 0x8028;
const FINGERPRINT_XOR: u32 = 0x5354_554e;
/// What servers of the Tailscale family require in SOFTWARE before they answer.
const SOFTWARE_NAME: &[u8; 8] = b"tailnode";
const FAMILY_V4: u8 = 1;
const FAMILY_V6: u8 = 2;

/// Why a packet is not the request or response looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StunError {
    /// It is no STUN packet at all.
    #[error("not a STUN packet")]
    NotStun,
    /// A STUN packet, but no binding request.
    #[error("not a STUN binding request")]
    NotRequest,
    /// A STUN packet, but no binding success response.
    #[error("not a STUN success response")]
    NotResponse,
    /// Attributes overrun the packet, or hold no usable address.
    #[error("malformed STUN attributes")]
    Malformed,
    /// The request carries a FINGERPRINT that does not fit, or something behind it.
    #[error("wrong STUN fingerprint")]
    Fingerprint,
}

/// Whether a packet is STUN: at least 20 bytes, top two bits zero, the magic cookie in place.
#[inline]
pub fn is_stun(packet: &[u8]) -> bool {
    packet.len() >= HEADER_LEN && packet[0] & 0xc0 == 0 && packet[4..8] == COOKIE
}

/// A binding request with SOFTWARE and FINGERPRINT.
pub fn request(tx: TxId) -> [u8; REQUEST_LEN] {
    let mut out = [0; REQUEST_LEN];
    out[..2].copy_from_slice(&BINDING_REQUEST);
    out[3] = (REQUEST_LEN - HEADER_LEN) as u8;
    out[4..8].copy_from_slice(&COOKIE);
    out[8..20].copy_from_slice(&tx.0);
    out[20..22].copy_from_slice(&SOFTWARE.to_be_bytes());
    out[23] = SOFTWARE_NAME.len() as u8;
    out[24..32].copy_from_slice(SOFTWARE_NAME);
    out[32..34].copy_from_slice(&FINGERPRINT.to_be_bytes());
    out[35] = 4;
    let print = fingerprint(&out[..32]);
    out[36..].copy_from_slice(&print.to_be_bytes());
    out
}

/// Reads a binding request. SOFTWARE and FINGERPRINT need not be there; a FINGERPRINT must be last and right.
pub fn parse_request(packet: &[u8]) -> Result<TxId, StunError> {
    let (kind, tx, body) = split(packet)?;
    if kind != BINDING_REQUEST {
        return Err(StunError::NotRequest);
    }
    let mut rest = body;
    while !rest.is_empty() {
        let (attribute, value, after) = next_attribute(rest)?;
        if attribute == FINGERPRINT {
            let covered = HEADER_LEN + body.len() - rest.len();
            if !after.is_empty() || value != fingerprint(&packet[..covered]).to_be_bytes() {
                return Err(StunError::Fingerprint);
            }
        }
        rest = after;
    }
    Ok(tx)
}

/// The binding success response that tells `addr`. A v4-mapped address is told as IPv4.
pub fn response(tx: TxId, addr: SocketAddr) -> Vec<u8> {
    let mut value = [0; 20];
    let port = addr.port() ^ u16::from_be_bytes([COOKIE[0], COOKIE[1]]);
    value[2..4].copy_from_slice(&port.to_be_bytes());
    let value_len = match addr.ip().to_canonical() {
        IpAddr::V4(ip) => {
            value[1] = FAMILY_V4;
            value[4..8].copy_from_slice(&ip.octets());
            8
        }
        IpAddr::V6(ip) => {
            value[1] = FAMILY_V6;
            value[4..20].copy_from_slice(&ip.octets());
            20
        }
    };
    xor_address(&mut value[4..value_len], tx);
    let mut out = Vec::with_capacity(HEADER_LEN + 4 + value_len);
    out.extend_from_slice(&BINDING_SUCCESS);
    out.extend_from_slice(&(4 + value_len as u16).to_be_bytes());
    out.extend_from_slice(&COOKIE);
    out.extend_from_slice(&tx.0);
    out.extend_from_slice(&XOR_MAPPED_ADDRESS.to_be_bytes());
    out.extend_from_slice(&(value_len as u16).to_be_bytes());
    out.extend_from_slice(&value[..value_len]);
    out
}

/// Reads a binding success response: whose it is, and our address as the server saw it (IPv4 unmapped).
///
/// XOR-MAPPED-ADDRESS wins over MAPPED-ADDRESS, wherever it stands. The caller must check that the id is outstanding.
pub fn parse_response(packet: &[u8]) -> Result<(TxId, SocketAddr), StunError> {
    let (kind, tx, body) = split(packet)?;
    if kind != BINDING_SUCCESS {
        return Err(StunError::NotResponse);
    }
    let (mut fallback, mut rest) = (None, body);
    while !rest.is_empty() {
        let (attribute, value, after) = next_attribute(rest)?;
        match attribute {
            XOR_MAPPED_ADDRESS | XOR_MAPPED_ADDRESS_OLD => return Ok((tx, address(value, Some(tx))?)),
            MAPPED_ADDRESS => fallback = Some(address(value, None)?),
            _ => {}
        }
        rest = after;
    }
    fallback.map(|addr| (tx, addr)).ok_or(StunError::Malformed)
}

/// Type, transaction, and the attributes as far as the header declares them.
fn split(packet: &[u8]) -> Result<([u8; 2], TxId, &[u8]), StunError> {
    if !is_stun(packet) {
        return Err(StunError::NotStun);
    }
    let (header, body) = packet.split_first_chunk::<HEADER_LEN>().ok_or(StunError::NotStun)?;
    let declared = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let mut tx = [0; 12];
    tx.copy_from_slice(&header[8..]);
    let kind = [header[0], header[1]];
    // A wrong type is the better answer than a wrong length, so the length is judged last.
    match body.get(..declared) {
        Some(body) => Ok((kind, TxId(tx), body)),
        None if kind == BINDING_REQUEST || kind == BINDING_SUCCESS => Err(StunError::Malformed),
        None => Ok((kind, TxId(tx), &[])),
    }
}

/// The attribute in front: its type, its value, and what follows its padding.
fn next_attribute(bytes: &[u8]) -> Result<(u16, &[u8], &[u8]), StunError> {
    let (head, rest) = bytes.split_first_chunk::<4>().ok_or(StunError::Malformed)?;
    let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let value = rest.get(..len).ok_or(StunError::Malformed)?;
    let after = rest.get(len.next_multiple_of(4)..).ok_or(StunError::Malformed)?;
    Ok((u16::from_be_bytes([head[0], head[1]]), value, after))
}

/// The value of MAPPED-ADDRESS, or of XOR-MAPPED-ADDRESS when the transaction is given.
fn address(value: &[u8], xor: Option<TxId>) -> Result<SocketAddr, StunError> {
    let (head, ip) = value.split_first_chunk::<4>().ok_or(StunError::Malformed)?;
    let len = match head[1] {
        FAMILY_V4 => 4,
        FAMILY_V6 => 16,
        _ => return Err(StunError::Malformed),
    };
    let mut octets = [0; 16];
    octets[..len].copy_from_slice(ip.get(..len).ok_or(StunError::Malformed)?);
    let mut port = u16::from_be_bytes([head[2], head[3]]);
    if let Some(tx) = xor {
        port ^= u16::from_be_bytes([COOKIE[0], COOKIE[1]]);
        xor_address(&mut octets[..len], tx);
    }
    let ip = match len {
        4 => IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3])),
        _ => Ipv6Addr::from(octets).to_canonical(),
    };
    Ok(SocketAddr::new(ip, port))
}

/// XORs with the cookie, then with the transaction.
fn xor_address(octets: &mut [u8], tx: TxId) {
    octets.iter_mut().zip(COOKIE.iter().chain(&tx.0)).for_each(|(octet, key)| *octet ^= key);
}

fn fingerprint(covered: &[u8]) -> u32 {
    crc32(covered) ^ FINGERPRINT_XOR
}

/// CRC-32 of IEEE 802.3. Packets are tiny and rare, so bit by bit will do.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}
