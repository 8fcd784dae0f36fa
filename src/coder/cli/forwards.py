"""What `--tcp`, `--udp` and `--reverse` ask for. Pure.

    [bind:]local[-last][:remote[-last]]

and several of these joined by commas. `bind` is an IPv4 address, or an IPv6 one in brackets.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from coder.errors import Malformed

_SPEC = re.compile(
    r"(?:(?P<bind>\[[0-9A-Fa-f:.]+\]|\d+\.\d+\.\d+\.\d+):)?"
    r"(?P<first>\d+)(?:-(?P<last>\d+))?"
    r"(?::(?P<to>\d+)(?:-(?P<to_last>\d+))?)?",
    re.ASCII,
)
_LAST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Forward:
    """One port that leads to another."""

    network: str
    """`tcp` or `udp`."""
    bind: str | None
    """The address to listen on; None: the loopback addresses."""
    local: int
    """The port to listen on …"""
    remote: int
    """… and the one it leads to, on the other machine's loopback address."""

    @property
    def here(self) -> str:
        """Name the listening end, as `host:port`."""
        return join(self.bind or "127.0.0.1", self.local)


def join(host: str, port: int) -> str:
    """Write host and port as one, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse(network: str, values: Iterable[str]) -> list[Forward]:
    """Read the values of one flag.

    Raises:
        Malformed: one is no such text, a port or address does not exist, ranges differ in length, or a listener is
            asked for twice.

    """
    made = [forward for value in values for text in value.split(",") for forward in _one(network, text.strip())]
    seen: set[tuple[str, int]] = set()
    for forward in made:
        place = (forward.bind or "127.0.0.1", forward.local)
        if place in seen:
            raise Malformed(f"local {network} host:{place[0]} port:{place[1]} is specified twice")
        seen.add(place)
    return made


def _one(network: str, text: str) -> Iterator[Forward]:
    found = _SPEC.fullmatch(text)
    if found is None:
        raise Malformed(
            f"{text[:64]!r} is no port to forward", remedy="Write 8080, 8080:80, 8000-8009:9000-9009 or [::1]:8080:80."
        )
    local = _range(text, found["first"], found["last"])
    remote = _range(text, found["to"], found["to_last"]) if found["to"] else local
    if len(local) != len(remote):
        raise Malformed(f"{text[:64]!r} has {len(local)} port(s) on one side and {len(remote)} on the other")
    bind = _address(text, found["bind"])
    return (Forward(network, bind, here, there) for here, there in zip(local, remote, strict=True))


def _range(text: str, first: str, last: str | None) -> range:
    # Digits are counted before they are read: an int of a million digits takes minutes.
    if any(len(port) > 5 or not 1 <= int(port) <= _LAST_PORT for port in (first, last) if port is not None):
        raise Malformed(f"{text[:64]!r} has a port outside of 1 to {_LAST_PORT}")
    ports = range(int(first), int(last or first) + 1)
    if not ports:
        raise Malformed(f"{text[:64]!r} has a range that ends before it begins")
    return ports


def _address(text: str, bind: str | None) -> str | None:
    if bind is None:
        return None
    try:
        return str(IPv6Address(bind[1:-1]) if bind.startswith("[") else IPv4Address(bind))
    except ValueError:
        raise Malformed(f"{text[:64]!r} has an address that is none") from None
