//! This machine's addresses and ways out, and a descriptor that is readable when they change.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

/// Multicast groups of rtnetlink: changes of links, and of addresses and routes of IPv4 and IPv6
/// (`linux/rtnetlink.h`).
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
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

/// Empties the socket; what it says is not needed, only that it spoke.
pub(crate) fn drain(socket: &OwnedFd) {
    let mut buffer = [0; 8192];
    while matches!(rustix::io::read(socket, &mut buffer), Ok(n) if n > 0) {}
}
