"""The machine's network interfaces, for the connection report."""

import fcntl
import ipaddress
import socket
import struct
from pathlib import Path

from coder.tailnet.sides import Interface

_SIOCGIFADDR = 0x8915  # netdevice(7)
_SIOCGIFNETMASK = 0x891B


def interfaces(root: Path = Path("/")) -> list[Interface]:
    """Return the interfaces that have an address. Linux only; elsewhere: none."""
    sixes = _ipv6(root / "proc/net/if_inet6")
    found = []
    for _, name in socket.if_nameindex():
        addresses = (*_ipv4(name), *sixes.get(name, ()))
        try:
            mtu = int((root / "sys/class/net" / name / "mtu").read_text())
        except (OSError, ValueError):
            mtu = 0
        if addresses:
            found.append(Interface(name=name, mtu=mtu, addresses=addresses))
    return found


def _ipv4(name: str) -> tuple[str, ...]:
    request = struct.pack("256s", name.encode()[:15])
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            address, mask = (fcntl.ioctl(probe, code, request)[20:24] for code in (_SIOCGIFADDR, _SIOCGIFNETMASK))
    except OSError:
        return ()  # no IPv4 there, or no such call on this system
    return (str(ipaddress.IPv4Interface((address, int.from_bytes(mask).bit_count()))),)


def _ipv6(table: Path) -> dict[str, tuple[str, ...]]:
    """Read /proc/net/if_inet6: address, index, prefix length, scope, flags, name."""
    found: dict[str, tuple[str, ...]] = {}
    try:
        lines = table.read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        address, _, length, _, _, name = line.split()
        text = f"{ipaddress.IPv6Address(bytes.fromhex(address))}/{int(length, 16)}"
        found[name] = (*found.get(name, ()), text)
    return found
