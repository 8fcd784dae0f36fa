"""`coder port-forward`."""

import asyncio
import contextlib
import functools
import random
import shutil
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from coder.cli import forwards, output
from coder.cli.context import Globals
from coder.cli.errors import line
from coder.cli.options import AssignedFlags, Duration, workspace_argument
from coder.cli.threads import in_thread
from coder.errors import CoderError, NotFound, TimedOut

if TYPE_CHECKING:
    from coder.cli.connect import Connection
    from coder.cli.datagrams import DatagramListener
    from coder.cli.forwarding import Listener
    from coder.dataplane.engine import Node

REDRAW = 1.0
"""Seconds between two looks at the counters."""
FIRST_RETRY = 1.0
LAST_RETRY = 30.0

AWAY = "The workspace does not answer; connections wait until it does."

COLUMNS = ("local", "workspace", "open", "total", "failed", "sent", "received")


@click.command("port-forward", cls=AssignedFlags)
@workspace_argument()
@click.option(
    "-p", "--tcp", "tcp", envvar="CODER_PORT_FORWARD_TCP", multiple=True, metavar="PORTS",
    help="TCP ports, [bind:]local[-last][:remote[-last]], separated by commas; repeatable.",
)  # fmt: skip
@click.option("--udp", envvar="CODER_PORT_FORWARD_UDP", multiple=True, metavar="PORTS", help="UDP ports likewise.")
@click.option(
    "-R", "--reverse", multiple=True, metavar="PORTS",
    help="TCP ports of the workspace that lead to this machine, [bind:]there[-last][:here[-last]].",
)  # fmt: skip
@click.option("--timeout", type=Duration(), default="60s", show_default=True, help="How long to wait for the agent.")
@click.option("--disable-autostart", is_flag=True, envvar="CODER_SSH_DISABLE_AUTOSTART", hidden=True)
@click.pass_obj
def command(
    flags: Globals,
    *,
    workspace: str,
    tcp: Sequence[str],
    udp: Sequence[str],
    reverse: Sequence[str],
    timeout: float,
    disable_autostart: bool,
) -> int:
    """Reach ports of a workspace as ports of this machine.

    `--tcp 8080`, `--tcp 8080:80` and `--udp 5353:53` listen on the loopback addresses; give another, as in
    `--tcp 0.0.0.0:8080:80` or `--tcp [::]:8080:80`, to let other machines in. Runs until stopped, and keeps its ports
    through outages.
    """
    del disable_autostart  # workspaces that bring their machine start by themselves
    wanted = forwards.parse("tcp", tcp)
    wanted += forwards.parse("udp", udp)
    backwards = forwards.parse("tcp", reverse)
    if not wanted and not backwards:
        raise click.UsageError("no port-forwards requested: give --tcp, --udp or --reverse, such as --tcp 8080")
    return asyncio.run(_forward(flags, workspace, wanted, backwards, timeout))


async def _forward(
    flags: Globals,
    workspace: str,
    wanted: Sequence[forwards.Forward],
    backwards: Sequence[forwards.Forward],
    patience: float,
) -> int:
    from coder.cli import reverse

    if backwards:
        reverse.program()
    variables = reverse.environment(click.get_current_context())
    screen = Screen(live=flags.watched)
    tunnel = Tunnel(flags, workspace, patience, screen)
    screen.listeners = [_listener(forward, tunnel) for forward in wanted]
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    work: list[asyncio.Task[None]] = []
    try:
        for listener in screen.listeners:
            listener.bind()
        work.append(asyncio.ensure_future(tunnel.keep()))
        if not await _first([*work, tunnel.up, stopped]):
            for listener in screen.listeners:
                _announce(listener.forward)
                listener.start()
            if backwards:
                specs = [reverse.spec(forward) for forward in backwards]
                for forward in backwards:
                    _announce_reverse(forward)
                work.append(asyncio.ensure_future(reverse.keep(variables, workspace, specs, screen.note)))
            output.note("Ready!")
            work.append(asyncio.ensure_future(screen.watch()))
            await _first([*work, stopped])
        if stopped.is_set():
            screen.note("Received signal, closing all listeners and active connections")
    finally:
        await asyncio.gather(*(listener.close() for listener in screen.listeners))
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
    return 0


def _listener(forward: forwards.Forward, tunnel: "Tunnel") -> "Listener | DatagramListener":
    from coder.cli.datagrams import DatagramListener
    from coder.cli.forwarding import Listener

    if forward.network == "udp":
        return DatagramListener(forward, tunnel.way, tunnel.stuck)
    return Listener(forward, tunnel.way, tunnel.failed)


async def _first(waited: "Sequence[asyncio.Task[None] | asyncio.Event]") -> bool:
    """Wait for the first of these; return whether it was the last of them. Raises what a task has failed with."""
    tasks = [one if isinstance(one, asyncio.Task) else asyncio.ensure_future(one.wait()) for one in waited]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for one, task in zip(waited, tasks, strict=True):
            if one is task and task.done():
                task.result()
        return tasks[-1].done()
    finally:
        for one, task in zip(waited, tasks, strict=True):
            if one is not task:
                task.cancel()


def _announce(forward: forwards.Forward) -> None:
    remote = f"{forward.network}://127.0.0.1:{forward.remote}"
    output.note(f"Forwarding '{forward.network}://{forward.here}' locally to '{remote}' in the workspace")


def _announce_reverse(forward: forwards.Forward) -> None:
    here = f"tcp://127.0.0.1:{forward.remote}"
    output.note(f"Forwarding 'tcp://{forward.here}' in the workspace to '{here}' on this machine")


class Tunnel:
    """The connection to the workspace, made again when it leads nowhere any more."""

    def __init__(self, flags: Globals, workspace: str, patience: float, screen: "Screen") -> None:
        self.up = asyncio.Event()
        """Set while there is one."""
        self._flags = flags
        self._workspace = workspace
        self._patience = patience
        self._screen = screen
        self._connection: Connection | None = None
        self._reached = False
        self._lost = asyncio.Event()
        self._doubt: asyncio.Task[None] | None = None
        self._told: dict[forwards.Forward, int] = {}

    async def way(self) -> "tuple[Node, str]":
        """Return node and address, once there is a connection."""
        while self._connection is None:
            await self.up.wait()
        return self._connection.node, self._connection.address

    async def keep(self) -> None:
        """Connect, and connect again; returns only by the error of the first time."""
        from coder.peering.backoff import Backoff

        backoff = Backoff(FIRST_RETRY, LAST_RETRY, random.Random())  # noqa: S311 - spreads retries, no secret
        told = ""
        while True:
            try:
                await self._once()
                told = ""
                backoff.reset()
                self._screen.note("The workspace has another agent now; connecting to it ...")
            except CoderError as error:
                if not self._reached:
                    raise
                if (text := line(error)) != told:
                    self._screen.note(f"Still trying to connect: {text}")
                told = text
            await asyncio.sleep(backoff.delay())

    async def _once(self) -> None:
        from coder.cli.connect import connect
        from coder.cli.pulse import PATIENCE, tell_outages, tell_usage
        from coder.clock import SystemClock

        async with connect(self._flags, self._workspace, patience=self._patience) as connection:
            await connection.reach(self._patience)
            self._lost.clear()
            self._reached = True
            self._connection = connection
            self.up.set()
            usage = asyncio.ensure_future(tell_usage(connection.note_usage, None, SystemClock()))
            outages = asyncio.ensure_future(
                tell_outages(functools.partial(connection.ping, PATIENCE), SystemClock(), self._screen.note, lost=AWAY)
            )
            try:
                await _first([*([connection.following] if connection.following else []), self._lost])
            finally:
                usage.cancel()
                outages.cancel()
                self.up.clear()
                self._connection = None

    def failed(self, listener: "Listener", error: CoderError) -> None:
        """Hear of a connection that came to nothing: told once until one succeeds again."""
        port = listener.forward.remote
        if self._told.get(listener.forward) != listener.opened - listener.failed:
            self._screen.note(f"Failed to dial 'tcp://127.0.0.1:{port}' in workspace: {error}")
        self._told[listener.forward] = listener.opened - listener.failed
        if isinstance(error, TimedOut | NotFound) and self._doubt is None and self._connection is not None:
            self._doubt = asyncio.ensure_future(self._check(self._connection))

    def stuck(self, listener: "DatagramListener", error: CoderError) -> None:
        """Hear of a UDP port that is not served for the moment."""
        self._screen.note(f"UDP port {listener.forward.here} is not forwarded: {error}")

    async def _check(self, connection: "Connection") -> None:
        """Ask the server whether the workspace still has this agent: a new build has another."""
        try:
            with contextlib.suppress(CoderError):
                address = await in_thread(self._address)
                if address != connection.address and self._connection is connection:
                    self._lost.set()
        finally:
            self._doubt = None

    def _address(self) -> str:
        from uuid import UUID

        from coder.cli import workspaces
        from coder.tailnet.addresses import agent_address

        target = workspaces.Target.parse(self._workspace)
        with self._flags.api() as api:
            agent = workspaces.choose_agent(workspaces.find(api, target), target)
        return str(agent_address(UUID(agent["id"])))


class Screen:
    """Lines for the person watching, and below them, on a terminal, a table that is drawn anew when it changes."""

    def __init__(self, *, live: bool) -> None:
        self.listeners: Sequence[Listener | DatagramListener] = ()
        self._live = live
        self._drawn: list[str] = []

    def note(self, text: str) -> None:
        """Say something, above the table."""
        drawn = self._drawn
        self._clear()
        output.note(output.printable(text))
        self._draw(drawn)

    async def watch(self) -> None:
        """Keep the table up to date; for ever."""
        while True:
            if self._live and self.listeners:
                self._show()
            await asyncio.sleep(REDRAW)

    def _show(self) -> None:
        size = shutil.get_terminal_size()
        lines = output.table(COLUMNS, [_row(listener) for listener in self.listeners]).splitlines()
        lines = [text[: size.columns - 1] for text in lines[: max(2, size.lines - 1)]]
        if lines != self._drawn:
            self._clear()
            self._draw(lines)

    def _draw(self, lines: list[str]) -> None:
        if lines:
            output.note("\n".join(lines))
        self._drawn = lines

    def _clear(self) -> None:
        if self._drawn:
            click.echo(f"\x1b[{len(self._drawn)}A\x1b[J", nl=False, err=True, color=True)
        self._drawn = []


def _row(listener: "Listener | DatagramListener") -> list[str]:
    forward, figures = listener.forward, listener.figures()
    suffix = "/udp" if forward.network == "udp" else ""
    numbers = (forward.remote, figures.open, figures.opened, figures.failed)
    return [f"{forward.here}{suffix}", *map(str, numbers), _size(figures.sent), _size(figures.received)]


def _size(count: int) -> str:
    """Write a number of bytes with three digits or so: `512 B`, `1.50 MB`."""
    if count < 1000:
        return f"{count} B"
    value, unit = count / 1000, "kB"
    for larger in ("MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"
