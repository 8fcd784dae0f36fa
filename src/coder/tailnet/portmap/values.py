"""What the parts of the machine share: what they ask their shell to do, leases, the addresses that are of use."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from coder.wire.upnp import Url

LEASE: Final = 7200
"""Seconds a mapping is asked for (RFC 6886, 3.3, recommends this)."""
SHORTEST_LEASE: Final = 120
"""A router that grants less is taken to refuse: renewing would cost more than the mapping is worth."""

_NOT_PUBLIC: Final = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.168.0.0/16",
            "224.0.0.0/3",
        ),
    )
)


def is_public(address: IPv4Address) -> bool:
    """Whether peers on the Internet can reach it: neither private nor a carrier's (RFC 6598) nor of special use."""
    return not any(address in network for network in _NOT_PUBLIC)


def is_nowhere(address: IPv4Address) -> bool:
    """Whether nobody at all can be reached there."""
    return address.is_unspecified or address.is_loopback or address.is_multicast or address.is_reserved


@dataclass(frozen=True, slots=True)
class Network:
    """Where we stand: the router of the default route, and our own address towards it."""

    gateway: IPv4Address
    local: IPv4Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A mapping as a router granted it. Times are seconds of the caller's clock."""

    address: IPv4Address
    port: int
    granted: float
    lifetime: float

    @property
    def endpoint(self) -> str:
        """`ip:port` for peers."""
        return f"{self.address}:{self.port}"

    @property
    def ends(self) -> float:
        """When the router forgets it."""
        return self.granted + self.lifetime

    @property
    def half(self) -> float:
        """When it wants to be renewed."""
        return self.granted + self.lifetime / 2


@dataclass(frozen=True, slots=True)
class ToGateway:
    """Send a datagram to the gateway's port 5351."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ToSsdp:
    """Send a datagram to port 1900: of the multicast group, or of the gateway."""

    data: bytes
    multicast: bool


@dataclass(frozen=True, slots=True)
class Http:
    """Make an HTTP request, which ends in `answered` or `failed` with its number. One at a time is under way."""

    number: int
    url: Url
    soap_action: str = ""
    """With it the request is a POST, without a GET."""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Mapped:
    """From now on these endpoints, one or none, lead to our port."""

    endpoints: tuple[str, ...]


Output = ToGateway | ToSsdp | Http | Mapped
