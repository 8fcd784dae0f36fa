"""`coder` with one more command, `probe WORKSPACE PORT`: an echo stream to a service in the workspace, watched closely.

Runs as a process of its own; the connection is the one every command makes. Events leave as lines of JSON, each with
`at`, seconds on the monotonic clock all processes share: `peer` with the agent's `endpoints`, `introduced`, `path` with
its `kind`, `first_byte`, `stall` with its `seconds`, `over` with what was sent and came back. Of the lines on standard
input, `mark` is answered by `marked` when something sent after it has come back, and `end` ends the stream: after a
last `BULK` bytes in one go, everything sent must have come back.
"""

import asyncio
import hashlib
import json
import random
import sys
import time

import click

from coder.cli import connect as connecting
from coder.cli.context import Globals
from coder.cli.main import COMMANDS
from coder.cli.main import run as run_command
from coder.dataplane.engine import PathChanged

CHUNK = 8192
PACE = 0.01
"""Seconds between two chunks: some 6 Mbit/s, so that a gap stands out and a queue does not."""
STALL = 0.1
"""Seconds without an echo from which on a gap is told."""
BULK = 1 << 20


def tell(what: str, **facts: object) -> None:
    sys.stdout.write(json.dumps({"at": time.monotonic(), "what": what} | facts) + "\n")
    sys.stdout.flush()


def tell_peers(node) -> None:
    """Tell what the coordinator says of the agent, whenever it says something."""
    take = node.set_peers

    def told(peers) -> None:
        tell("peer", endpoints=[endpoint for peer in peers for endpoint in peer.endpoints])
        take(peers)

    node.set_peers = told


class Watch(connecting.Watch):
    def on_event(self, event: object) -> None:
        if isinstance(event, PathChanged):
            tell("path", kind=event.path.kind, endpoint=event.path.endpoint)
        super().on_event(event)


class Echo:
    """One stream: what goes out, what comes back, and when."""

    def __init__(self, stream) -> None:
        self.stream = stream
        self.loop = asyncio.get_running_loop()
        self.random = random.Random(7)
        self.sent, self.received = hashlib.sha256(), hashlib.sha256()
        self.sent_bytes = self.received_bytes = 0
        self.last = 0.0
        self.longest = 0.0
        self.ending = asyncio.Event()
        self.marks: list[int] = []

    async def send(self) -> None:
        while not self.ending.is_set():
            await self._send(CHUNK)
            await asyncio.sleep(PACE)
        await self._send(BULK)
        self.stream.shutdown(1)

    async def _send(self, size: int) -> None:
        piece = self.random.randbytes(size)
        await self.loop.sock_sendall(self.stream, piece)
        self.sent.update(piece)
        self.sent_bytes += size

    async def receive(self) -> None:
        while data := await self.loop.sock_recv(self.stream, 1 << 18):
            now = time.monotonic()
            if not self.last:
                tell("first_byte")
            elif now - self.last > STALL:
                tell("stall", seconds=round(now - self.last, 3))
            self.longest = max(self.longest, now - (self.last or now))
            self.last = now
            self.received.update(data)
            self.received_bytes += len(data)
            while self.marks and self.received_bytes >= self.marks[0]:
                self.marks.pop(0)
                tell("marked")

    async def obey(self, reader: asyncio.StreamReader) -> None:
        """Follow the lines; their end is the end."""
        while await reader.readline() == b"mark\n":
            self.marks.append(self.sent_bytes + 2 * CHUNK)  # one may be half sent already
        self.ending.set()


async def run(flags: Globals, workspace: str, port: int) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with connecting.connect(flags, workspace, patience=20) as connection:
        tell_peers(connection.node)
        await connection.peering.introduced.wait()
        tell("introduced")
        with await connection.node.connect(connection.address, port) as stream:
            echo = Echo(stream)
            async with asyncio.TaskGroup() as group:
                obeying = group.create_task(echo.obey(reader))
                group.create_task(echo.send())
                await echo.receive()
                obeying.cancel()
            tell(
                "over",
                sent=echo.sent_bytes,
                received=echo.received_bytes,
                same=echo.sent.digest() == echo.received.digest(),
                longest=round(echo.longest, 3),
            )


@click.command("probe")
@click.argument("workspace")
@click.argument("port", type=int)
@click.pass_obj
def command(flags: Globals, *, workspace: str, port: int) -> None:
    asyncio.run(run(flags, workspace, port))


if __name__ == "__main__":
    connecting.Watch = Watch
    COMMANDS["probe"] = ("probe", "")
    sys.modules["coder.cli.commands.probe"] = sys.modules[__name__]
    sys.exit(run_command(["probe", *sys.argv[1:]]))
