"""Lines on their way to the server: gathered, bounded, sent in batches whenever there is a connection.

Whoever prints never waits: what does not fit any more is counted and left out.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from uuid import UUID

import structlog

from coder.agent import calls
from coder.clock import Clock
from coder.errors import RpcError
from coder.rpc.client import RpcClient
from coder.wire.proto import agent_pb2 as pb

MAX_LINE = 8 << 10
"""Bytes of one line; longer ones go on in the next."""

MAX_WAITING = 1 << 20
"""Bytes of lines that may wait: as much as a server keeps of one agent."""

LINE_COST = 64
"""Bytes a line takes beside its text."""

MAX_BATCH, MAX_BATCH_LINES = 128 << 10, 1000
"""Bytes and lines sent at a time."""

GATHER = 0.25
"""Seconds to wait for company after the first line."""

log = structlog.get_logger()


class Lines:
    """Cuts bytes into lines of text."""

    def __init__(self, put: Callable[[str], None]) -> None:
        self._put = put
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        *whole, rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._cut(line)
        while len(rest) > MAX_LINE:
            self._put(_text(rest[:MAX_LINE]))
            rest = rest[MAX_LINE:]
        self._rest = rest

    def end(self) -> None:
        """Take the last line, which may lack its end."""
        if self._rest:
            self._cut(self._rest)
            self._rest = b""

    def _cut(self, line: bytes) -> None:
        line = line.removesuffix(b"\r")
        for start in range(0, len(line) or 1, MAX_LINE):
            self._put(_text(line[start : start + MAX_LINE]))


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")


class LogOutbox:
    """Lines that wait for the server, by source."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: dict[UUID, deque[pb.Log]] = {}
        self._size = 0
        self._left_out: dict[UUID, int] = {}
        self._full = False
        self._arrived = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def put(self, source: UUID, text: str, level: "pb.Log.Level.ValueType" = pb.Log.INFO) -> None:
        """Take a line, unless too many wait already or the server wants no more."""
        if self._full:
            return
        line = pb.Log(created_at=calls.timestamp(self._clock.now()), output=text, level=level)
        if self._size + _size(line) > MAX_WAITING:
            self._left_out[source] = self._left_out.get(source, 0) + 1
            return
        self._add(source, line)

    def _add(self, source: UUID, line: pb.Log) -> None:
        self._waiting.setdefault(source, deque()).append(line)
        self._size += _size(line)
        self._empty.clear()
        self._arrived.set()

    async def send(self, rpc: RpcClient) -> None:
        """Send what waits and what comes; ends with the connection. What was not answered is sent again on the next."""
        while True:
            await self._arrived.wait()
            await self._clock.sleep(GATHER)
            while self._waiting:
                await self._send_one(rpc)
            self._tell_left_out()
            if not self._waiting:
                self._arrived.clear()
                self._empty.set()

    async def flushed(self) -> None:
        """Wait until nothing waits."""
        await self._empty.wait()

    async def _send_one(self, rpc: RpcClient) -> None:
        source, lines = next(iter(self._waiting.items()))
        batch: list[pb.Log] = []
        size = 0
        for line in lines:
            size += _size(line)
            if batch and (size > MAX_BATCH or len(batch) == MAX_BATCH_LINES):
                break
            batch.append(line)
        try:
            if await calls.logs(rpc, source, batch):
                log.warning("logs.full", reason="the server keeps no more of what this agent prints")
                self._full = True
        except RpcError as error:
            log.debug("logs.refused", reason=str(error))  # it would be refused again
        self._forget(source, lines, len(batch))

    def _forget(self, source: UUID, lines: deque[pb.Log], count: int) -> None:
        for _ in range(count):
            self._size -= _size(lines.popleft())
        if self._full:
            self._waiting.clear()
            self._left_out.clear()
            self._size = 0
        elif not lines:
            del self._waiting[source]

    def _tell_left_out(self) -> None:
        missing, self._left_out = self._left_out, {}
        for source, count in missing.items():
            text = f"{count} lines are left out here: they came faster than the server took them."
            self._add(source, pb.Log(created_at=calls.timestamp(self._clock.now()), output=text, level=pb.Log.WARN))


def _size(line: pb.Log) -> int:
    return len(line.output.encode()) + LINE_COST
