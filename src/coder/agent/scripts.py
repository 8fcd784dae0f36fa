"""The manifest's scripts: at the start, at the stop, and by the clock. Each prints to a log source of its own."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Self
from uuid import UUID

import structlog

from coder.agent import calls, cron
from coder.agent.logs import Lines
from coder.agent.processes import Ended, Processes, Surroundings
from coder.agent.shell import expanded, homely
from coder.clock import Clock
from coder.errors import Malformed
from coder.ids import uuid_from_bytes
from coder.peering.tasks import together
from coder.wire.proto import agent_pb2 as pb

MAX_SCRIPTS = 64
"""Scripts obeyed of one manifest."""

STOP_LIMIT = 60.0
"""Seconds all stop scripts together have, whatever each is allowed; then the agent ends without them."""

MAX_LOG_FILE = 5 << 20
"""Bytes of a script's log file on this machine."""

PROGRAMS = "bin"
"""Where scripts put programs for everybody, below the scripts' place."""

log = structlog.get_logger()

Stage = pb.Timing.Stage
Put = Callable[[UUID, str, "pb.Log.Level.ValueType"], None]
"""Takes a line of a log source; never blocks."""


class Outcome(IntEnum):
    """How a stage went, the worst of its scripts."""

    OK = 0
    TIMEOUT = 1
    ERROR = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One script of the manifest."""

    id: UUID
    source: UUID
    """Its log source."""
    text: str
    name: str
    timeout: float | None
    """Seconds."""
    schedule: str
    on_start: bool
    on_stop: bool
    log_path: str

    @classmethod
    def of(cls, told: pb.WorkspaceAgentScript) -> "Script":
        """Take it from the manifest. Raises Malformed."""
        seconds = told.timeout.seconds + told.timeout.nanos / 1e9
        return cls(
            id=uuid_from_bytes(told.id, where="script.id"),
            source=uuid_from_bytes(told.log_source_id, where="script.log_source_id"),
            text=told.script,
            name=told.display_name or "script",
            timeout=seconds if seconds > 0 else None,
            schedule=told.cron,
            on_start=told.run_on_start,
            on_stop=told.run_on_stop,
            log_path=told.log_path,
        )


class Scripts:
    """The scripts of one agent. `put` takes their lines, `completed` how each run went."""

    def __init__(
        self,
        scripts: Iterable[pb.WorkspaceAgentScript],
        around: Surroundings,
        place: Path,
        *,
        processes: Processes,
        clock: Clock,
        put: Put,
        completed: Callable[[pb.Timing], None],
        log_directory: Path | None = None,
    ) -> None:
        self._scripts = [Script.of(each) for each in list(scripts)[:MAX_SCRIPTS]]
        self._around = around
        self._place = place
        self._processes = processes
        self._clock = clock
        self._put = put
        self._completed = completed
        self._log_directory = log_directory

    async def start(self) -> Outcome:
        """Run the start scripts, side by side; return the worst outcome."""
        return await self._all([each for each in self._scripts if each.on_start], Stage.START)

    async def stop(self) -> Outcome:
        """Run the stop scripts, side by side, within a bound."""
        bounded = [
            replace(each, timeout=min(each.timeout or STOP_LIMIT, STOP_LIMIT)) for each in self._scripts if each.on_stop
        ]
        return await self._all(bounded, Stage.STOP)

    async def by_the_clock(self) -> None:
        """Run what is due, until cancelled. A run that is late for the next one lets that one pass."""
        await together(*(self._recurring(script) for script in self._scripts if script.schedule))

    async def _all(self, scripts: list[Script], stage: "Stage.ValueType") -> Outcome:
        outcomes = await asyncio.gather(*(self._run(each, stage) for each in scripts))
        return max(outcomes, default=Outcome.OK)

    async def _recurring(self, script: Script) -> None:
        try:
            schedule = cron.parse(script.schedule)
        except Malformed as error:
            self._put(script.source, f"The script does not run by the clock: {error}", pb.Log.ERROR)
            return
        while (due := schedule.after(self._clock.now())) is not None:
            while (left := (due - self._clock.now()).total_seconds()) > 0:
                await self._clock.sleep(min(left, 3600.0))  # the calendar's time may be set meanwhile
            await self._run(script, Stage.CRON)

    async def _run(self, script: Script, stage: "Stage.ValueType") -> Outcome:
        began = self._clock.now()
        log.info("script.began", script=script.name, stage=Stage.Name(stage).lower())
        with _LogFile(script, self._log_directory, self._around.environment) as file:
            lines = Lines(lambda line: self._put(script.source, line, pb.Log.INFO))

            def output(data: bytes) -> None:
                lines.feed(data)
                file.write(data)

            ended = await self._execute(script, output)
            lines.end()
        self._tell(script, ended)
        status = _status(ended)
        timing = pb.Timing(
            script_id=script.id.bytes,
            start=calls.timestamp(began),
            end=calls.timestamp(self._clock.now()),
            exit_code=ended.code,
            stage=stage,
            status=status,
        )
        self._completed(timing)
        log.info("script.ended", script=script.name, code=ended.code, status=pb.Timing.Status.Name(status).lower())
        if ended.timed_out:
            return Outcome.TIMEOUT
        return Outcome.ERROR if ended.code else Outcome.OK

    async def _execute(self, script: Script, output: Callable[[bytes], None]) -> Ended:
        data, programs = self._place / "data" / str(script.source), self._place / PROGRAMS
        file: Path | None = None
        try:
            for directory in (data, programs):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if script.text.lstrip().startswith("#!"):
                file = data / "script"
                _write(file, script.text.lstrip())
        except OSError as error:
            return Ended(1, problem=f"{error.filename or data}: {error.strerror}")
        place = {"CODER_SCRIPT_DATA_DIR": str(data), "CODER_SCRIPT_BIN_DIR": str(programs)}
        around = replace(self._around, environment={**self._around.environment, **place})
        return await self._processes.run(around.command(script.text, file), around, output, limit=script.timeout)

    def _tell(self, script: Script, ended: Ended) -> None:
        """Say in the script's log what its own output does not."""
        if ended.problem:
            self._put(script.source, f"The script could not be started: {ended.problem}", pb.Log.ERROR)
        elif ended.timed_out:
            self._put(script.source, f"The script was ended: it took longer than {script.timeout:g} s.", pb.Log.ERROR)
        elif ended.code:
            self._put(script.source, f"The script failed with exit code {ended.code}.", pb.Log.ERROR)


class _LogFile:
    """A script's output on this machine, where the manifest or the agent's own settings want it; bounded."""

    def __init__(self, script: Script, directory: Path | None, environment: Mapping[str, str]) -> None:
        self._left = MAX_LOG_FILE
        self._file: int | None = None
        name = homely(expanded(script.log_path, environment)) or (
            f"coder-script-{script.source}.log" if directory else ""
        )
        if not name:
            return
        path = (directory or Path.home()) / Path(name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            self._file = os.open(path, flags, 0o600)
        except OSError as error:
            log.warning("script.no_log_file", file=str(path), reason=error.strerror)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def write(self, data: bytes) -> None:
        if self._file is None or self._left <= 0:
            return
        with contextlib.suppress(OSError):  # a full disk is no reason to stop the script
            os.write(self._file, data[: self._left])
        self._left -= len(data)


def _write(file: Path, text: str) -> None:
    """Write a script that only we may read: it may hold secrets."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o700)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)


def _status(ended: Ended) -> "pb.Timing.Status.ValueType":
    if ended.timed_out:
        return pb.Timing.Status.TIMED_OUT
    if ended.code:
        return pb.Timing.Status.EXIT_FAILURE
    return pb.Timing.Status.PIPES_LEFT_OPEN if ended.left_open else pb.Timing.Status.OK
