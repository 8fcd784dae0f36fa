"""Runs commands of the workspace: each in a process group of its own, its output handed on, its time limited."""

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from coder.clock import Clock

LINGER = 1.0
"""Seconds after a command's end in which its output may end too; later its children hold it."""

GRACE = 5.0
"""Seconds a command has to end after SIGTERM, before SIGKILL."""

CHUNK = 64 << 10

COULD_NOT_START = 127
"""Exit code of a command that could not be started, as shells have it."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    """Exit code; 128 and the signal's number for one that a signal ended."""
    timed_out: bool = False
    left_open: bool = False
    """Whether something it started still holds its output."""
    problem: str = ""
    """Why it could not be started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What commands find."""

    shell: str
    directory: str
    environment: Mapping[str, str]
    open_files: int | None = None
    """How many files a command may have open unless it asks for more; None: as many as the agent."""

    def command(self, script: str, file: Path | None = None) -> list[str]:
        """Return the command line of a script: its own interpreter's when it names one and lies in a file."""
        first, _, _ = script.lstrip().partition("\n")
        if file is not None and first.startswith("#!"):
            with contextlib.suppress(ValueError):
                if words := shlex.split(first[2:]):
                    return [*words, str(file)]
        return [self.shell, "-c", script]


class Processes:
    """The commands of one agent. Output that outlives its command is read on, so that nobody who writes it dies."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._reading: set[asyncio.Task[None]] = set()

    async def run(
        self,
        command: Sequence[str],
        around: Surroundings,
        output: Callable[[bytes], None],
        *,
        limit: float | None = None,
        keep: bool = True,
    ) -> Ended:
        """Run a command to its end, at most `limit` seconds. Cancelling this ends the command.

        `output` takes what it and its children print; it must not block. Without `keep` it hears nothing any more once
        this has returned.
        """
        ours, theirs = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *_limited(command, around.open_files),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=theirs,
                stderr=theirs,
                cwd=around.directory,
                env=dict(around.environment),
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            os.close(ours)
            return Ended(COULD_NOT_START, problem=getattr(error, "strerror", None) or "the command holds a NUL")
        except asyncio.CancelledError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        reading = asyncio.ensure_future(_read(ours, output))
        self._reading.add(reading)
        reading.add_done_callback(self._reading.discard)
        return await self._wait(process, reading, limit, keep=keep)

    async def _wait(
        self, process: asyncio.subprocess.Process, reading: asyncio.Task[None], limit: float | None, *, keep: bool
    ) -> Ended:
        waiting = asyncio.ensure_future(process.wait())
        try:
            timed_out = limit is not None and not await self._within(waiting, limit)
            if timed_out:
                await self._end(process, waiting)
            code = await asyncio.shield(waiting)
        except asyncio.CancelledError:
            ending = asyncio.ensure_future(self._end(process, waiting))
            while not ending.done():
                with contextlib.suppress(asyncio.CancelledError):  # once more is no reason to leave it running
                    await asyncio.shield(ending)
            reading.cancel()
            raise
        left_open = not await self._within(reading, LINGER)
        if left_open and not keep:
            reading.cancel()
        return Ended(code if code >= 0 else 128 - code, timed_out=timed_out, left_open=left_open)

    async def _within(self, task: "asyncio.Future[Any]", seconds: float) -> bool:
        late = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait({task, late}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            late.cancel()
        return task.done()

    async def _end(self, process: asyncio.subprocess.Process, waiting: "asyncio.Future[int]") -> None:
        """End a command with all it started: politely, then for sure."""
        _signal(process.pid, signal.SIGTERM)
        if not await self._within(waiting, GRACE):
            log.debug("command.killed", process=process.pid)
        _signal(process.pid, signal.SIGKILL)
        await waiting

    async def close(self) -> None:
        """Read no more."""
        for task in list(self._reading):
            task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)


def _limited(command: Sequence[str], open_files: int | None) -> Sequence[str]:
    """Have a shell set the limit before it becomes the command: nothing of ours runs between fork and exec."""
    if open_files is None or shutil.which(command[0]) is None:
        return command
    return ["/bin/sh", "-c", 'ulimit -Sn "$1"; shift; exec "$@"', "sh", str(open_files), *command]


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


async def _read(descriptor: int, output: Callable[[bytes], None]) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(CHUNK)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0)
    )
    try:
        while data := await reader.read(CHUNK):
            output(data)
    finally:
        transport.close()
