"""What a session does when the machine moves to another network: whatever was begun before may wait for ever."""

import asyncio
from typing import TYPE_CHECKING, TypeVar

from coder.peering.tasks import until_one_ends
from coder.rpc.client import RpcClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from coder.clock import Clock
    from coder.peering.dialing import Dial
    from coder.rpc.channel import Channel

PATIENCE = 1.0
"""Seconds the server has to answer after a move. A connection that is slower is merely made anew."""

T = TypeVar("T")


class Moves:
    """Changes of the network, as one node tells of them, for the one session that is dialled, held or waited for."""

    def __init__(self, clock: "Clock") -> None:
        self._clock = clock
        self._moved = asyncio.Event()
        self._hurried = asyncio.Event()

    def note(self) -> None:
        """Say that the network is another one, or may be."""
        self._moved.set()

    def hurry(self) -> None:
        """Say that whatever was not there is back, likely: whoever pauses may go on."""
        self._hurried.set()

    async def dial(self, dial: "Dial", resume: str | None) -> "Channel":
        """Dial, and begin again with every move. Raises what dialling does."""
        while True:
            attempt = await self._unless_moved(dial(resume), _hang_up)
            if attempt is not None:
                return attempt

    async def pause(self, seconds: float) -> None:
        """Sleep for so long, or until the next move or `hurry`."""
        self._hurried.clear()
        await self._unless_moved(until_one_ends(self._clock.sleep(seconds), self._hurried.wait()))

    async def watch(self, rpc: RpcClient) -> None:
        """See after each move whether the session lives. Raises TimedOut once it does not."""
        self._moved.clear()
        while True:
            await self._moved.wait()
            self._moved.clear()
            await rpc.check(PATIENCE)

    async def _unless_moved(
        self, job: "Awaitable[T]", undo: "Callable[[T], Awaitable[None]] | None" = None
    ) -> T | None:
        """Return what the job does, None if there is a move first; it is cancelled then.

        `undo` gets what the job has done although nobody will have it.
        """
        wanted = False
        self._moved.clear()
        doing, moving = asyncio.ensure_future(job), asyncio.ensure_future(self._moved.wait())
        try:
            await asyncio.wait({doing, moving}, return_when=asyncio.FIRST_COMPLETED)
            wanted = doing.done()
            return doing.result() if wanted else None
        finally:
            moving.cancel()
            doing.cancel()
            [result] = await asyncio.gather(doing, return_exceptions=True)
            if not wanted and undo is not None and not isinstance(result, BaseException):
                await undo(result)


async def _hang_up(channel: "Channel") -> None:
    await channel.close()
