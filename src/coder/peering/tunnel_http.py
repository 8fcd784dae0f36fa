"""One HTTP question over a stream of a tunnel. No redirect is followed: the answer is whose it was asked for."""

import asyncio
import socket
from typing import Final

import h11

from coder.errors import PeerMisbehaved, Unreachable

_CHUNK: Final = 64 << 10


async def exchange(stream: socket.socket, address: str, port: int, path: str, limit: int) -> tuple[int, bytes]:
    """Send a GET over a connected stream, which is closed at the end; return status and body.

    Raises PeerMisbehaved for an answer that makes no sense or has more than `limit` bytes, Unreachable when the stream
    breaks. The caller sets the deadline.
    """
    try:
        reader, writer = await asyncio.open_connection(sock=stream)
        try:
            return await _exchange(reader, writer, f"[{address}]:{port}", path, limit)
        finally:
            writer.close()
    except h11.ProtocolError as error:
        raise PeerMisbehaved("the agent's answer makes no sense") from error
    except OSError as error:
        raise Unreachable(f"the connection to the agent broke: {error}") from error


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, path: str, limit: int
) -> tuple[int, bytes]:
    machine = h11.Connection(h11.CLIENT)
    headers = [("Host", host), ("Accept", "application/json"), ("Connection", "close")]
    writer.write(machine.send(h11.Request(method="GET", target=path, headers=headers)) or b"")
    writer.write(machine.send(h11.EndOfMessage()) or b"")
    status, body = 0, bytearray()
    while True:
        event = machine.next_event()
        if event is h11.NEED_DATA:
            machine.receive_data(await reader.read(_CHUNK))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > limit:
                raise PeerMisbehaved("the agent's answer is too long")
        elif isinstance(event, h11.EndOfMessage):
            return status, bytes(body)
        elif isinstance(event, h11.ConnectionClosed):
            raise PeerMisbehaved("the agent hung up instead of answering")
