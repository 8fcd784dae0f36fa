"""HTTP to a router, which may be hostile: one request a connection, no redirects, everything bounded."""

import asyncio
from typing import Final

import h11

from coder.errors import PeerMisbehaved, TimedOut, Unreachable
from coder.tailnet.portmap.values import Http
from coder.wire.boundedxml import MAX_SIZE

PATIENCE: Final = 4.0
"""Seconds for a whole exchange."""

_MAX_HEAD: Final = 16 << 10
_PIECE: Final = 16 << 10
_ANSWERS: Final = frozenset({200, 500})  # SOAP tells its faults with 500


async def exchange(request: Http, local: str) -> bytes:
    """Make a request from our address `local` and return the answer's body.

    Raises:
        Unreachable: no connection, or it broke.
        TimedOut: the router took too long.
        PeerMisbehaved: what came is no answer, too large an answer, or one with another status than 200 and 500.

    """
    try:
        async with asyncio.timeout(PATIENCE):
            return await _exchange(request, local)
    except TimeoutError:
        raise TimedOut("it took too long to answer") from None
    except OSError:
        raise Unreachable("it accepts no connection") from None
    except h11.RemoteProtocolError:
        raise PeerMisbehaved("it answered something else than HTTP") from None


async def _exchange(request: Http, local: str) -> bytes:
    url = request.url
    reader, writer = await asyncio.open_connection(str(url.host), url.port, local_addr=(local, 0), limit=_PIECE)
    try:
        machine = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
        writer.write(_written(machine, request))
        await writer.drain()
        return await _read(machine, reader)
    finally:
        writer.transport.abort()  # all that matters has been read


def _written(machine: h11.Connection, request: Http) -> bytes:
    headers = [("Host", f"{request.url.host}:{request.url.port}"), ("Connection", "close")]
    if request.soap_action:
        headers += [
            ("Content-Type", 'text/xml; charset="utf-8"'),
            ("SOAPAction", request.soap_action),
            ("Content-Length", str(len(request.body))),
        ]
    method = "POST" if request.soap_action else "GET"
    head = machine.send(h11.Request(method=method, target=request.url.path, headers=headers))
    body = machine.send(h11.Data(data=request.body)) if request.body else b""
    return (head or b"") + (body or b"") + (machine.send(h11.EndOfMessage()) or b"")


async def _read(machine: h11.Connection, reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while True:
        event = machine.next_event()
        match event:
            case h11.NEED_DATA:
                machine.receive_data(await reader.read(_PIECE))
            case h11.Response() if event.status_code not in _ANSWERS:
                raise PeerMisbehaved(f"it answered with the HTTP status {event.status_code}")
            case h11.Data():
                body += event.data
                if len(body) > MAX_SIZE:
                    raise PeerMisbehaved("its answer is too large")
            case h11.EndOfMessage():
                return bytes(body)
            case h11.PAUSED | h11.ConnectionClosed():
                raise PeerMisbehaved("it ended the connection")
            case _:
                pass  # informational responses, and the head of the answer
