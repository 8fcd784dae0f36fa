"""Listeners whose connections end in a workspace. Python accepts and counts; the bytes are joined in Rust."""

import asyncio
import contextlib
import errno
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from coder.cli.forwards import Forward, join
from coder.errors import CoderError, NotFound, TimedOut, Unreachable

if TYPE_CHECKING:
    from coder.dataplane.engine import Node

BACKLOG = 1024
PATIENCE = 60.0
"""Seconds a new connection waits for the tunnel."""
NO_DESCRIPTORS = 1.0
"""Seconds until the next try when this process may not open more."""

_LINGER = struct.pack("ii", 1, 0)
_COUNTERS = slice(120, 136)
"""Where Linux's `struct tcp_info` has the bytes acknowledged and received, 64 bits each."""


class Way(Protocol):
    """How to reach the workspace at the moment."""

    async def __call__(self) -> "tuple[Node, str]":
        """Return the node and the workspace's address, waiting for them."""
        ...


@dataclass(frozen=True, slots=True)
class Figures:
    """What came through a forwarded port."""

    open: int = 0
    """Connections that are open now …"""
    opened: int = 0
    """… and all there were."""
    failed: int = 0
    """Those that did not reach the service; for UDP, datagrams that could not be sent on."""
    sent: int = 0
    """Bytes to the workspace …"""
    received: int = 0
    """… and from it."""

    def plus(self, other: "Figures") -> "Figures":
        """Return the sums."""
        return Figures(
            self.open + other.open,
            self.opened + other.opened,
            self.failed + other.failed,
            self.sent + other.sent,
            self.received + other.received,
        )


class Listener:
    """One forwarded TCP port, and what came through it."""

    def __init__(self, forward: Forward, way: Way, on_failure: "Callable[[Listener, CoderError], None]") -> None:
        self.forward = forward
        self.opened = 0
        """Connections so far …"""
        self.failed = 0
        """… and those of them that did not reach the service."""
        self._way = way
        self._on_failure = on_failure
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[socket.socket] = set()
        self._moved = (0, 0)

    def bind(self) -> None:
        """Take the port: the address asked for, or both loopback addresses, of which IPv6 may be missing.

        Raises:
            CoderError: the system does not give it.

        """
        self._sockets = bind(self.forward, socket.SOCK_STREAM)

    def start(self) -> None:
        """Serve whoever connects, and who has already."""
        for listening in self._sockets:
            self._spawn(self._accept(listening))

    @property
    def open(self) -> int:
        """Connections that are open now."""
        return len(self._open)

    @property
    def moved(self) -> tuple[int, int]:
        """Bytes to the workspace, and from it."""
        up, down = self._moved
        for local in self._open:
            more = _counters(local)
            up, down = up + more[0], down + more[1]
        return up, down

    def figures(self) -> Figures:
        """Return the counters."""
        return Figures(self.open, self.opened, self.failed, *self.moved)

    async def close(self) -> None:
        """Stop listening and reset what is open."""
        for listening in self._sockets:
            listening.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                local, _ = await loop.sock_accept(listening)
            except OSError as error:
                if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                    await asyncio.sleep(NO_DESCRIPTORS)
                elif listening.fileno() < 0:
                    return
                continue
            self._spawn(self._carry(local))

    async def _carry(self, local: socket.socket) -> None:
        """Join one connection to the workspace's service until it ends."""
        self.opened += 1
        self._open.add(local)
        try:
            with contextlib.suppress(OSError):
                local.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(PATIENCE):
                node, address = await self._way()
            # Ours stays: it counts, and it can still reset what Rust has closed.
            await node.splice(local.dup(), address, self.forward.remote)
        except TimeoutError:
            self._failed(local, TimedOut("there is no connection to the workspace"))
        except CoderError as error:
            self._failed(local, error)
        except asyncio.CancelledError:
            _reset_on_close(local)
            raise
        finally:
            up, down = _counters(local)
            self._moved = (self._moved[0] + up, self._moved[1] + down)
            self._open.discard(local)
            local.close()

    def _failed(self, local: socket.socket, error: CoderError) -> None:
        """Reset a connection; say why if it never began: what breaks later, its own two ends know."""
        _reset_on_close(local)
        if isinstance(error, TimedOut | NotFound | Unreachable) and _counters(local)[1] == 0:
            self.failed += 1
            self._on_failure(self, error)


def _reset_on_close(local: socket.socket) -> None:
    with contextlib.suppress(OSError):
        local.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)


def bind(forward: Forward, kind: socket.SocketKind) -> list[socket.socket]:
    """Take the address asked for, or both loopback addresses, of which IPv6 may be missing.

    Raises:
        CoderError: the system does not give it.

    """
    taken = [_bound(forward.bind or "127.0.0.1", forward.local, kind)]
    if forward.bind is None:
        with contextlib.suppress(CoderError):
            taken.append(_bound("::1", forward.local, kind))
    return taken


def _bound(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        made = socket.socket(family, kind)
    except OSError as error:
        raise CoderError(f"cannot listen on {join(host, port)}: {error.strerror}") from None
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            # Of UDP sockets this would let two share a port.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        if kind == socket.SOCK_STREAM:
            made.listen(BACKLOG)
        made.setblocking(False)
    except OSError as error:
        made.close()
        raise CoderError(
            f"cannot listen on {join(host, port)}: {error.strerror}", remedy=_remedy(error, port)
        ) from None
    return made


def _remedy(error: OSError, port: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"Choose another local port, such as {port % 10000 + 10000}:{port}."
        case errno.EACCES:
            return f"Ports below 1024 are for administrators: choose another, such as {port % 10000 + 10000}:{port}."
        case errno.EADDRNOTAVAIL:
            return "Choose an address that this machine has."
        case _:
            return ""


def _counters(local: socket.socket) -> tuple[int, int]:
    """Return the bytes a connection's client has sent, and those it has got; zeros where the system does not count."""
    if sys.platform != "linux":
        return 0, 0
    try:
        told = local.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _COUNTERS.stop)
    except OSError:
        return 0, 0
    if len(told) < _COUNTERS.stop:
        return 0, 0
    acknowledged, received = struct.unpack("=QQ", told[_COUNTERS])
    return received, acknowledged
