//! The 18-byte form in which disco and DERP carry a socket address: 16 bytes of IPv6 and a big-endian port.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Bytes of one address.
pub(crate) const LEN: usize = 18;

/// Encodes an address; IPv4 becomes v4-mapped IPv6.
pub(crate) fn encode(addr: SocketAddr) -> [u8; LEN] {
    let ip = match addr.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let mut out = [0; LEN];
    out[..16].copy_from_slice(&ip.octets());
    out[16..].copy_from_slice(&addr.port().to_be_bytes());
    out
}

/// Decodes an address; v4-mapped IPv6 becomes IPv4.
pub(crate) fn decode(bytes: &[u8; LEN]) -> SocketAddr {
    let mut ip = [0; 16];
    ip.copy_from_slice(&bytes[..16]);
    SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), u16::from_be_bytes([bytes[16], bytes[17]]))
}
