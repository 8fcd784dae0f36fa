"""The screen of this machine, for programs in a workspace: where its X server listens, and its cookie."""

import os
import re
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from coder.errors import CoderError

PROTOCOL = b"MIT-MAGIC-COOKIE-1"
FIRST_PORT = 6000
SOCKETS = Path("/tmp/.X11-unix")  # noqa: S108 - the place every X server uses
LARGEST = 1 << 20
"""Bytes of a file of cookies that are looked at."""
LOCAL, EVERYWHERE = 256, 65535
"""Families of addresses in such a file: this machine by its name, and any."""

_DISPLAY = re.compile(r"(?P<host>.*?):(?P<number>\d{1,5})(?:\.(?P<screen>\d{1,5}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Display:
    """A screen."""

    path: str | None
    """Its server's Unix socket …"""
    host: str
    port: int
    """… or TCP address."""
    screen: int
    cookie: bytes = field(repr=False)
    """What the server wants to see; empty where there is nothing."""


def find(environ: Mapping[str, str]) -> Display:
    """Return the screen that DISPLAY names, with the cookie from the user's file.

    Raises:
        CoderError: there is none, or the name is none.

    """
    name = environ.get("DISPLAY", "")
    if not name:
        raise CoderError("there is no screen to forward: DISPLAY is not set", remedy="Leave --forward-x11 out.")
    found = _DISPLAY.fullmatch(name)
    if found is None or int(found["number"]) > 65535 - FIRST_PORT:
        raise CoderError(f"DISPLAY is {name[:64]!r}, which names no screen")
    number, screen = int(found["number"]), int(found["screen"] or 0)
    host = found["host"].removeprefix("unix")
    cookie = _cookie(environ, number, local=host in {"", "localhost"} or host.startswith("/"))
    if host.startswith("/"):
        return Display(f"{host}:{number}", "", 0, screen, cookie)
    if not host:
        return Display(str(SOCKETS / f"X{number}"), "", 0, screen, cookie)
    return Display(None, host.strip("[]"), FIRST_PORT + number, screen, cookie)


def _cookie(environ: Mapping[str, str], number: int, *, local: bool) -> bytes:
    """Return the cookie for a display, best where its entry names this machine; empty if there is none."""
    path = Path(environ.get("XAUTHORITY") or Path.home() / ".Xauthority")
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST)
    except OSError:
        return b""
    here, best = os.fsencode(socket.gethostname()), b""
    for family, address, display, name, cookie in entries(data):
        if name != PROTOCOL or display not in {b"", str(number).encode()}:
            continue
        if family == EVERYWHERE or (local and family == LOCAL and address == here):
            return cookie
        best = best or cookie
    return best


def entries(data: bytes) -> Iterator[tuple[int, bytes, bytes, bytes, bytes]]:
    """Read a file of cookies, up to where it makes no sense: family, address, display, protocol, cookie of each."""
    at = 0
    while at + 2 <= len(data):
        (family,) = struct.unpack_from(">H", data, at)
        at += 2
        parts = []
        for _ in range(4):
            if at + 2 > len(data):
                return
            (length,) = struct.unpack_from(">H", data, at)
            part = data[at + 2 : at + 2 + length]
            if len(part) < length:
                return
            parts.append(part)
            at += 2 + length
        address, display, name, cookie = parts
        yield family, address, display, name, cookie
