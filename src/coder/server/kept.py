"""A result that is expensive to find and kept for a while."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """Finds something when it is asked for, once at a time, and gives the same answer for a while."""

    def __init__(self, seconds: float = 600.0) -> None:
        self._seconds = seconds
        self._found: T | None = None
        self._at = 0.0
        self._finding = asyncio.Lock()

    async def get(self, find: Callable[[], Awaitable[T]], now: Callable[[], float], *, anew: bool = False) -> T:
        """Return what was found less than the kept time ago, or find it; `anew`, unless somebody else just did."""
        asked = now()
        async with self._finding:
            old = self._found is None or now() - self._at >= self._seconds or (anew and self._at < asked)
            if old or self._found is None:
                self._found = await find()
                self._at = now()
            return self._found
