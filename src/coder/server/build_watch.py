"""Sees to it that the agents of a started workspace run: those that have ended are started again, ever later.

An agent that is connected runs; whether the others do is asked of their provisioner, less and less often.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from uuid import UUID

import structlog
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from coder.access import templates
from coder.access.templates import Kind
from coder.db import builds
from coder.db.builds import START
from coder.server import builds as orders
from coder.server.build_jobs import agent_jobs, job_of, read
from coder.server.build_log import BuildLogWriter
from coder.server.deployment import Deployment
from coder.server.problems import Problem
from coder.server.provision import Provisioner, ProvisionError

FIRST_LOOK, LAST_LOOK = 2.0, 60.0
"""Seconds between two questions whether agents run that are not connected, at first and at most."""
FIRST_PAUSE, LAST_PAUSE = 5.0, 300.0
"""Seconds before the second start in a row, and at most; the first comes at once."""
MOST_STARTS = 8
"""Starts in a row; then the workspace is left alone until somebody restarts it."""
STEADY = 600.0
"""Seconds after which a start counts as a success."""

_STAGE = "Restart"

log = structlog.get_logger(__name__)


class Restarts:
    """When agents that have ended are started again. Holds no clock: `now` is seconds on a monotonic one."""

    def __init__(self, now: float) -> None:
        self._tries = 0
        self._since = now

    def pause(self, now: float) -> float | None:
        """Take note that agents have ended; return the seconds to their next start, None after too many."""
        if now - self._since >= STEADY:
            self._tries = 0
        if self._tries >= MOST_STARTS:
            return None
        self._tries += 1
        return 0.0 if self._tries == 1 else min(FIRST_PAUSE * 2.0 ** (self._tries - 2), LAST_PAUSE)

    def started(self, now: float) -> None:
        """Take note that they are started."""
        self._since = now


class Watch:
    """Watches the agents of one build, until it is cancelled or the build is not its workspace's latest any more."""

    def __init__(
        self,
        deployment: Deployment,
        workspace_id: UUID,
        build_id: UUID,
        provisioners: Mapping[Kind, Provisioner],
        turns: asyncio.Semaphore,
    ) -> None:
        self._deployment = deployment
        self._workspace_id = workspace_id
        self._build_id = build_id
        self._provisioners = provisioners
        self._turns = turns
        self._restarts = Restarts(deployment.clock.monotonic())
        self._pause = FIRST_LOOK
        self._agents: frozenset[UUID] = frozenset()
        self.at_rest = asyncio.Event()
        """Set while it only waits."""

    async def run(self) -> None:
        """Look now, and again whenever agents are not connected."""
        try:
            with self._deployment.changes.watch(self._workspace_id) as changed:
                while await self._look():
                    with self._resting():
                        await self._absence(changed)
        except Exception:
            log.exception("workspace.unwatched", workspace=str(self._workspace_id))
        finally:
            self.at_rest.set()

    @contextmanager
    def _resting(self) -> Iterator[None]:
        self.at_rest.set()
        yield
        self.at_rest.clear()

    async def _absence(self, changed: asyncio.Event) -> None:
        """Return when agents have been away for a while."""
        while True:
            while self._agents <= self._deployment.presence.keys():
                self._pause = FIRST_LOOK
                await changed.wait()
                changed.clear()
            await self._deployment.clock.sleep(self._pause)
            self._pause = min(self._pause * 2, LAST_LOOK)
            if not self._agents <= self._deployment.presence.keys():
                return

    async def _look(self) -> bool:
        """Start again what has ended. Returns whether there is still something to watch."""
        try:
            return await self._tend()
        except ProvisionError as fault:  # a host may be away for a while
            log.debug("workspace.unknown", workspace=str(self._workspace_id), fault=str(fault))
        except SQLAlchemyError as fault:
            log.warning("workspace.unknown", workspace=str(self._workspace_id), fault=str(fault))
        except (ValidationError, Problem) as problem:
            await self._say(f"The agents are left alone: {problem}.", error=True)
            log.warning("workspace.not_restarted", workspace=str(self._workspace_id), fault=str(problem))
            return False
        return True

    async def _tend(self) -> bool:
        async with self._turns:
            found = await self._ended()
        if not found:
            return found is not None
        pause = self._restarts.pause(self._deployment.clock.monotonic())
        names = _listed(found)
        if pause is None:
            await self._say(f"{names} ended {MOST_STARTS} times in a row: left alone until a restart.", error=True)
            log.warning("workspace.not_restarted", workspace=str(self._workspace_id), fault="too many starts")
            return False
        if pause:
            await self._say(f"{names} ended again; the next start is in {pause:.0f} seconds.")
            with self._resting():
                await self._deployment.clock.sleep(pause)
        async with self._turns:
            await self._start_again()
        return True

    async def _ended(self) -> frozenset[str] | None:
        """Return the agents that should run and do not; None when this build is not to run any more."""
        async with self._deployment.store.read() as session:
            row, build, version = await read(session, self._build_id)
            self._agents = frozenset(agent.id for agent in await builds.agents_of(session, build.id))
        wanted = build.transition == START and build.status == builds.SUCCEEDED
        if row.deleted_at or row.latest_build.id != build.id or not wanted:
            return None
        provisioner = self._provisioners[Kind(row.template.kind)]
        job = job_of(self._deployment, row, version, lambda _line: None)
        if not templates.may_have(row.owner.role_names, row.template.kind):
            await provisioner.stop(job)
        orders.require_may_run(row.owner, row.template.kind)
        return frozenset(job.agents) - await provisioner.running(job)

    async def _start_again(self) -> None:
        """Start those that still do not run; the others are left alone."""
        names = await self._ended()
        if not names:
            return
        async with BuildLogWriter(self._deployment, self._build_id) as written:
            written.stage = _STAGE
            written.own(f"{_listed(names)} ended and is started again.{await self._last_words(names)}")
            async with self._deployment.store.write() as session:
                row, build, version = await read(session, self._build_id)
                specs = [spec for spec in templates.agents_of(version.agents) if spec.name in names]
                made = await orders.add_agents(session, build, version, specs, self._deployment.clock.now())
            job = job_of(self._deployment, row, version, written.program)
            self._restarts.started(self._deployment.clock.monotonic())
            try:
                await self._provisioners[Kind(row.template.kind)].start(job, agent_jobs(made))
            except ProvisionError as problem:
                written.own(f"That failed: {problem}.", error=True)
                log.warning("workspace.not_restarted", workspace=row.name, fault=str(problem))
            else:
                log.info("workspace.restarted", workspace=row.name, agents=sorted(names))

    async def _last_words(self, names: frozenset[str]) -> str:
        with suppress(ProvisionError):  # it has been taken away
            async with self._deployment.store.read() as session:
                row, _, version = await read(session, self._build_id)
            job = job_of(self._deployment, row, version, lambda _line: None)
            words = await self._provisioners[Kind(row.template.kind)].last_words(job, min(names))
            return f" It last said: {words}" if words else ""
        return ""

    async def _say(self, text: str, *, error: bool = False) -> None:
        async with BuildLogWriter(self._deployment, self._build_id) as written:
            written.stage = _STAGE
            written.own(text, error=error)


def _listed(names: frozenset[str]) -> str:
    return ("The agent " if len(names) == 1 else "Each of the agents ") + ", ".join(sorted(names))
