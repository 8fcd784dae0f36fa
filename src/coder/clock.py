"""Time as a thing that is handed over, so that tests own it.

Cores take `now` as an argument and never see a clock. Shells take a `Clock`.
"""

import asyncio
import heapq
import itertools
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """What a shell may know about time."""

    def monotonic(self) -> float:
        """Seconds since some fixed point; never goes back."""
        ...

    def now(self) -> datetime:
        """Tell the calendar's time, in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after that many seconds, at once (after a turn of the loop) when not positive."""
        ...


class SystemClock:
    """The machine's clock."""

    def monotonic(self) -> float:
        """Seconds of the monotonic clock."""
        return time.monotonic()

    def now(self) -> datetime:
        """Tell the current time in UTC."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Sleep in the running event loop."""
        await asyncio.sleep(max(seconds, 0.0))


class FakeClock:
    """A clock that stands still until `advance` moves it."""

    _TURNS = 40  # turns of the loop after each wake-up: enough for what a woken task sets off to settle

    def __init__(self, start: datetime = datetime(2030, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def monotonic(self) -> float:
        """Seconds advanced so far."""
        return self._elapsed

    def now(self) -> datetime:
        """Tell the start plus what was advanced."""
        return self._start + timedelta(seconds=self._elapsed)

    async def sleep(self, seconds: float) -> None:
        """Wait until `advance` has passed that much time."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._order), future))
        await future

    async def advance(self, seconds: float) -> None:
        """Move time on and wakes every sleeper at its own moment, in order, letting tasks run in between."""
        until = self._elapsed + seconds
        await self._settle()
        while self._sleepers and self._sleepers[0][0] <= until:
            self._elapsed, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)
                await self._settle()
        self._elapsed = until
        await self._settle()

    async def _settle(self) -> None:
        for _ in range(self._TURNS):
            await asyncio.sleep(0)
