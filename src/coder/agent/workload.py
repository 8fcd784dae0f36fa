"""What an agent does for its manifest beside serving the tunnel: scripts, metadata, apps' health, and telling of it."""

import asyncio
from collections.abc import Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog

from coder.agent import calls
from coder.agent.app_health import AppHealth
from coder.agent.logs import LogOutbox
from coder.agent.metadata import Metadata
from coder.agent.processes import Processes, Surroundings
from coder.agent.reports import Reports
from coder.agent.scripts import PROGRAMS, Outcome, Scripts
from coder.agent.settings import AgentSettings
from coder.clock import Clock
from coder.peering.tasks import together
from coder.rpc.client import RpcClient
from coder.wire.proto import agent_pb2 as pb

log = structlog.get_logger()

_STARTED = {
    Outcome.OK: calls.State.READY,
    Outcome.TIMEOUT: calls.State.START_TIMEOUT,
    Outcome.ERROR: calls.State.START_ERROR,
}
_STOPPED = {
    Outcome.OK: calls.State.OFF,
    Outcome.TIMEOUT: calls.State.SHUTDOWN_TIMEOUT,
    Outcome.ERROR: calls.State.SHUTDOWN_ERROR,
}


def place(settings: AgentSettings, identity: UUID, environ: Mapping[str, str]) -> Path:
    """Return the directory of an agent's scripts: data, and programs they offer to everybody."""
    if settings.script_directory is not None:
        return settings.script_directory.absolute()
    cache = environ.get("XDG_CACHE_HOME") or ""
    base = Path(cache) if cache.startswith("/") else Path.home() / ".cache"
    return base / "coder" / "agent" / str(identity)


class Workload:
    """The manifest's work of one identity. Scripts run once, however often the connection is lost."""

    def __init__(self, settings: AgentSettings, clock: Clock, where: Path) -> None:
        self._settings = settings
        self._clock = clock
        self._place = where
        self._processes = Processes(clock)
        self._logs = LogOutbox(clock)
        self._reports = Reports()
        self._scripts: Scripts | None = None
        self._running: list[asyncio.Task[None]] = []

    @property
    def programs(self) -> str:
        """Where scripts put programs."""
        return str(self._place / PROGRAMS)

    def begin(self, manifest: pb.Manifest, around: Surroundings) -> None:
        """Run the start scripts and those that go by the clock. Only the first call counts. Raises Malformed."""
        if self._scripts is not None:
            return
        self._scripts = scripts = Scripts(
            manifest.scripts,
            around,
            self._place,
            processes=self._processes,
            clock=self._clock,
            put=self._logs.put,
            completed=self._completed,
            log_directory=self._settings.log_directory,
        )
        self._say(calls.State.STARTING)
        self._running = [asyncio.ensure_future(self._start(scripts)), asyncio.ensure_future(scripts.by_the_clock())]

    async def serve(self, rpc: RpcClient, manifest: pb.Manifest, around: Surroundings) -> None:
        """Report to the server, and collect what its manifest asks for, until the connection ends."""
        jobs: list[Coroutine[Any, Any, None]] = [self._reports.send(rpc), self._logs.send(rpc)]
        if manifest.metadata:
            jobs.append(Metadata(manifest.metadata, around, processes=self._processes, clock=self._clock).report(rpc))
        if any(app.healthcheck.url for app in manifest.apps):
            jobs.append(AppHealth(manifest.apps, self._clock).report(rpc))
        await together(*jobs)

    async def stop(self) -> None:
        """End what runs, and run the stop scripts, within their bound."""
        self._say(calls.State.SHUTTING_DOWN)
        await self._end_running()
        outcome = Outcome.OK if self._scripts is None else await self._scripts.stop()
        self._say(_STOPPED[outcome])

    async def told(self) -> None:
        """Wait until the server knows everything."""
        await self._reports.sent()
        await self._logs.flushed()
        await self._reports.sent()

    async def close(self) -> None:
        """Give everything up."""
        await self._end_running()
        await self._processes.close()

    async def _start(self, scripts: Scripts) -> None:
        outcome = await scripts.start()
        if outcome is not Outcome.OK:
            log.warning("scripts.start_failed", outcome=outcome.name.lower(), remedy="'coder logs' shows their output")
        self._say(_STARTED[outcome])

    async def _end_running(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _completed(self, timing: pb.Timing) -> None:
        self._reports.add(partial(calls.script_completed, timing=timing))

    def _say(self, state: "calls.State.ValueType") -> None:
        at = calls.timestamp(self._clock.now())
        self._reports.add(partial(calls.lifecycle, state=state, changed_at=at), needed=True)
