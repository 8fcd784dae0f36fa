"""One question to the agent's HTTP API, on port 4 at the other end of the tunnel."""

import asyncio
import json
from typing import TYPE_CHECKING, Any

import h11

from coder.errors import PeerMisbehaved, PeerUnsupported, TimedOut, Unreachable

if TYPE_CHECKING:
    from coder.dataplane.engine import Node

PORT = 4

MAX_ANSWER = 1 << 20
"""Bytes of an answer we are willing to hold."""

_CHUNK = 64 << 10


async def get(node: "Node", address: str, path: str, patience: float) -> Any:
    """Return the JSON value the agent answers with.

    Raises PeerUnsupported when the agent does not know the path, TimedOut after `patience` seconds, Unreachable when it
    serves no such API, and PeerMisbehaved for an answer that makes no sense.
    """
    try:
        async with asyncio.timeout(patience):
            stream = await node.connect(address, PORT)
            reader, writer = await asyncio.open_connection(sock=stream)
            try:
                status, body = await _exchange(reader, writer, address, path)
            finally:
                writer.close()
    except TimeoutError:
        raise TimedOut("the agent did not answer in time") from None
    except h11.RemoteProtocolError as error:
        raise PeerMisbehaved("the agent's answer makes no sense") from error
    except OSError as error:
        raise Unreachable(f"the connection to the agent broke: {error}") from error
    if status == 404:
        raise PeerUnsupported("the agent does not know this question", remedy="Update the agent.")
    if status != 200:
        raise PeerMisbehaved(f"the agent answered with status {status}")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise PeerMisbehaved("the agent's answer makes no sense") from None


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str, path: str
) -> tuple[int, bytes]:
    machine = h11.Connection(h11.CLIENT)
    headers = [("Host", f"[{address}]:{PORT}"), ("Accept", "application/json"), ("Connection", "close")]
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
            if len(body) > MAX_ANSWER:
                raise PeerMisbehaved("the agent's answer is too long")
        elif isinstance(event, h11.EndOfMessage):
            return status, bytes(body)
        elif isinstance(event, h11.ConnectionClosed):
            raise PeerMisbehaved("the agent hung up instead of answering")
