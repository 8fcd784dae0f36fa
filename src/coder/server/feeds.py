"""WebSockets that only tell: what their clients send is not read."""

import asyncio
from collections.abc import AsyncIterator

from starlette.websockets import WebSocket

from coder.errors import Closed
from coder.server.channel import ServerChannel


async def send(websocket: WebSocket, messages: AsyncIterator[str | bytes]) -> None:
    """Send each message of an accepted WebSocket; close it when they end. Returns when it is closed by either side."""
    tasks = [asyncio.create_task(_send(websocket, messages)), asyncio.create_task(_gone(websocket))]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await ServerChannel(websocket).close()
    for task in done:
        task.result()


async def _send(websocket: WebSocket, messages: AsyncIterator[str | bytes]) -> None:
    channel = ServerChannel(websocket)
    try:
        async for message in messages:
            await (channel.send_text(message) if isinstance(message, str) else channel.send(message))
    except Closed:
        return  # the client has gone


async def _gone(websocket: WebSocket) -> None:
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass
