"""Addresses at which clouds answer with the secrets of the machine that asks."""

import http.client
import socket
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from coder.errors import Unreachable


def refuse_link_local(url: str, connection: http.client.HTTPConnection, *, proxied: bool) -> None:
    """Connect, and see where that led: a name may have meant another address a moment ago.

    Behind a proxy only an address in the URL itself can be judged, in whatever way it is written.
    """
    if proxied:
        try:
            numeric = socket.getaddrinfo(urlsplit(url).hostname, None, flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            return  # a name
        addresses = [str(each[4][0]) for each in numeric]
    else:
        connection.connect()
        addresses = [str(connection.sock.getpeername()[0])]
    if any(map(is_metadata, addresses)):
        raise Unreachable(f"cannot fetch {url}: it is at a link-local address", remedy="Check the address.")


def is_metadata(address: str) -> bool:
    """Whether a cloud's metadata may be at this address: link-local ones, and the two that are not."""
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address):
        found = found.ipv4_mapped or found.sixtofour or found
    return found.is_link_local or str(found) in {"fd00:ec2::254", "100.100.100.200"}
