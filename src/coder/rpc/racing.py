"""Connecting to a host that has several addresses, of which some lead nowhere (RFC 8305), without blocking.

The standard library's own race (Python 3.11) loses the winner's socket when it is cancelled between two steps.
"""

import asyncio
import itertools
import socket
from typing import Any

STAGGER = 0.15
"""Seconds an address has to itself before the next one is tried beside it."""


async def connect(host: str, port: int) -> socket.socket:
    """Connect by TCP to whichever address answers first; families alternate, in the resolver's order.

    Raises OSError: the first attempt's.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    families = ([one for one in found if (one[0] == found[0][0]) == preferred] for preferred in (True, False))
    waiting = [one for pair in itertools.zip_longest(*families) for one in pair if one is not None]
    running: set[asyncio.Task[socket.socket]] = set()
    failures: list[BaseException] = []
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.ensure_future(_attempt(waiting.pop(0))))
            patience = STAGGER if waiting else None
            done, _ = await asyncio.wait(running, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                running.discard(attempt)
                if (error := attempt.exception()) is None:
                    running |= done - {attempt}
                    return attempt.result()
                failures.append(error)
        raise failures[0]
    finally:
        for attempt in running:
            attempt.cancel()
            attempt.add_done_callback(_discard)


async def _attempt(info: tuple[int, int, int, str, Any]) -> socket.socket:
    made = socket.socket(*info[:3])
    try:
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, info[4])
    except BaseException:
        made.close()
        raise
    return made


def _discard(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
