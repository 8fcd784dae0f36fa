"""What the server is to be told in order, and of which nothing may get lost while there is no connection."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from coder.errors import RpcError
from coder.rpc.client import RpcClient

MAX_WAITING = 1024
"""Reports that wait; while the server is away for so long that there are more, the oldest that may be lost go."""

Report = Callable[[RpcClient], Awaitable[None]]

log = structlog.get_logger()


class Reports:
    """Reports that wait for the server."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Report, bool]] = deque()
        self._arrived = asyncio.Event()
        self._sent = asyncio.Event()
        self._sent.set()

    def add(self, report: Report, *, needed: bool = False) -> None:
        """Take a report. What is `needed` is never dropped, and its refusal ends the session."""
        if len(self._waiting) >= MAX_WAITING:
            self._drop_one()
        self._waiting.append((report, needed))
        self._sent.clear()
        self._arrived.set()

    def _drop_one(self) -> None:
        for index, (_, needed) in enumerate(self._waiting):
            if not needed:
                del self._waiting[index]
                return

    async def send(self, rpc: RpcClient) -> None:
        """Tell the server one after the other, until the connection ends. Raises RpcError for a needed one refused."""
        while True:
            while self._waiting:
                report, needed = first = self._waiting[0]
                try:
                    await report(rpc)
                except RpcError as error:
                    if needed:
                        raise
                    log.debug("report.refused", reason=str(error))
                if self._waiting and self._waiting[0] is first:
                    self._waiting.popleft()
            self._arrived.clear()
            self._sent.set()
            await self._arrived.wait()

    async def sent(self) -> None:
        """Wait until the server has been told everything."""
        await self._sent.wait()
