//! This machine's addresses and ways out, and a descriptor that is readable when they change.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

/// Multicast groups of rtnetlink: changes of links, and of addresses and routes of IPv4 and IPv6
/// (`linux/rtnetlink.h`).
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
/// `RTM_DELADDR` (`linux/rtnetlink.h`).
const DELETED_ADDRESS: u16 = 21;
/// `IFA_ADDRESS` and `IFA_LOCAL` (`linux/if_addr.h`).
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
/// `RT_SCOPE_UNIVERSE`: an address valid everywhere.
const WORLD: u8 = 0;
/// Addresses remembered of one burst of changes.
const MAX_REMOVED: usize = 256;
/// Far addresses nobody has (RFC 5737, RFC 3849): the route to them is the default one.
const FAR: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9),
];

/// What of this machine's network matters to paths; another value means another network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Network {
    /// Addresses of interfaces that are up, in order.
    pub(crate) addresses: Vec<IpAddr>,
    /// Source addresses of what leaves for afar, IPv4 and IPv6.
    sources: [Option<IpAddr>; 2],
}

impl Network {
    /// As it is now.
    pub(crate) fn now() -> Self {
        Self { addresses: addresses(), sources: FAR.map(source_towards) }
    }
}

fn addresses() -> Vec<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let usable = interfaces.into_iter().filter(|interface| interface.is_oper_up() && usable(&interface.name));
    let mut addresses: Vec<IpAddr> = usable.map(|interface| interface.ip()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// The address the system would send from; nothing is sent.
pub(crate) fn source_towards(far: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if far.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(far).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Interfaces of another network's tunnel loop back into it.
fn usable(name: &str) -> bool {
    !name.starts_with("zt")
}

/// A netlink socket that hears of changes.
pub(crate) fn watch() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Protocol 0 of this family is rtnetlink.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    Ok(socket)
}

/// Empties the socket and answers the addresses that were taken away, be they back by now: from one network to the next a
/// machine may keep its address, but no connection.
pub(crate) fn removed(socket: &OwnedFd) -> Vec<IpAddr> {
    let mut buffer = [0; 16_384];
    let mut removed = Vec::new();
    while let Ok(length) = rustix::io::read(socket, &mut buffer)
        && length > 0
    {
        removed.extend(removals(buffer.get(..length).unwrap_or_default()));
        removed.truncate(MAX_REMOVED);
    }
    removed
}

/// The addresses that rtnetlink messages say were deleted, link-local ones left out. Header: length, type, flags, sequence,
/// port; then family, prefix, flags, scope, interface; then attributes of length, type and value, each to four bytes.
fn removals(mut messages: &[u8]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    while let Some((kind, body, rest)) = message(messages) {
        messages = rest;
        if let (DELETED_ADDRESS, [_, _, _, WORLD, _, _, _, _, attributes @ ..]) = (kind, body) {
            found.extend(address(attributes));
        }
    }
    found
}

fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, bytes.get(16..length)?, rest))
}

/// The local address where the message has one (IPv4), else the address.
fn address(mut attributes: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    while let Some(head) = attributes.first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]);
        let Some(value) = attributes.get(4..length) else { break };
        let ip = match value.len() {
            4 => value.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
            16 => value.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
            _ => None,
        };
        match kind {
            LOCAL => return ip,
            ADDRESS => found = ip,
            _ => {}
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap_or(0);
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat()
    }

    fn change(kind: u16, scope: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let body = [&[2, 24, 0, scope, 7, 0, 0, 0][..], &attributes.concat()].concat();
        let length = u32::try_from(16 + body.len()).unwrap_or(0);
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], &body].concat()
    }

    #[test]
    fn addresses_taken_away_are_read() {
        let v4 = change(
            DELETED_ADDRESS,
            WORLD,
            &[attribute(ADDRESS, &[10, 0, 0, 1]), attribute(LOCAL, &[10, 0, 0, 2])],
        );
        let v6 = change(DELETED_ADDRESS, WORLD, &[attribute(ADDRESS, &[0x20; 16])]);
        let link = change(DELETED_ADDRESS, 253, &[attribute(ADDRESS, &[0xfe; 16])]);
        let added = change(20, WORLD, &[attribute(LOCAL, &[10, 0, 0, 3])]);
        let found = removals(&[v4.clone(), added, link, v6].concat());
        assert_eq!(found, [IpAddr::from([10, 0, 0, 2]), IpAddr::from([0x20; 16])]);
        for length in 0..v4.len() {
            assert!(removals(&v4[..length]).is_empty(), "cut at {length}");
        }
    }

    #[test]
    fn nonsense_ends_the_reading() {
        for nonsense in [&[0; 64][..], &[255; 64], &[16, 0, 0, 0]] {
            assert!(removals(nonsense).is_empty());
        }
    }
}
