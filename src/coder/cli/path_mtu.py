"""What routers said about the size of packets on the way to a peer: the kernel remembers it for each destination."""

import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING

from coder.tailnet.sides import is_local, parse_endpoint

if TYPE_CHECKING:
    from coder.tailnet.peers import PeerConfig

IP_MTU, IPV6_MTU = 14, 24  # linux/in.h and in6.h; the standard library does not name them


def least(peers: Iterable["PeerConfig"]) -> int:
    """Return the smallest size known for the peers' public addresses; 0 when there is none. Linux only."""
    return min((size for peer in peers for text in peer.endpoints if (size := _to(text))), default=0)


def _to(text: str) -> int:
    endpoint = parse_endpoint(text)
    if endpoint is None or is_local(endpoint):
        return 0
    six = endpoint.version == 6
    try:
        with socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((str(endpoint), 9))  # sends nothing: it only asks the kernel for the way
            level, name = (socket.IPPROTO_IPV6, IPV6_MTU) if six else (socket.IPPROTO_IP, IP_MTU)
            return probe.getsockopt(level, name)
    except OSError:
        return 0
