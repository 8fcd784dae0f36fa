//! This machine's addresses, and a descriptor that is readable when they change.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

/// Multicast groups of rtnetlink: link, IPv4 address and IPv6 address changes (`linux/rtnetlink.h`).
const GROUPS: u32 = 0x1 | 0x10 | 0x100;

/// The addresses of all interfaces that are up, in no particular order.
pub(crate) fn addresses() -> Vec<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    interfaces
        .into_iter()
        .filter(|interface| usable(&interface.name))
        .map(|interface| interface.ip())
        .collect()
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
