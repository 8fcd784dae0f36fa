"""Makes workspaces of templates."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from coder.access import templates as rules
from coder.access.schedule import Schedule, ttl_problem
from coder.access.templates import MACHINE, AgentSpec, Kind
from coder.db import builds, templates, workspaces
from coder.db.builds import START
from coder.db.models import TemplateVersion, User, Workspace
from coder.ids import Secret
from coder.server import builds as orders
from coder.server.deployment import Deployment
from coder.server.problems import Problem, invalid


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A workspace that somebody wants."""

    name: str
    template_id: UUID | None = None
    template_version_id: UUID | None = None
    ttl_ms: int | None = None
    """None: as the template says."""
    autostart_schedule: str | None = None
    parameters: dict[str, str] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=dict)
    """What is known of a machine that its user brings, where that differs from the template's only agent."""


async def create(deployment: Deployment, owner: User, wanted: Wanted, by: UUID) -> tuple[Workspace, dict[str, Secret]]:
    """Make a workspace and start it. Returns it, and the tokens of its agents where their user starts them.

    Raises Problem (400, 403, 409).
    """
    if fault := ttl_problem(wanted.ttl_ms or 0):
        raise invalid(("ttl_ms", fault))
    if wanted.autostart_schedule:
        Schedule.parse(wanted.autostart_schedule)
    now = deployment.clock.now()
    try:
        async with deployment.store.write() as session:
            version = await _version(session, wanted)
            template = version.template
            orders.require_may_run(owner, template.kind)
            values = orders.parameter_values(version, wanted.parameters, {})
            ttl = template.default_ttl_ms if wanted.ttl_ms is None else wanted.ttl_ms
            row = await workspaces.create(
                session,
                owner=owner,
                template_id=template.id,
                name=wanted.name,
                now=now,
                ttl_ms=ttl or None,
                autostart_schedule=wanted.autostart_schedule or None,
            )
            build = await builds.add(
                session,
                row,
                version_id=version.id,
                initiator_id=by,
                transition=START,
                now=now,
                parameters=values,
            )
            made = await orders.add_agents(session, build, version, _specs(version, wanted), now)
            by_user = template.kind == Kind.MACHINE
            if by_user:
                ended = {"status": builds.SUCCEEDED, "started_at": now, "ended_at": now}
                await builds.change(session, build.id, deadline=orders.deadline_of(row, now), **ended)
            created = await workspaces.get(session, row.id)
    except IntegrityError:
        message = f"A workspace named {wanted.name!r} exists already."
        raise Problem(409, message, validations=[("name", "Taken.")]) from None
    assert created is not None
    orders.announce(deployment, created)
    if by_user:
        return created, made
    deployment.runner.begin(deployment, build)
    return created, {}


async def _version(session: AsyncSession, wanted: Wanted) -> TemplateVersion:
    """Return the version that is meant: the one named, or the active one of the template, or of `machine`."""
    if wanted.template_version_id is not None:
        version = await templates.version(session, wanted.template_version_id)
    else:
        chosen = wanted.template_id
        offer = await (templates.get(session, chosen) if chosen else templates.by_name(session, MACHINE))
        version = await templates.version(session, offer.version.id) if offer else None
    if version is None or version.template.deleted_at or wanted.template_id not in {None, version.template_id}:
        raise invalid(("template_id", "There is no such template; `coder templates list` names those there are."))
    return version


def _specs(version: TemplateVersion, wanted: Wanted) -> list[AgentSpec]:
    """Return the agents to make; what is known of a machine holds for the only agent there is."""
    specs = rules.agents_of(version.agents)
    if not wanted.machine or len(specs) != 1 or version.template.kind != Kind.MACHINE:
        return specs
    stated: dict[str, Any] = specs[0].model_dump() | wanted.machine
    try:
        return [AgentSpec.model_validate(stated)]
    except ValidationError as error:
        raise invalid(*rules.problems(error)) from None
