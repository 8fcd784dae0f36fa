"""Builds as they are asked for: what is allowed, and what follows at once. `BuildRunner` carries out the others."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from coder.access import templates, tokens
from coder.access.templates import AgentSpec, Kind
from coder.db import agents, builds, workspaces
from coder.db import templates as stored
from coder.db.builds import DELETE, START, STOP
from coder.db.models import TemplateVersion, User, Workspace, WorkspaceBuild
from coder.db.models_builds import BuildLog
from coder.ids import Secret
from coder.server.deployment import Deployment
from coder.server.problems import Problem, forbidden, invalid

BUSY = "A build of this workspace is under way."
_SAID = {
    START: "The agents of this workspace may connect. They come back by themselves within a minute.",
    STOP: "The agents of this workspace are refused until it is started again. Their machine keeps running.",
    DELETE: "The workspace is deleted. What runs of it is left alone.",
}
_WHY = {STOP: "workspace stopped", DELETE: "workspace deleted"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A build that somebody wants."""

    transition: str
    version_id: UUID | None = None
    """None: the version of the last start."""
    reason: str = "initiator"
    parameters: dict[str, str] = field(default_factory=dict)
    """Chosen values; those that are not named stay as they were."""
    orphan: bool = False
    """With delete: forget the workspace, and leave what runs of it alone."""


def require_may_run(owner: User, kind: str) -> None:
    """Raise Problem (403) unless a user may have workspaces of a kind; see `access.templates.may_have`."""
    if not templates.may_have(owner.role_names, kind):
        raise forbidden("Workspaces of this template run with the server's own rights: only its owners may have them.")


async def request(deployment: Deployment, workspace_id: UUID, order: Order, by: UUID) -> Workspace:
    """Add a build. It is complete already where the machine is the user's; else it is carried out from now on.

    Returns the workspace with it. Raises Problem (400, 403, 404, 409).
    """
    now = deployment.clock.now()
    async with deployment.store.write() as session:
        row = await workspaces.get(session, workspace_id)
        if row is None or row.deleted_at:
            raise Problem(409, "The workspace is deleted already.")
        if row.latest_build.status in builds.ACTIVE:
            raise Problem(409, BUSY, detail="Wait until it has ended, or cancel it.")
        version = await _version(session, row, order)
        if order.transition == START:
            require_may_run(row.owner, row.template.kind)
        values = _values(row, version, order)
        build = await builds.add(
            session,
            row,
            version_id=version.id,
            initiator_id=by,
            transition=order.transition,
            now=now,
            reason=order.reason,
            parameters=values,
        )
        at_once = row.template.kind == Kind.MACHINE or order.orphan
        if at_once:
            await _complete(session, row, build, version)
        changed = await workspaces.get(session, workspace_id)
    assert changed is not None
    if at_once:
        deployment.runner.leave(workspace_id)
        await end_connections(deployment, changed, order.transition)
    announce(deployment, changed)
    if not at_once:
        deployment.runner.begin(deployment, build)
    return changed


async def stop_refused(deployment: Deployment, owner: UUID, by: UUID) -> None:
    """Stop the workspaces that a user may not have any more. Their agents are refused from now on, whatever runs."""
    async with deployment.store.read() as session:
        found = await workspaces.search(session, workspaces.Search(owner_id=owner))
    for row in found:
        if templates.may_have(row.owner.role_names, row.template.kind):
            continue
        for agent in row.latest_build.agents:
            deployment.sockets.end(agent.id, "roles changed")
        if row.latest_build.transition == START:
            with suppress(Problem):  # a start under way ends itself when it finds out
                await request(deployment, row.id, Order(transition=STOP), by)


async def _version(session: AsyncSession, row: Workspace, order: Order) -> TemplateVersion:
    """Return the version a build uses: what was started is stopped by the rules it was started by."""
    last = next((build for build in reversed(row.builds) if build.transition == START), row.latest_build)
    wanted = order.version_id if order.transition == START and order.version_id else last.template_version_id
    version = await stored.version(session, wanted)
    if version is None or version.template_id != row.template_id:
        raise invalid(("template_version_id", "The workspace's template has no such version."))
    return version


def _values(row: Workspace, version: TemplateVersion, order: Order) -> dict[str, Any]:
    kept = dict(row.latest_build.parameters)
    if order.transition != START:
        return kept
    return parameter_values(version, order.parameters, kept)


def parameter_values(version: TemplateVersion, given: dict[str, str], kept: dict[str, Any]) -> dict[str, str]:
    """Return the value of each parameter of a version. Raises Problem (400)."""
    known = [templates.Parameter.model_validate(each) for each in version.parameters]
    names = {parameter.name for parameter in known}
    values, faults = templates.chosen(known, {name: kept[name] for name in kept if name in names} | given)
    if faults:
        raise invalid(*faults)
    return values


async def _complete(session: AsyncSession, row: Workspace, build: WorkspaceBuild, version: TemplateVersion) -> None:
    """Finish a build of a machine that is the user's: who may connect is all that changes."""
    now, transition = build.created_at, build.transition
    deadline = deadline_of(row, now) if transition == START else None
    await builds.change(session, build.id, status=builds.SUCCEEDED, started_at=now, ended_at=now, deadline=deadline)
    if transition == START:
        await builds.move_agents(session, row.id, build.id, now)
        last = row.latest_build
        if (version.id, build.parameters) != (last.template_version_id, last.parameters):
            await _refresh(session, build, version)
    if transition == DELETE:
        await workspaces.delete(session, row.id, now)
    await builds.add_logs(session, [log_line(build.id, now, transition.capitalize(), _SAID[transition])])


async def _refresh(session: AsyncSession, build: WorkspaceBuild, version: TemplateVersion) -> None:
    """Give agents of a changed template what it lists for them now; those it lists no more stay as they are."""
    listed = {spec.name: spec for spec in templates.agents_of(version.agents)}
    for agent in await builds.agents_of(session, build.id):
        if agent.name in listed:
            columns = agent_columns(version, listed[agent.name], build.parameters)
            await agents.change(session, agent.id, build.created_at, **columns)


def agent_columns(version: TemplateVersion, spec: AgentSpec, values: dict[str, Any]) -> dict[str, Any]:
    """Return what an agent's row holds of its template and of the chosen values."""
    columns = spec.columns()
    for each in version.parameters:
        parameter = templates.Parameter.model_validate(each)
        if parameter.name in values:
            columns["environment"][parameter.variable] = str(values[parameter.name])
    return columns


async def add_agents(
    session: AsyncSession, build: WorkspaceBuild, version: TemplateVersion, specs: Sequence[AgentSpec], now: datetime
) -> dict[str, Secret]:
    """Add the agents of a build, or give those it has new tokens. Returns each one's token by its name."""
    there = {agent.name: agent.id for agent in await builds.agents_of(session, build.id)}
    made: dict[str, Secret] = {}
    for order, spec in enumerate(specs):
        token = tokens.new_agent_token()
        made[spec.name] = Secret(str(token))
        hashed = tokens.hash_agent_token(token)
        if spec.name in there:
            await agents.renew_token(session, there[spec.name], hashed, now)
        else:
            columns = agent_columns(version, spec, build.parameters) | {"display_order": order}
            await builds.add_agent(session, build.id, hashed, now, columns)
    return made


async def end_connections(deployment: Deployment, row: Workspace, transition: str) -> None:
    """End the connections of agents that are not those of the latest build, and of their clients."""
    async with deployment.store.read() as session:
        ever = set(await agents.of_workspace(session, row.id))
    kept = {agent.id for agent in row.latest_build.agents} if transition == START else set()
    for agent_id in sorted(ever - kept):
        deployment.sockets.end(agent_id, _WHY.get(transition, "workspace restarted"))


def deadline_of(row: Workspace, now: datetime) -> datetime | None:
    """Return when a workspace that is started now is stopped unless it is used."""
    return now + timedelta(milliseconds=row.ttl_ms) if row.ttl_ms else None


def log_line(build_id: UUID, now: datetime, stage: str, text: str, *, error: bool = False) -> BuildLog:
    """Make a line of a build's log in our own words."""
    return BuildLog(
        build_id=build_id,
        created_at=now,
        source="provisioner_daemon",
        level="error" if error else "info",
        stage=stage,
        output=text,
    )


def announce(deployment: Deployment, row: Workspace) -> None:
    """Tell watchers that a workspace changed."""
    deployment.changes.announce(row.id)
    deployment.changes.announce((workspaces.OF_OWNER, row.owner_id))
