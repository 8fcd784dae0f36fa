"""One question to the agent's HTTP API, on port 4 at the other end of the tunnel."""

import asyncio
import json
from typing import TYPE_CHECKING, Any

from coder.errors import PeerMisbehaved, PeerUnsupported, TimedOut
from coder.peering.tunnel_http import exchange

if TYPE_CHECKING:
    from coder.dataplane.engine import Node

PORT = 4

MAX_ANSWER = 1 << 20
"""Bytes of an answer we are willing to hold."""


async def get(node: "Node", address: str, path: str, patience: float) -> Any:
    """Return the JSON value the agent answers with.

    Raises PeerUnsupported when the agent does not know the path, TimedOut after `patience` seconds, Unreachable when it
    serves no such API, and PeerMisbehaved for an answer that makes no sense.
    """
    try:
        async with asyncio.timeout(patience):
            stream = await node.connect(address, PORT)
            status, body = await exchange(stream, address, PORT, path, MAX_ANSWER)
    except TimeoutError:
        raise TimedOut("the agent did not answer in time") from None
    if status == 404:
        raise PeerUnsupported("the agent does not know this question", remedy="Update the agent.")
    if status != 200:
        raise PeerMisbehaved(f"the agent answered with status {status}")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise PeerMisbehaved("the agent's answer makes no sense") from None
