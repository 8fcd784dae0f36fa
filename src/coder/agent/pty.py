"""Terminals that outlive their connections: the agent's port 2, for web terminals.

    first message with a new id    starts the command, or the login shell, on a terminal of its own
    the same id again              attaches one more viewer: it gets what was printed last, then what is printed now
    the last viewer leaves         the terminal lives on for a while and goes on printing into its buffer
    the program ends               everybody is sent the rest and hung up on

The program is read only as fast as the fastest viewer takes it, so a slow browser slows it down instead of filling
memory; a viewer that is slower than another one skips what it missed.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog

from coder.agent.pty_messages import Hello, Reader, Resized, Typed
from coder.agent.pty_output import RESET, Output
from coder.clock import Clock
from coder.errors import PeerMisbehaved

MAX_TERMINALS: Final = 64
"""Terminals of one agent."""
MAX_VIEWERS: Final = 32
"""Connections to one terminal."""
MAX_STRANGERS: Final = 64
"""Connections that have not said yet which terminal they want."""
DETACHED_FOR: Final = 300.0
"""Seconds a terminal without connections lives."""
HELLO_WITHIN: Final = 10.0
"""Seconds for the first message."""
BEHIND: Final = 128 << 10
"""Bytes the fastest viewer may be behind before the program has to wait."""
GRACE: Final = 5.0
"""Seconds between SIGHUP and SIGKILL when a terminal ends."""

_PIECE: Final = 64 << 10
_TURN: Final = 0.002  # seconds one terminal reads before it is the others' turn
_BURST: Final = 1024  # bytes at once that are more than an echo: a program that prints like this is read …
_REST: Final = 0.001  # … only so often (seconds), in larger pieces, which everything behind is cheaper for

# A session leader's first open of a terminal makes it the one that controls the session; nothing has to run between
# fork and exec for that, which would not be safe in a process with threads.
_OPEN: Final = 'tty=$1; shift; if [ "$1" != - ]; then ulimit -Sn "$1"; fi; shift; exec "$@" <"$tty" >"$tty" 2>&1'

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What the programs in terminals find."""

    shell: str
    directory: str
    environment: Mapping[str, str]
    open_files: int | None = None


@dataclass(frozen=True, slots=True)
class Attached:
    """A viewer has come (`ended` is None) or gone."""

    source: str
    """Its address inside the tunnel."""
    key: object
    """The same for both."""
    ended: str | None = None
    """Why it has gone; may be empty."""
    status: int = 0
    """Exit code of the program, if that is why."""


class Terminals:
    """All terminals of one agent. `report` hears of viewers; it must not block."""

    def __init__(self, setting: Setting, clock: Clock, report: Callable[[Attached], None]) -> None:
        self.setting = setting
        """What terminals that begin from now on find."""
        self._clock = clock
        self._report = report
        self._terminals: dict[UUID, Terminal] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._strangers = 0

    def __len__(self) -> int:
        """Count the terminals."""
        return len(self._terminals)

    @property
    def viewers(self) -> int:
        """Number of connections that are attached."""
        return sum(len(one.viewers) for one in self._terminals.values())

    def serve(self, stream: socket.socket, source: str) -> None:
        """Serve a client that came through the tunnel from this address; takes the stream over."""
        if self._strangers >= MAX_STRANGERS:
            stream.close()
            return
        task = asyncio.ensure_future(self._serve(stream, source))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End all terminals."""
        for terminal in list(self._terminals.values()):
            terminal.end()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, stream: socket.socket, source: str) -> None:
        stream.setblocking(False)
        with stream:
            self._strangers += 1
            try:
                async with asyncio.timeout(HELLO_WITHIN):
                    hello = await _hello(stream)
            except (TimeoutError, OSError, PeerMisbehaved) as error:
                log.debug("terminal.refused", peer=source, reason=str(error))
                return
            finally:
                self._strangers -= 1
            try:
                terminal = self._terminals.get(hello.id) or self._start(hello)
                viewer = terminal.attach(stream, hello)
            except OSError as error:
                log.warning("terminal.not_started", reason=error.strerror or str(error))
                with contextlib.suppress(OSError):
                    stream.send(f"The terminal cannot be started: {error.strerror or error}\r\n".encode())
                return
            self._report(Attached(source, viewer))
            reason = ""
            try:
                reason = await viewer.run()
            finally:
                terminal.detach(viewer)
                self._report(Attached(source, viewer, reason, terminal.status or 0))

    def _start(self, hello: Hello) -> "Terminal":
        if hello.container:
            raise OSError(0, "this agent runs no containers")
        if len(self._terminals) >= MAX_TERMINALS:
            raise OSError(0, f"there are {MAX_TERMINALS} terminals already; end one first")
        terminal = Terminal(self.setting, hello)
        self._terminals[hello.id] = terminal
        task = asyncio.ensure_future(self._live(hello.id, terminal))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        log.info("terminal.started", terminal=str(hello.id)[:8])
        return terminal

    async def _live(self, number: UUID, terminal: "Terminal") -> None:
        """Wait for a terminal's end and take it away."""
        try:
            await terminal.wait(self._clock)
        finally:
            if self._terminals.get(number) is terminal:
                del self._terminals[number]
            terminal.end()
            log.info("terminal.ended", terminal=str(number)[:8], status=terminal.status)


class Terminal:
    """One program on a terminal of its own."""

    def __init__(self, setting: Setting, hello: Hello) -> None:
        self._loop = asyncio.get_running_loop()
        self._output = Output()
        self.viewers: list[Viewer] = []
        self.status: int | None = None
        """The program's exit code; minus the signal's number for one that a signal ended."""
        self.over = asyncio.Event()
        """Set once there will be no more output."""
        self._left = asyncio.Event()
        self._left.set()
        self._departures = 0
        self._resting: asyncio.TimerHandle | None = None
        self._reading = False
        self._master, slave = os.openpty()
        try:
            os.set_blocking(self._master, False)
            _set_size(self._master, hello.rows, hello.columns)
            self._process = _spawn(setting, hello.command, os.ttyname(slave))
        except BaseException:
            os.close(self._master)
            os.close(slave)
            raise
        self._slave = slave  # kept while the program lives: without it reading finds an end before it is opened there
        self._read_on()

    # Viewers

    def attach(self, stream: socket.socket, hello: Hello) -> "Viewer":
        """Add a viewer, whose window's size is the terminal's from now on. Raises OSError when there are too many."""
        if len(self.viewers) >= MAX_VIEWERS:
            raise OSError(0, "too many connections to this terminal")
        viewer = Viewer(self, stream, self._output)
        if self._output.end:
            self.resize(hello.rows, hello.columns)
            self._redraw()
        self.viewers.append(viewer)
        self._left.clear()
        self._pace()
        return viewer

    def detach(self, viewer: "Viewer") -> None:
        """Take a viewer away."""
        if viewer in self.viewers:
            self.viewers.remove(viewer)
        if not self.viewers:
            self._departures += 1
            self._left.set()
        self._pace()

    def resize(self, rows: int, columns: int) -> None:
        """Give the terminal another size; the program is told when it is one."""
        if not self.over.is_set():
            with contextlib.suppress(OSError):
                _set_size(self._master, rows, columns)

    def _redraw(self) -> None:
        """Have the program draw anew: what is kept need not be all that is on its screen."""
        with contextlib.suppress(OSError):
            os.killpg(os.tcgetpgrp(self._master), signal.SIGWINCH)

    async def write(self, data: bytes) -> None:
        """Type. Waits while the program does not read."""
        rest = memoryview(data)
        while rest and not self.over.is_set():
            try:
                rest = rest[os.write(self._master, rest) :]
            except BlockingIOError:
                await self._writable()
            except OSError:
                return  # the program has gone

    async def _writable(self) -> None:
        room = asyncio.Event()
        # Another descriptor of the same terminal, since the loop has one callback for each; it is seldom needed.
        waited = os.dup(self._master)
        try:
            self._loop.add_writer(waited, room.set)
            waiting = [asyncio.ensure_future(room.wait()), asyncio.ensure_future(self.over.wait())]
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waiting:
                    task.cancel()
        finally:
            self._loop.remove_writer(waited)
            os.close(waited)

    # Output

    def progressed(self) -> None:
        """Note that a viewer has taken something."""
        self._pace()

    def _pace(self) -> None:
        """Read the program while somebody can follow, or nobody looks."""
        behind = min((self._output.end - viewer.offset for viewer in self.viewers), default=0)
        if behind <= BEHIND:
            self._read_on()
        else:
            self._pause()

    def _read_on(self) -> None:
        if not self._reading and not self.over.is_set():
            self._reading = True
            self._wait_for_more()

    def _wait_for_more(self) -> None:
        self._resting = None
        self._loop.add_reader(self._master, self._readable)

    def _rest(self) -> None:
        if self._reading:
            self._loop.remove_reader(self._master)
            self._resting = self._loop.call_later(_REST, self._wait_for_more)

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._master)
            if self._resting is not None:
                self._resting.cancel()
                self._resting = None

    def _readable(self) -> None:
        until, size = time.monotonic() + _TURN, 0
        pieces: list[bytes] = []
        while size < _PIECE:
            try:
                piece = os.read(self._master, _PIECE)
            except BlockingIOError:
                break
            except OSError:  # EIO: nobody has the terminal open any more
                piece = b""
            if not piece:
                self._take(b"".join(pieces))
                self._finish()
                return
            pieces.append(piece)
            size += len(piece)
            if time.monotonic() > until:
                break
        self._take(b"".join(pieces))
        if size >= _BURST:
            self._rest()

    def _take(self, data: bytes) -> None:
        if data:
            self._output.add(data)
            for viewer in list(self.viewers):
                viewer.more()
            self._pace()

    def _finish(self) -> None:
        self._pause()
        if not self.over.is_set():
            self.over.set()
            self._drop_slave()
            os.close(self._master)
            for viewer in list(self.viewers):
                viewer.more()

    def _drop_slave(self) -> None:
        if self._slave >= 0:
            os.close(self._slave)
            self._slave = -1

    # Life

    async def wait(self, clock: Clock) -> None:
        """Return when the program has ended and all it printed is read, or nobody has looked for a while."""
        ended = asyncio.ensure_future(self._ended())
        forgotten = asyncio.ensure_future(self._forgotten(clock))
        try:
            await asyncio.wait({ended, forgotten}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                self._signal(signal.SIGHUP)
                await asyncio.wait({ended}, timeout=GRACE)
        finally:
            forgotten.cancel()
            ended.cancel()
            if self._process.poll() is None:
                self._signal(signal.SIGKILL)
                self._process.wait()
            self.status = self._process.returncode
            self._drop_slave()
        while self.viewers and not self.over.is_set():  # the system has hung the terminal up: reading comes to its end
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE):
                    await self.over.wait()
            if self._reading:
                break
        self._finish()

    async def _ended(self) -> None:
        """Return when the program has ended."""
        descriptor, ended = os.pidfd_open(self._process.pid), asyncio.Event()
        self._loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            self._loop.remove_reader(descriptor)
            os.close(descriptor)

    async def _forgotten(self, clock: Clock) -> None:
        while True:
            await self._left.wait()
            before = self._departures
            await clock.sleep(DETACHED_FOR)
            if self._left.is_set() and before == self._departures:
                return

    def _signal(self, number: int) -> None:
        """Tell the whole session, of which the program is the leader."""
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, number)

    def end(self) -> None:
        """Hang up: the program and what it started in the foreground get SIGHUP."""
        if self._process.poll() is None:
            self._signal(signal.SIGHUP)
            self._signal(signal.SIGCONT)
        self._finish()


class Viewer:
    """One connection to a terminal."""

    def __init__(self, terminal: Terminal, stream: socket.socket, output: Output) -> None:
        self._terminal = terminal
        self._stream = stream
        self._output = output
        self._first = output.replay()
        self.offset = output.end
        """How far it has been sent what was printed."""
        self._more = asyncio.Event()
        self.more()

    def more(self) -> None:
        """Note that there is something to send."""
        self._more.set()

    async def run(self) -> str:
        """Carry both directions until either ends; return why, when there is something to say."""
        jobs = {asyncio.ensure_future(self._send()), asyncio.ensure_future(self._receive())}
        try:
            done, _ = await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
            return next(iter(done)).result()
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)

    async def _send(self) -> str:
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(self._stream, self._first)
            self._first = b""
            while True:
                if self.offset < self._output.start:  # others were faster
                    missed = self._output.replay()
                    self.offset = self._output.end
                    await loop.sock_sendall(self._stream, RESET + missed)
                data = self._output.read(self.offset, _PIECE)
                if data:
                    await loop.sock_sendall(self._stream, data)
                    self.offset += len(data)
                    self._terminal.progressed()
                elif self._terminal.over.is_set():
                    with contextlib.suppress(OSError):
                        self._stream.shutdown(socket.SHUT_WR)
                    return "the program has ended"
                else:
                    self._more.clear()
                    await self._more.wait()
        except OSError:
            return ""

    async def _receive(self) -> str:
        reader = Reader()
        loop = asyncio.get_running_loop()
        try:
            while data := await loop.sock_recv(self._stream, _PIECE):
                for message in reader.feed(data):
                    match message:
                        case Typed():
                            await self._terminal.write(message.data)
                        case Resized():
                            self._terminal.resize(message.rows, message.columns)
        except OSError:
            return ""
        except PeerMisbehaved as error:
            return str(error)
        return ""


async def _hello(stream: socket.socket) -> Hello:
    length = int.from_bytes(await _exactly(stream, 2), "little")
    return Hello.parse(await _exactly(stream, length))


async def _exactly(stream: socket.socket, size: int) -> bytes:
    loop, found = asyncio.get_running_loop(), b""
    while len(found) < size:
        piece = await loop.sock_recv(stream, size - len(found))
        if not piece:
            raise PeerMisbehaved("the connection ended before it said what it wants")
        found += piece
    return found


def _set_size(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _spawn(setting: Setting, command: str, tty: str) -> "subprocess.Popen[bytes]":
    program = [setting.shell, "-c", command] if command else [setting.shell, "-l"]
    limit = "-" if setting.open_files is None else str(setting.open_files)
    return subprocess.Popen(  # noqa: S603 - what the user asks for, or the login shell
        ["/bin/sh", "-c", _OPEN, "sh", tty, limit, *program],
        cwd=setting.directory,
        env={**setting.environment, "TERM": "xterm-256color"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
