"""The open call sockets, so that they can be ended from elsewhere: a deleted workspace, a logout, the server's stop."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

from coder.errors import Closed
from coder.server.problems import too_many

STOPPED = "server stops"

FAREWELL = 1.0
"""Seconds the other end has to take what it is told before its connection ends."""

MOST_OF_USER = 256
"""Connections one user may have open when they ask for a further one that carries calls: each may hold megabytes."""
MOST_OF_AGENTS = 1024
"""… and those that all agents of one user may have."""

Farewell = Callable[[str], Awaitable[None]]
"""Tells those concerned that a connection ends for good, and why; a part that waits comes last."""


def agents_of(user: UUID) -> Hashable:
    """Return what the connections of a user's agents belong to: they outlive what the user may do, not the account."""
    return "agents of", user


class Sockets:
    """Scopes of running connections, found by what they belong to: agent, user, session."""

    def __init__(self) -> None:
        self._scopes: dict[Hashable, set[asyncio.Task[object]]] = defaultdict(set)
        self._reasons: dict[asyncio.Task[object], str] = {}
        self._farewells: dict[asyncio.Task[object], Farewell] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._stopped = False

    def require_room(self, owner: Hashable, most: int) -> None:
        """Raise Problem (429) unless `owner` has fewer connections than that."""
        if len(self._scopes.get(owner, ())) >= most:
            raise too_many(f"There are {most} connections open already; close one first.", 1.0)

    @contextmanager
    def belonging_to(self, *owners: Hashable, farewell: Farewell | None = None) -> Iterator[None]:
        """Register the running task until the block ends. Ending it makes the block end quietly at its next wait.

        The `farewell` comes before that, except when the server stops. Raises Closed when the server is stopping.
        """
        if self._stopped:
            raise Closed("The server is stopping.")
        task = asyncio.current_task()
        assert task is not None
        for owner in owners:
            self._scopes[owner].add(task)
        if farewell is not None:
            self._farewells[task] = farewell
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._reasons or task.uncancel() > 0:
                raise
        finally:
            self._reasons.pop(task, None)
            self._farewells.pop(task, None)
            for owner in owners:
                self._scopes[owner].discard(task)
                if not self._scopes[owner]:
                    del self._scopes[owner]

    def end(self, owner: Hashable, reason: str) -> int:
        """End all connections that belong to `owner`. Returns how many."""
        tasks = [task for task in self._scopes.get(owner, ()) if task not in self._reasons]
        for task in tasks:
            self._reasons[task] = reason
            farewell = self._farewells.get(task)
            if farewell is None or reason == STOPPED:
                task.cancel(reason)
            else:
                leaving = asyncio.create_task(self._dismiss(task, farewell, reason))
                self._leaving.add(leaving)
                leaving.add_done_callback(self._leaving.discard)
        return len(tasks)

    async def _dismiss(self, task: asyncio.Task[object], farewell: Farewell, reason: str) -> None:
        try:
            async with asyncio.timeout(FAREWELL):
                await farewell(reason)
        except TimeoutError:
            pass
        finally:
            if task in self._reasons:  # otherwise it has ended by itself
                task.cancel(reason)

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
