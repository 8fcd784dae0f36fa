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
from coder.db.builds import DELETE, START
from coder.db.models import TemplateVersion, WorkspaceBuild
from coder.server import builds as orders
from coder.server.build_jobs import agent_jobs, job_of, read
from coder.server.build_log import BuildLogWriter
from coder.server.build_watch import Watch
from coder.server.deployment import Deployment
from coder.server.problems import Problem
from coder.server.provision import Job, Provisioner, ProvisionError

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
        self._watched: dict[UUID, tuple[Watch, asyncio.Task[None]]] = {}
        """By workspace, those that run."""

    def begin(self, deployment: Deployment, build: WorkspaceBuild, *, again: bool = False) -> None:
        """Carry out a build from now on; `again`: one that a server before us had begun."""
        before = self.leave(build.workspace_id)
        self._spawn(build.id, self._carry_out(deployment, build.id, before, again=again))

    def _spawn(self, build_id: UUID, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks[build_id] = task
        task.add_done_callback(lambda _task: self._forget(build_id))

    def _forget(self, build_id: UUID) -> None:
        self._tasks.pop(build_id, None)
        self._canceled.discard(build_id)

    def leave(self, workspace_id: UUID) -> asyncio.Task[None] | None:
        """Start a workspace's agents no more by ourselves. Returns what is still about to end."""
        _, task = self._watched.pop(workspace_id, (None, None))
        if task is not None:
            task.cancel()
        return task

    def _watch(self, deployment: Deployment, workspace_id: UUID, build_id: UUID) -> None:
        watch = Watch(deployment, workspace_id, build_id, self._provisioners, self._turns)
        task = asyncio.create_task(watch.run())
        self._watched[workspace_id] = watch, task
        task.add_done_callback(lambda _task: self._unwatch(workspace_id, watch))

    def _unwatch(self, workspace_id: UUID, watch: Watch) -> None:
        if self._watched.get(workspace_id, (None, None))[0] is watch:
            del self._watched[workspace_id]

    def cancel(self, build_id: UUID) -> bool:
        """Break off a build. Returns False when it is none of those that are carried out."""
        task = self._tasks.get(build_id)
        if task is None:
            return False
        self._canceled.add(build_id)
        task.cancel()
        return True

    async def wait(self) -> None:
        """Return when all builds are over, those included that begin meanwhile, and agents that had ended started."""
        while self._tasks:
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for watch, _ in list(self._watched.values()):
            await watch.at_rest.wait()

    async def stop(self) -> None:
        """Leave the builds and agents as they are, for the next server to take up."""
        tasks = [*self._tasks.values(), *(task for _, task in self._watched.values())]
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
                self.begin(deployment, build, again=build.status == builds.RUNNING)
        for workspace_id, build_id in running:
            if workspace_id not in self._watched:
                self._watch(deployment, workspace_id, build_id)

    async def _carry_out(
        self, deployment: Deployment, build_id: UUID, before: asyncio.Task[None] | None, *, again: bool
    ) -> None:
        outcome, error = builds.FAILED, "The server failed at this; its log has the details."
        try:
            await _over(before)
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
            row, build, version = await read(session, build_id)
        orders.announce(deployment, row)
        written.stage = build.transition.capitalize()
        if again:
            written.own("The server was started anew meanwhile; this begins again.")
        try:
            job = job_of(deployment, row, version, written.program)
            provisioner = self._provisioners[Kind(row.template.kind)]
            if build.transition == START:
                orders.require_may_run(row.owner, row.template.kind)
                await self._start(deployment, build, version, job)
                async with deployment.store.read() as session:
                    row, _, _ = await read(session, build_id)
                orders.require_may_run(row.owner, row.template.kind)  # taken away meanwhile
            elif build.transition == DELETE:
                await provisioner.delete(job)
            else:
                await provisioner.stop(job)
        except ProvisionError as problem:
            told = problem.in_full()
            error = f"{told[:1].upper()}{told[1:]}"
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
        await self._provisioners[Kind(version.template.kind)].start(job, agent_jobs(made))

    async def _clean_up(self, deployment: Deployment, build_id: UUID) -> None:
        """End what an unsuccessful start may have left running, as far as that can be done."""
        with suppress(ProvisionError, ValidationError):
            async with deployment.store.read() as session:
                row, build, version = await read(session, build_id)
            if build.transition == START:
                job = job_of(deployment, row, version, lambda _line: None)
                await self._provisioners[Kind(row.template.kind)].stop(job)

    async def _finish(self, deployment: Deployment, build_id: UUID, status: str, error: str) -> None:
        now = deployment.clock.now()
        async with deployment.store.write() as session:
            row, build, _ = await read(session, build_id)
            started = status == builds.SUCCEEDED and build.transition == START
            deadline = orders.deadline_of(row, now) if started else None
            await builds.change(session, build_id, status=status, error=error, ended_at=now, deadline=deadline)
            if status == builds.SUCCEEDED and build.transition == DELETE:
                await workspaces.delete(session, row.id, now)
            row, build, _ = await read(session, build_id)
        log.info("build.ended", workspace=row.name, transition=build.transition, status=status, error=error or None)
        if started:
            self._watch(deployment, row.id, build_id)
        await orders.end_connections(deployment, row, build.transition if status == builds.SUCCEEDED else START)
        orders.announce(deployment, row)
        deployment.changes.announce((builds.LOGS, build_id))


async def _over(task: asyncio.Task[None] | None) -> None:
    """Return when something has ended, whatever became of it."""
    if task is not None:
        await asyncio.wait({task})
