"""Server-sent events: a state now, one after each change, a ping in between so that proxies keep the line open."""

import asyncio
import json
from collections.abc import AsyncIterator, Hashable
from typing import Any

from starlette.responses import StreamingResponse

from coder.errors import Closed
from coder.server.deployment import Deployment

PING_EVERY = 15.0
"""Seconds between pings."""

_HEADERS = {"Cache-Control": "no-cache", "Connection": "keep-alive", "X-Accel-Buffering": "no"}
_PING = "event: ping\n\n"


def stream(deployment: Deployment, states: AsyncIterator[Any], *owners: Hashable) -> StreamingResponse:
    """Answer with the states as events. Ends when they do, or when the connections of one of the owners are ended."""
    return StreamingResponse(_events(deployment, states, owners), media_type="text/event-stream", headers=_HEADERS)


async def _events(
    deployment: Deployment, states: AsyncIterator[Any], owners: tuple[Hashable, ...]
) -> AsyncIterator[str]:
    queue: asyncio.Queue[str | None] = asyncio.Queue(maxsize=1)
    tasks = [
        asyncio.create_task(_pings(deployment, queue)),
        asyncio.create_task(_states(deployment, states, queue, owners)),
    ]
    try:
        yield _PING
        while (text := await queue.get()) is not None:
            yield text
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pings(deployment: Deployment, queue: asyncio.Queue[str | None]) -> None:
    while True:
        await deployment.clock.sleep(PING_EVERY)
        await queue.put(_PING)


async def _states(
    deployment: Deployment, states: AsyncIterator[Any], queue: asyncio.Queue[str | None], owners: tuple[Hashable, ...]
) -> None:
    try:
        with deployment.sockets.belonging_to(*owners):
            async for state in states:
                await queue.put(f"event: data\ndata: {json.dumps(state, separators=(',', ':'))}\n\n")
    except Closed:
        pass
    await queue.put(None)


async def silence() -> AsyncIterator[Any]:
    """Yield no state, ever: a stream of pings only."""
    await asyncio.Event().wait()
    yield None
