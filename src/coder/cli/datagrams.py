"""UDP ports whose datagrams end in a workspace. Python opens and shows; each datagram is carried in Rust."""

import asyncio
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

from coder.cli.forwarding import Figures, Way, bind
from coder.cli.forwards import Forward
from coder.errors import Closed, CoderError

if TYPE_CHECKING:
    from collections.abc import Callable

    from coder.dataplane.values import DatagramStats

RETRY = 1.0
"""Seconds until a socket is handed over again when that went wrong."""


class DatagramListener:
    """One forwarded UDP port, and what came through it: each local address that sends counts as a connection."""

    def __init__(
        self, forward: Forward, way: Way, on_failure: "Callable[[DatagramListener, CoderError], None]"
    ) -> None:
        self.forward = forward
        self._way = way
        self._on_failure = on_failure
        self._sockets: list[socket.socket] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._counters: dict[socket.socket, Callable[[], DatagramStats | None]] = {}
        self._seen: dict[socket.socket, Figures] = {}
        self._past = Figures()

    def bind(self) -> None:
        """Take the port: the address asked for, or both loopback addresses, of which IPv6 may be missing.

        Raises:
            CoderError: the system does not give it.

        """
        self._sockets = bind(self.forward, socket.SOCK_DGRAM)

    def start(self) -> None:
        """Carry what comes, and what has come already."""
        self._tasks = [asyncio.ensure_future(self._carry(local)) for local in self._sockets]

    def figures(self) -> Figures:
        """Return the counters: local addresses that sent something lately and so far, datagrams lost, and bytes."""
        for local, counters in self._counters.items():
            if (counts := counters()) is not None:
                self._seen[local] = Figures(counts.open, counts.opened, counts.lost, counts.sent, counts.received)
        total = self._past
        for figures in self._seen.values():
            total = total.plus(figures)
        return total

    async def close(self) -> None:
        """Give the port back."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for local in self._sockets:
            local.close()

    async def _carry(self, local: socket.socket) -> None:
        """Hand the socket to the node there is, and to the next when that one is gone; for ever."""

        def started(counters: "Callable[[], DatagramStats | None]") -> None:
            self._counters[local] = counters

        while True:
            node, address = await self._way()
            try:
                # Ours stays: the port is kept while there is no node.
                await node.forward_datagrams(local.dup(), address, self.forward.remote, started)
            except Closed:
                continue  # there will be another node
            except CoderError as error:
                self._on_failure(self, error)
                await asyncio.sleep(RETRY)
            finally:
                self._counters.pop(local, None)
                seen = self._seen.pop(local, Figures())
                self._past = self._past.plus(replace(seen, open=0))
