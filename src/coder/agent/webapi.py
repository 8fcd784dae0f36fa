"""The agent's small HTTP API, on port 4 of its tunnel addresses: plain HTTP/1.1, answers in JSON.

`h11` keeps the protocol's rules. Import this module with the first connection, which on most agents never comes.
"""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import h11

LIMIT = 20.0
"""Seconds a client may take for a request, and we for writing the answer."""

MAX_REQUEST = 64 << 10
"""Bytes of a request's head and body; more is refused."""

Route = Callable[[], Awaitable[Any]]
"""Makes the JSON value of an answer."""


async def serve(connection: socket.socket, routes: Mapping[str, Route]) -> None:
    """Answer the requests of one connection until either end is done. Never raises for what a client does."""
    reader, writer = await asyncio.open_connection(sock=connection)
    machine = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST)
    try:
        while await _one(machine, reader, writer, routes):
            machine.start_next_cycle()
    except (TimeoutError, OSError):
        pass  # a slow or vanished client gets no answer
    finally:
        writer.close()


async def _one(
    machine: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, routes: Mapping[str, Route]
) -> bool:
    """Answer one request; return whether another may follow."""
    try:
        async with asyncio.timeout(LIMIT):
            request = await _read(machine, reader)
    except h11.RemoteProtocolError as error:
        if machine.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            await _answer(machine, writer, error.error_status_hint, {"message": "This is no request I understand."})
        return False
    if request is None:
        return False
    path = request.target.decode("ascii", "replace").partition("?")[0]
    route = routes.get(path)
    if route is None:
        await _answer(machine, writer, 404, {"message": "Route not found."}, head=request.method == b"HEAD")
    elif request.method not in {b"GET", b"HEAD"}:
        await _answer(machine, writer, 405, {"message": "Only GET is allowed here."})
    else:
        await _answer(machine, writer, 200, await route(), head=request.method == b"HEAD")
    return machine.our_state is h11.DONE and machine.their_state is h11.DONE


async def _read(machine: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """Read a whole request, its body for nothing; None at the end of the connection."""
    request: h11.Request | None = None
    size = 0
    while True:
        event = machine.next_event()
        if event is h11.NEED_DATA:
            machine.receive_data(await reader.read(MAX_REQUEST))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            size += len(event.data)
            if size > MAX_REQUEST:
                raise h11.RemoteProtocolError("request too large", error_status_hint=413)
        elif isinstance(event, h11.EndOfMessage):
            return request
        else:  # ConnectionClosed, or PAUSED: nothing more to read
            return None


async def _answer(
    machine: h11.Connection, writer: asyncio.StreamWriter, status: int, value: Any, *, head: bool = False
) -> None:
    body = json.dumps(value).encode() + b"\n"
    headers = [("Content-Type", "application/json; charset=utf-8"), ("Content-Length", str(len(body)))]
    parts = [machine.send(h11.Response(status_code=status, headers=headers))]
    if not head:
        parts.append(machine.send(h11.Data(data=body)))
    parts.append(machine.send(h11.EndOfMessage()))
    writer.write(b"".join(part for part in parts if part))
    async with asyncio.timeout(LIMIT):
        await writer.drain()
