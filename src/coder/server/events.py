"""Events for those who watch: a state now, one after each change, a ping in between so that proxies keep the line open.

They go out as server-sent events or as text messages of a WebSocket; the events are the same.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Hashable
from typing import Any

import structlog
from starlette.responses import StreamingResponse
from starlette.websockets import WebSocket

from coder.errors import Closed
from coder.server import feeds
from coder.server.deployment import Deployment
from coder.server.problems import Problem

log = structlog.get_logger(__name__)

PING_EVERY = 15.0
"""Seconds between pings."""

Event = tuple[str, Any]
"""Kind (`ping`, `data`, `error`) and data."""

_HEADERS = {"Cache-Control": "no-cache", "Connection": "keep-alive", "X-Accel-Buffering": "no"}
_PING: Event = ("ping", None)
_FAILED: Event = ("error", {"message": "The server failed at this. Connect again."})


def stream(deployment: Deployment, states: AsyncIterator[Any], *owners: Hashable) -> StreamingResponse:
    """Answer with the states as events. Ends when they do, or when the connections of one of the owners are ended."""
    texts = (_sent_event(*event) async for event in _events(deployment, states, owners))
    return StreamingResponse(texts, media_type="text/event-stream", headers=_HEADERS)


async def feed(deployment: Deployment, websocket: WebSocket, states: AsyncIterator[Any], *owners: Hashable) -> None:
    """Send the same as messages of a WebSocket."""
    await websocket.accept()
    texts = (_json({"type": kind, "data": data}) async for kind, data in _events(deployment, states, owners))
    await feeds.send(websocket, texts)


def _sent_event(kind: str, data: Any) -> str:
    return f"event: {kind}\n\n" if data is None else f"event: {kind}\ndata: {_json(data)}\n\n"


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


async def _events(
    deployment: Deployment, states: AsyncIterator[Any], owners: tuple[Hashable, ...]
) -> AsyncIterator[Event]:
    queue: asyncio.Queue[Event | None] = asyncio.Queue(maxsize=1)
    tasks = [
        asyncio.create_task(_pings(deployment, queue)),
        asyncio.create_task(_states(deployment, states, queue, owners)),
    ]
    try:
        yield _PING
        while (event := await queue.get()) is not None:
            yield event
    finally:
        for task in tasks:
            task.cancel()
        # Not `gather`: a response that is cancelled again and again would hand that on, to a question to the database
        # that is about to end.
        await asyncio.wait(tasks)


async def _pings(deployment: Deployment, queue: asyncio.Queue[Event | None]) -> None:
    while True:
        await deployment.clock.sleep(PING_EVERY)
        await queue.put(_PING)


async def _states(
    deployment: Deployment, states: AsyncIterator[Any], queue: asyncio.Queue[Event | None], owners: tuple[Hashable, ...]
) -> None:
    try:
        with deployment.sockets.belonging_to(*owners):
            async for state in states:
                await queue.put(("data", state))
    except Closed:
        pass
    except Problem as problem:
        await queue.put(("error", problem.body()))
    except Exception:  # the watcher is told, and comes back
        log.exception("watch.failed")
        await queue.put(_FAILED)
    await queue.put(None)


async def silence() -> AsyncIterator[Any]:
    """Yield no state, ever: a stream of pings only."""
    await asyncio.Event().wait()
    yield None
