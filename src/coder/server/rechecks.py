"""Looks after the sessions behind connections that stay open."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from coder.server.auth import Caller, still_valid
from coder.server.deployment import Deployment

RECHECK_EVERY = 60.0
"""Seconds between looks at whether the user of an open connection may still have it."""


@contextmanager
def rechecked(deployment: Deployment, who: Caller) -> Iterator[None]:
    """End the caller's connections when their session ends or they are suspended while the block runs."""
    watching = asyncio.create_task(_recheck(deployment, who))
    try:
        yield
    finally:
        watching.cancel()


async def _recheck(deployment: Deployment, who: Caller) -> None:
    while True:
        await deployment.clock.sleep(RECHECK_EVERY)
        if not await still_valid(deployment, who):
            deployment.sockets.end(who.key.id, "session ended")
