"""Carries builds out: starts and stops agents through the provisioner of their template's kind, and keeps the log."""

import asyncio
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any
from uuid import UUID

import structlog
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from coder.access import templates
from coder.access.templates import Kind
from coder.db import builds, workspaces
from coder.db import templates as stored
from coder.db.builds import DELETE, START
from coder.db.models import TemplateVersion, Workspace, WorkspaceBuild
from coder.ids import Secret
from coder.server import builds as orders
from coder.server.build_log import BuildLogWriter
from coder.server.deployment import Deployment
from coder.server.problems import Problem
from coder.server.provision import AgentJob, Job, Provisioner, ProvisionError

log = structlog.get_logger(__name__)

_AT_ONCE = 8
"""Builds carried out at the same time; the others wait."""


class BuildRunner:
    """Carries out builds. One workspace never has two at once: the second is refused when it is asked for."""

    def __init__(self, provisioners: Mapping[Kind, Provisioner]) -> None:
        self._provisioners = provisioners
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._tasks: dict[UUID, asyncio.Task[None]] = {}
        self._canceled: set[UUID] = set()

    def begin(self, deployment: Deployment, build_id: UUID, *, again: bool = False) -> None:
        """Carry out a build from now on; `again`: one that a server before us had begun."""
        self._spawn(build_id, self._carry_out(deployment, build_id, again=again))

    def _spawn(self, key: UUID, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks[key] = task
        task.add_done_callback(lambda _task: self._forget(key))

    def _forget(self, key: UUID) -> None:
        self._tasks.pop(key, None)
        self._canceled.discard(key)

    def cancel(self, build_id: UUID) -> bool:
        """Break off a build. Returns False when it is none of those that are carried out."""
        task = self._tasks.get(build_id)
        if task is None:
            return False
        self._canceled.add(build_id)
        task.cancel()
        return True

    async def wait(self) -> None:
        """Return when all builds are over, those included that begin meanwhile."""
        while self._tasks:
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def stop(self) -> None:
        """Leave the builds as they are, for the next server to take up."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def resume(self, deployment: Deployment) -> None:
        """Take up what a server before us left: builds on their way, and agents that should run but do not."""
        async with deployment.store.read() as session:
            left = await builds.unfinished(session)
            running = await builds.started(session)
        for build in left:
            if build.status == builds.CANCELING:
                self._spawn(build.id, self._end_canceled(deployment, build.id))
            else:
                self.begin(deployment, build.id, again=build.status == builds.RUNNING)
        for workspace_id in running:
            self._spawn(workspace_id, self._look_after(deployment, workspace_id))

    async def _carry_out(self, deployment: Deployment, build_id: UUID, *, again: bool) -> None:
        outcome, error = builds.FAILED, "The server failed at this; its log has the details."
        try:
            async with self._turns, BuildLogWriter(deployment, build_id) as written:
                outcome, error = await self._attempt(deployment, build_id, written, again=again)
        except asyncio.CancelledError:
            if build_id not in self._canceled:
                raise  # the server stops: the next one takes it up
            outcome, error = builds.CANCELED, "It was canceled."
            await self._clean_up(deployment, build_id)
        except SQLAlchemyError as fault:
            log.error("build.broken", build=str(build_id), fault=str(fault))  # noqa: TRY400 - the words say it all
        except Exception:
            log.exception("build.broken", build=str(build_id))
        await self._settle(deployment, build_id, outcome, error)

    async def _end_canceled(self, deployment: Deployment, build_id: UUID) -> None:
        """End what a build may have started that was canceled when the server before us stopped."""
        await self._clean_up(deployment, build_id)
        await self._settle(deployment, build_id, builds.CANCELED, "It was canceled while the server stopped.")

    async def _settle(self, deployment: Deployment, build_id: UUID, outcome: str, error: str) -> None:
        """Note how a build ended, as far as the database lets us."""
        try:
            await asyncio.shield(self._finish(deployment, build_id, outcome, error))  # too late to be canceled
        except SQLAlchemyError as fault:  # the next server takes it up
            log.error("build.unfinished", build=str(build_id), fault=str(fault))  # noqa: TRY400 - as above

    async def _attempt(
        self, deployment: Deployment, build_id: UUID, written: BuildLogWriter, *, again: bool
    ) -> tuple[str, str]:
        """Do what a build asks for. Returns its state afterwards and, when it failed, why."""
        async with deployment.store.write() as session:
            await builds.change(session, build_id, status=builds.RUNNING, started_at=deployment.clock.now())
            row, build, version = await _read(session, build_id)
        orders.announce(deployment, row)
        written.stage = build.transition.capitalize()
        if again:
            written.own("The server was started anew meanwhile; this begins again.")
        try:
            job = _job(deployment, row, version, written.program)
            provisioner = self._provisioners[Kind(row.template.kind)]
            if build.transition == START:
                orders.require_may_run(row.owner, row.template.kind)
                await self._start(deployment, build, version, job)
                async with deployment.store.read() as session:
                    row, _, _ = await _read(session, build_id)
                orders.require_may_run(row.owner, row.template.kind)  # taken away meanwhile
            elif build.transition == DELETE:
                await provisioner.delete(job)
            else:
                await provisioner.stop(job)
        except ProvisionError as problem:
            error = f"{problem.message[:1].upper()}{problem.message[1:]}. {problem.remedy}".strip()
        except Problem as refusal:
            error = refusal.detail or refusal.message
        except ValidationError:
            error = "The template's settings cannot be read any more. Edit the template."
        else:
            return builds.SUCCEEDED, ""
        written.own(error, error=True)
        if build.transition == START:
            await self._clean_up(deployment, build_id)
        return builds.FAILED, error

    async def _start(self, deployment: Deployment, build: WorkspaceBuild, version: TemplateVersion, job: Job) -> None:
        async with deployment.store.write() as session:
            specs = templates.agents_of(version.agents)
            made = await orders.add_agents(session, build, version, specs, deployment.clock.now())
        await self._provisioners[Kind(version.template.kind)].start(job, _agent_jobs(made))

    async def _clean_up(self, deployment: Deployment, build_id: UUID) -> None:
        """End what an unsuccessful start may have left running, as far as that can be done."""
        with suppress(ProvisionError, ValidationError):
            async with deployment.store.read() as session:
                row, build, version = await _read(session, build_id)
            if build.transition == START:
                job = _job(deployment, row, version, lambda _line: None)
                await self._provisioners[Kind(row.template.kind)].stop(job)

    async def _finish(self, deployment: Deployment, build_id: UUID, status: str, error: str) -> None:
        now = deployment.clock.now()
        async with deployment.store.write() as session:
            row, build, _ = await _read(session, build_id)
            started = status == builds.SUCCEEDED and build.transition == START
            deadline = orders.deadline_of(row, now) if started else None
            await builds.change(session, build_id, status=status, error=error, ended_at=now, deadline=deadline)
            if status == builds.SUCCEEDED and build.transition == DELETE:
                await workspaces.delete(session, row.id, now)
            row, build, _ = await _read(session, build_id)
        log.info("build.ended", workspace=row.name, transition=build.transition, status=status, error=error or None)
        await orders.end_connections(deployment, row, build.transition if status == builds.SUCCEEDED else START)
        orders.announce(deployment, row)
        deployment.changes.announce((builds.LOGS, build_id))

    async def _look_after(self, deployment: Deployment, workspace_id: UUID) -> None:
        """Leave the agents of a running workspace alone while they run; start them again when they have ended."""
        async with deployment.store.read() as session:
            row = await workspaces.get(session, workspace_id)
            assert row is not None
            row, build, version = await _read(session, row.latest_build.id)
        provisioner = self._provisioners.get(Kind(row.template.kind))
        if row.template.kind == Kind.MACHINE or provisioner is None:
            return
        async with BuildLogWriter(deployment, build.id) as written:
            written.stage = "Restart"
            try:
                job = _job(deployment, row, version, written.program)
                if not templates.may_have(row.owner.role_names, row.template.kind):
                    await provisioner.stop(job)
                orders.require_may_run(row.owner, row.template.kind)
                if await provisioner.runs(job):
                    log.info("workspace.found_running", workspace=row.name)
                    return
                written.own("The agents had ended while the server was away; they are started again.")
                await self._start(deployment, build, version, job)
            except (ProvisionError, ValidationError, Problem) as problem:
                written.own(f"They could not be started: {problem}.", error=True)
                log.warning("workspace.not_restarted", workspace=row.name, fault=str(problem))


async def _read(session: Any, build_id: UUID) -> tuple[Workspace, WorkspaceBuild, TemplateVersion]:
    row = await workspaces.get_build(session, build_id)
    assert row is not None
    build = next(each for each in row.builds if each.id == build_id)
    version = await stored.version(session, build.template_version_id)
    assert version is not None
    return row, build, version


def _job(deployment: Deployment, row: Workspace, version: TemplateVersion, say: Any) -> Job:
    return Job(
        workspace_id=row.id,
        agents=tuple(spec.name for spec in templates.agents_of(version.agents)),
        settings=templates.settings_of(row.template.kind, version.settings),
        access_url=deployment.access_url,
        state=deployment.settings.state_path / "workspaces" / str(row.id),
        say=say,
    )


def _agent_jobs(made: Mapping[str, Secret]) -> tuple[AgentJob, ...]:
    return tuple(AgentJob(name, token) for name, token in made.items())
