"""SSDP, the discovery of the UPnP Device Architecture (1.1, section 1.3): a search, and the answer to it.

Both are the head of an HTTP message in one datagram.
"""

from dataclasses import dataclass
from typing import Final

from coder.errors import Malformed

GROUP: Final = "239.255.255.250"
PORT: Final = 1900
MAX_SIZE: Final = 4096
"""Bytes of the largest datagram that is read."""

_SEARCH: Final = "M-SEARCH * HTTP/1.1"
_MAX_LINES: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A question for devices. It has `wait` when it is multicast: answers then come spread over that many seconds."""

    target: str
    """A device or service type, a UUID, `ssdp:all` or `upnp:rootdevice`."""
    host: str = f"{GROUP}:{PORT}"
    """Where it is sent."""
    wait: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A device that answers."""

    target: str
    """What it matches: its own type, perhaps newer than the one that was asked for."""
    usn: str
    """Which device, and as what."""
    location: str
    """URL of its description: a claim."""
    server: str = ""
    """System and product, for people."""


def encode_search(search: Search) -> bytes:
    """Write a search. Raises Malformed when a field holds a line break."""
    lines = [_SEARCH, f"HOST: {search.host}", 'MAN: "ssdp:discover"']
    if search.wait is not None:
        lines.append(f"MX: {search.wait}")
    return _encode([*lines, f"ST: {search.target}"])


def decode_search(datagram: bytes) -> Search:
    """Read a search, as a device does. Raises Malformed."""
    first, fields = _decode(datagram)
    if first != _SEARCH or fields.get("man") != '"ssdp:discover"':
        raise Malformed("not an SSDP search")
    wait = fields.get("mx", "")
    if wait and not (wait.isascii() and wait.isdigit() and len(wait) <= 5):
        raise Malformed("MX is no number")
    return Search(target=_field(fields, "st"), host=_field(fields, "host"), wait=int(wait) if wait else None)


def encode_found(found: Found) -> bytes:
    """Write an answer, as a device does. Raises Malformed when a field holds a line break."""
    return _encode(
        [
            "HTTP/1.1 200 OK",
            "CACHE-CONTROL: max-age=120",
            "EXT:",
            f"ST: {found.target}",
            f"USN: {found.usn}",
            f"LOCATION: {found.location}",
            f"SERVER: {found.server}",
        ]
    )


def decode_found(datagram: bytes) -> Found:
    """Read an answer. Raises Malformed."""
    first, fields = _decode(datagram)
    version, _, status = first.partition(" ")
    if not version.startswith("HTTP/1.") or status.split(" ", 1)[0] != "200":
        raise Malformed("not an answer to an SSDP search")
    return Found(
        target=_field(fields, "st"),
        usn=_field(fields, "usn"),
        location=_field(fields, "location"),
        server=fields.get("server", ""),
    )


def _encode(lines: list[str]) -> bytes:
    if any("\r" in line or "\n" in line for line in lines):
        raise Malformed("a field of an SSDP message holds a line break")
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def _decode(datagram: bytes) -> tuple[str, dict[str, str]]:
    """Split the head; names in lower case. It must be whole, up to its empty line."""
    if len(datagram) > MAX_SIZE:
        raise Malformed("an SSDP message is too long")
    head, end, _ = datagram.partition(b"\r\n\r\n")
    lines = head.decode("utf-8", "replace").split("\r\n")
    if not end or len(lines) > _MAX_LINES:
        raise Malformed("not the head of an HTTP message")
    fields: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            raise Malformed("a field of an SSDP message has no colon")
        fields.setdefault(name.strip().lower(), value.strip())
    return lines[0].strip(), fields


def _field(fields: dict[str, str], name: str) -> str:
    if not fields.get(name):
        raise Malformed(f"an SSDP message lacks {name.upper()}")
    return fields[name]
