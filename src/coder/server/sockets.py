"""The open call sockets, so that they can be ended from elsewhere: a deleted workspace, a logout, the server's stop."""

import asyncio
from collections import defaultdict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress

from coder.errors import Closed

STOPPED = "server stops"


class Sockets:
    """Scopes of running connections, found by what they belong to: agent, user, session."""

    def __init__(self) -> None:
        self._scopes: dict[Hashable, set[asyncio.Task[object]]] = defaultdict(set)
        self._reasons: dict[asyncio.Task[object], str] = {}
        self._stopped = False

    @contextmanager
    def belonging_to(self, *owners: Hashable) -> Iterator[None]:
        """Register the running task until the block ends. Ending it makes the block end quietly at its next wait.

        Raises Closed when the server is stopping.
        """
        if self._stopped:
            raise Closed("The server is stopping.")
        task = asyncio.current_task()
        assert task is not None
        for owner in owners:
            self._scopes[owner].add(task)
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._reasons or task.uncancel() > 0:
                raise
        finally:
            self._reasons.pop(task, None)
            for owner in owners:
                self._scopes[owner].discard(task)
                if not self._scopes[owner]:
                    del self._scopes[owner]

    def end(self, owner: Hashable, reason: str) -> int:
        """End all connections that belong to `owner`. Returns how many."""
        tasks = [task for task in self._scopes.get(owner, ()) if task not in self._reasons]
        for task in tasks:
            self._reasons[task] = reason
            task.cancel(reason)
        return len(tasks)

    async def stop(self, grace: float) -> None:
        """End all connections, refuse new ones, and wait at most `grace` seconds for their goodbyes."""
        self._stopped = True
        tasks = set().union(*self._scopes.values())
        for owner in list(self._scopes):
            self.end(owner, STOPPED)
        if tasks:
            with suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await asyncio.wait(tasks)

    def count(self, owner: Hashable) -> int:
        """Return how many connections belong to `owner`."""
        return len(self._scopes.get(owner, ()))
