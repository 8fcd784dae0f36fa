"""Where the default route leads, and when that changes. Linux only; elsewhere there is none and it never does."""

import contextlib
import socket
from ipaddress import IPv4Address
from pathlib import Path

from coder.tailnet.portmap.values import Network

_UP, _GATEWAY = 0x1, 0x2  # route flags of <linux/route.h>
_ANY_PORT = 9  # connecting a UDP socket sends nothing, whatever the port
_NETLINK_ROUTE = 0
_GROUPS = 0x1 | 0x10 | 0x40  # rtnetlink(7): links, IPv4 addresses, IPv4 routes


def default_network(root: Path = Path("/")) -> Network | None:
    """Return the router of the default route with the least metric, and our address towards it; None: no such route."""
    try:
        lines = (root / "proc/net/route").read_text().splitlines()[1:]
    except OSError:
        return None
    found = [route for route in map(_default_route, lines) if route is not None]
    if not found:
        return None
    _, interface, gateway = min(found, key=lambda route: route[:2])
    local = _local_address(interface, gateway)
    return Network(gateway, local) if local is not None else None


def _default_route(line: str) -> tuple[int, str, IPv4Address] | None:
    """Read a line of /proc/net/route (proc_net_route(5)): metric, interface and gateway, if it is a default route."""
    try:
        interface, destination, gateway, flags, _, _, metric, mask, *_ = line.split()
        if int(destination, 16) or int(mask, 16) or int(flags, 16) & (_UP | _GATEWAY) != _UP | _GATEWAY:
            return None
        return int(metric), interface, IPv4Address(int(gateway, 16).to_bytes(4, "little"))
    except ValueError:
        return None


def _local_address(interface: str, gateway: IPv4Address) -> IPv4Address | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        with contextlib.suppress(OSError):  # needs a privilege on old kernels, and matters with two LANs alike only
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        try:
            probe.connect((str(gateway), _ANY_PORT))
        except OSError:
            return None
        return IPv4Address(probe.getsockname()[0])


def route_changes() -> socket.socket | None:
    """Return a socket that becomes readable when links, addresses or routes change."""
    if not hasattr(socket, "AF_NETLINK"):
        return None
    try:
        watch = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_ROUTE)
    except OSError:
        return None  # sandboxes forbid it
    try:
        watch.bind((0, _GROUPS))
    except OSError:
        watch.close()
        return None
    return watch
