"""A session with a workspace's SSH server: reach it, use it, and watch over it meanwhile."""

import asyncio
import functools
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coder.cli import output
from coder.cli.context import Globals
from coder.cli.errors import LOST
from coder.errors import Closed, CoderError, Unreachable

if TYPE_CHECKING:
    from coder.cli.commands.ssh import Session
    from coder.cli.connect import Connection
    from coder.cli.waiting import Wait

SSH_PORT = 1
"""The agent's SSH server inside the tunnel."""

SETTLED = 2.0
"""Seconds until anything is done for a session that it does not need itself: short commands do not pay for it."""

ASKING = 3.0
"""Seconds for the server to say why a session was lost."""

LEAVE = (signal.SIGHUP, signal.SIGTERM)
"""What asks a process to end."""


@dataclass(frozen=True, slots=True)
class Run:
    """One call: where to, and what to tell of it."""

    flags: Globals
    workspace: str
    patience: float
    log: Callable[[str], None]
    figures: Path | None
    """The directory for figures."""
    interval: float
    app: str
    """What the server is told uses the workspace; `disable`: nothing."""
    wait: "Wait"
    """Whether to wait for start scripts."""
    start: bool
    """Whether to start a workspace that is stopped."""
    reached: Callable[[], None]
    """Called once the workspace answers."""

    async def stdio(self) -> int:
        """Join standard input and output to the agent's SSH server."""
        from coder.dataplane.ssh import join_stdio

        async def join(stream: socket.socket) -> int:
            await join_stdio(stream)
            return 0

        return await self._reach(join)

    async def session(self, session: "Session") -> int:
        """Run a session of our own; return its exit code."""
        from coder.dataplane.ssh import run_session

        lent = session.lent()

        async def run(stream: socket.socket) -> int:
            code, how, killer = await run_session(
                stream,
                command=session.command,
                terminal=session.terminal,
                variables=session.variables,
                agent=session.agent,
                **lent,
            )
            if session.terminal and how in {"lost", "disconnected"}:
                output.note()  # the cursor stands behind what the remote shell wrote last
            if how == "lost":
                raise Closed(f"the connection to {self.workspace} was lost, or its agent stopped", remedy=LOST)
            if how == "signal":
                output.note(output.printable(f"The remote process was ended by signal {killer}."))
            return code

        def say(text: str) -> None:
            raw = session.terminal is not None
            output.note(output.printable(text), before="\r\n" if raw else "", after="\r" if raw else "")

        if not session.backwards:
            return await self._reach(run, say)
        from coder.cli import reverse

        reverse.check(session.backwards)
        variables = reverse.environment(click.get_current_context())
        return await self._reach(run, say, reverse.keep(variables, self.workspace, session.backwards, say))

    async def _reach(
        self,
        use: Callable[[socket.socket], Awaitable[int]],
        say: Callable[[str], None] | None = None,
        *others: Awaitable[None],
    ) -> int:
        """Open a stream to the agent's SSH server, and use it; `say` hears when an outage is over."""
        from coder.cli.connect import connect

        self.log(f"connecting to {self.workspace}")
        async with connect(
            self.flags, self.workspace, patience=self.patience, wait=self.wait, start=self.start
        ) as connection:
            connection.watch.log = self.log
            latency = await connection.reach(self.patience)
            self.log(f"reached {connection.address} in {latency * 1e3:.1f} ms")
            stream = await connection.node.connect(connection.address, SSH_PORT)
            self.reached()
            watching = [*others]
            if say is not None:
                watching.append(self._outages(connection, say))
            if self.app != "disable":
                watching.append(self._usage(connection))
            if self.figures is not None:
                watching.append(self._figures(connection, self.figures))
            try:
                code = await _beside(self._while_it_runs(connection, stream, use), watching)
            except (Closed, Unreachable) as error:
                if isinstance(error, Closed) and (why := await self._why(connection)) is not None:
                    raise why from error
                await connection.raise_refusal()
                raise
        self.log(f"ended with {code}")
        return code

    async def _while_it_runs(
        self, connection: "Connection", stream: socket.socket, use: Callable[[socket.socket], Awaitable[int]]
    ) -> int:
        """Use the stream until the workspace is stopped or built anew. Raises Unreachable then.

        Told to go, take leave: an agent that hears nothing keeps the session, and ports forwarded to it, for days.
        OpenSSH ends its ProxyCommand so.
        """
        with stream.dup() as handle:  # the session runs on a thread, which only the end of its stream ends
            session, gone = asyncio.ensure_future(use(stream)), asyncio.ensure_future(self._gone(connection))
            with _told_to_go() as told:
                try:
                    ends: set[asyncio.Future[Any]] = {session, gone, told}
                    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                    if session.done():
                        return session.result()
                    with suppress(OSError):
                        handle.shutdown(socket.SHUT_RDWR)
                    await asyncio.gather(session, return_exceptions=True)
                    if told.done():
                        return 128 + told.result()
                    raise gone.result()
                finally:
                    session.cancel()
                    gone.cancel()
                    await asyncio.gather(session, gone, return_exceptions=True)

    async def _gone(self, connection: "Connection") -> CoderError:
        await asyncio.sleep(SETTLED)
        from coder.cli import waiting, workspaces

        with self.flags.api() as api:
            return await waiting.until_gone(api, workspaces.Target.parse(self.workspace), connection.build)

    async def _why(self, connection: "Connection") -> CoderError | None:
        """Ask the server whether a session that was lost went with its workspace."""
        from coder.cli import waiting, workspaces

        with self.flags.api() as api, suppress(CoderError, TimeoutError):
            async with asyncio.timeout(ASKING):
                return await waiting.gone(api, workspaces.Target.parse(self.workspace), connection.build)
        return None

    async def _outages(self, connection: "Connection", say: Callable[[str], None]) -> None:
        await asyncio.sleep(SETTLED)
        from coder.cli import pulse
        from coder.clock import SystemClock

        await pulse.tell_outages(functools.partial(connection.ping, pulse.PATIENCE), SystemClock(), say)

    async def _usage(self, connection: "Connection") -> None:
        await asyncio.sleep(SETTLED)
        from coder.cli import pulse
        from coder.clock import SystemClock

        await pulse.tell_usage(connection.note_usage, self.app, SystemClock())

    async def _figures(self, connection: "Connection", directory: Path) -> None:
        from coder.cli import pulse
        from coder.clock import SystemClock

        await pulse.write_figures(connection, directory, self.interval, SystemClock())


@contextmanager
def _told_to_go() -> Iterator[asyncio.Future[int]]:
    """Give what resolves with the first signal that asks this process to end; the second one ends it."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[int] = loop.create_future()
    heard = [number for number in LEAVE if signal.getsignal(number) != signal.SIG_IGN]  # `nohup` has it ignored

    def hear(number: signal.Signals) -> None:
        stop_listening()
        told.set_result(number)

    def stop_listening() -> None:
        for number in heard:
            loop.remove_signal_handler(number)

    for number in heard:
        loop.add_signal_handler(number, hear, number)
    try:
        yield told
    finally:
        stop_listening()
        told.cancel()


async def _beside(main: Awaitable[int], others: Sequence[Awaitable[None]]) -> int:
    """Run things for as long as the main one lasts; a failure of theirs is no reason to end it."""
    tasks = [asyncio.ensure_future(other) for other in others]
    try:
        return await main
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
