"""Who wants to hear of a change: watchers of workspaces and of the DERP map."""

import asyncio
from collections import defaultdict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from coder.clock import Clock


class Changes:
    """Tells watchers of a subject that it changed. What happens while a watcher is busy counts as one change."""

    def __init__(self) -> None:
        self._watchers: dict[Hashable, set[asyncio.Event]] = defaultdict(set)

    def announce(self, subject: Hashable) -> None:
        """Wake everyone who watches the subject."""
        for event in self._watchers.get(subject, ()):
            event.set()

    @contextmanager
    def watch(self, subject: Hashable) -> Iterator[asyncio.Event]:
        """Yield an event that is set by each change. The watcher clears it."""
        event = asyncio.Event()
        self._watchers[subject].add(event)
        try:
            yield event
        finally:
            self._watchers[subject].discard(event)
            if not self._watchers[subject]:
                del self._watchers[subject]


async def wait(event: asyncio.Event, clock: Clock, seconds: float) -> bool:
    """Wait for a change, at most that long; clear it and say whether there was one."""
    waiting = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(clock.sleep(seconds))]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    changed = event.is_set()
    event.clear()
    return changed
