"""`coder share`: keeps a connection to a workspace for the commands that come. Started by them, not by people."""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coder.cli import shared
from coder.cli.context import Globals
from coder.errors import CoderError

if TYPE_CHECKING:
    from coder.cli.connect import Connection

REACH = 60.0
"""Seconds the workspace has to answer at first."""
OPEN = 3.0
"""Seconds it has to open a stream; one that takes longer is not worth sharing."""


@click.command("share", hidden=True)
@click.argument("workspace")
@click.option("--socket", "path", type=click.Path(path_type=Path), required=True)
@click.option("--idle", type=float, required=True)
@click.pass_obj
def command(flags: Globals, workspace: str, path: Path, idle: float) -> int:
    """Keep a connection to a workspace until nobody has used it for `idle` seconds."""
    with _listening(path) as listening:
        if listening is not None:
            asyncio.run(_serve(flags, workspace, listening, idle))
    return 0


@contextmanager
def _listening(path: Path) -> Iterator[socket.socket | None]:
    """Give a socket at this place, until the end; None if another process has it."""
    with path.with_suffix(".lock").open("w") as lock:
        os.fchmod(lock.fileno(), 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield None
            return
        path.unlink(missing_ok=True)  # of one that was killed
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            path.chmod(0o600)
            listening.setblocking(False)
            try:
                yield listening
            finally:
                path.unlink(missing_ok=True)


async def _serve(flags: Globals, workspace: str, listening: socket.socket, idle: float) -> None:
    from coder.cli.connect import connect
    from coder.cli.pulse import tell_usage
    from coder.clock import SystemClock

    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    with contextlib.suppress(CoderError):
        async with connect(flags, workspace, patience=REACH) as connection:
            await connection.reach(REACH)
            lender = Lender(connection, idle)
            listening.listen(64)

            def note(app: str | None) -> None:
                if lender.used:
                    connection.note_usage(app)

            tasks = [
                asyncio.ensure_future(work)
                for work in (
                    lender.accept(listening),
                    lender.idle(),
                    tell_usage(note, "ssh", SystemClock()),
                    stopped.wait(),
                )
            ]
            # Also ends with the right to the tunnel: the server says so to the one who keeps us introduced.
            following = [connection.following] if connection.following is not None else []
            try:
                await asyncio.wait([*tasks, *following], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                lender.close()


class Lender:
    """Gives streams to processes of this user, and counts who has one."""

    def __init__(self, connection: "Connection", idle: float) -> None:
        self._connection = connection
        self._idle = idle
        self._clients: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    @property
    def used(self) -> bool:
        """Whether somebody has a stream."""
        return bool(self._clients)

    async def accept(self, listening: socket.socket) -> None:
        """Serve who connects, until the workspace opens no more streams."""
        loop, spoilt = asyncio.get_running_loop(), asyncio.Event()
        ended = asyncio.ensure_future(spoilt.wait())
        try:
            while not ended.done():
                accepting = asyncio.ensure_future(loop.sock_accept(listening))
                await asyncio.wait({accepting, ended}, return_when=asyncio.FIRST_COMPLETED)
                if not accepting.done():
                    accepting.cancel()
                    break
                client, _ = accepting.result()
                task = asyncio.ensure_future(self._lend(client, spoilt))
                self._clients.add(task)
                task.add_done_callback(self._left)
                self._changed.set()
        finally:
            ended.cancel()
        # Whoever comes now makes a connection of its own, and perhaps another process; the streams that are lent stay.
        listening.close()
        while self._clients:
            await asyncio.wait(self._clients)

    async def idle(self) -> None:
        """Wait until nobody has had a stream for so long."""
        while True:
            self._changed.clear()
            try:
                async with asyncio.timeout(None if self._clients else self._idle):
                    await self._changed.wait()
            except TimeoutError:
                return

    def close(self) -> None:
        """Part with everybody."""
        for task in self._clients:
            task.cancel()

    def _left(self, task: "asyncio.Task[None]") -> None:
        self._clients.discard(task)
        self._changed.set()

    async def _lend(self, client: socket.socket, spoilt: asyncio.Event) -> None:
        """Give a stream, and wait until its user hangs up."""
        from coder.cli.sessions import SSH_PORT

        with client:
            client.setblocking(False)
            if not shared.is_ours(client):
                return
            try:
                async with asyncio.timeout(OPEN):
                    stream = await self._connection.node.connect(self._connection.address, SSH_PORT)
            except (TimeoutError, CoderError):
                spoilt.set()
                return
            with stream, contextlib.suppress(OSError):
                socket.send_fds(client, [shared.GIVEN], [stream.fileno()])
            with contextlib.suppress(OSError):
                await asyncio.get_running_loop().sock_recv(client, 1)
