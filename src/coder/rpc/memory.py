"""A channel between two parts of one process."""

import asyncio
from typing import Final

from coder.errors import Closed

_PIECES: Final = 64  # that wait for the other end, which then makes the sender wait


class MemoryChannel:
    """One end of a pair: what one sends the other receives."""

    def __init__(self, inbox: asyncio.Queue[bytes | None], outbox: asyncio.Queue[bytes | None]) -> None:
        self._inbox = inbox
        self._outbox = outbox
        self._closed = asyncio.Event()
        self._other: MemoryChannel

    async def recv(self) -> bytes | None:
        """See `Channel.recv`."""
        if self._inbox.empty() and (self._closed.is_set() or self._other._closed.is_set()):  # noqa: SLF001 - its twin
            return None
        return await self._inbox.get()

    async def send(self, data: bytes) -> None:
        """See `Channel.send`."""
        if self._closed.is_set() or self._other._closed.is_set():  # noqa: SLF001
            raise Closed("the channel has ended")
        await self._outbox.put(data)

    async def close(self) -> None:
        """See `Channel.close`. Both ends stop waiting; what was not received is lost."""
        if self._closed.is_set():
            return
        self._closed.set()
        for queue in (self._inbox, self._outbox):
            while not queue.empty():
                queue.get_nowait()
            queue.put_nowait(None)


def pair() -> tuple[MemoryChannel, MemoryChannel]:
    """Make both ends."""
    one: asyncio.Queue[bytes | None] = asyncio.Queue(_PIECES)
    two: asyncio.Queue[bytes | None] = asyncio.Queue(_PIECES)
    left, right = MemoryChannel(one, two), MemoryChannel(two, one)
    left._other, right._other = right, left  # noqa: SLF001 - they are made together
    return left, right
