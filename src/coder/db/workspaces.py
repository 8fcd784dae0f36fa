"""Workspaces and their builds."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, Select, false, func, or_, select, true, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased, joinedload, selectinload

from coder.db.builds import START
from coder.db.models import Organization, Template, User, Workspace, WorkspaceBuild

OF_OWNER = "workspaces"
"""What changes when a user's list of workspaces does; a subject of announcements together with the user's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Conditions a listed workspace meets. None: any."""

    reader: UUID | None = None
    """The user who sees none but their own."""
    id: UUID | None = None
    owner: str | None = None
    owner_id: UUID | None = None
    name: str | None = None
    template: str | None = None
    organization: str | None = None


def _since_last_start() -> ColumnElement[bool]:
    """Select the builds that say how a workspace is now; those before are many after a while."""
    start = aliased(WorkspaceBuild)
    of_same = select(func.max(start.number)).where(
        start.workspace_id == WorkspaceBuild.workspace_id, start.transition == START
    )
    return WorkspaceBuild.number >= of_same.correlate(WorkspaceBuild).scalar_subquery()


def _complete(query: Select[Workspace], also: ColumnElement[bool] | None = None) -> Select[Workspace]:
    """Load with workspaces what is shown of them; of their builds those since the last start, and others `also`."""
    build = selectinload(Workspace.builds.and_(or_(_since_last_start(), false() if also is None else also)))
    return query.options(
        joinedload(Workspace.owner),
        joinedload(Workspace.organization),
        joinedload(Workspace.template),
        build.selectinload(WorkspaceBuild.agents),
        build.joinedload(WorkspaceBuild.template_version),
        build.joinedload(WorkspaceBuild.initiator),
    ).execution_options(populate_existing=True)


async def get(session: AsyncSession, workspace_id: UUID, *, history: bool = False) -> Workspace | None:
    """Return a workspace with everything that is shown of it, deleted or not; with `history`, with all its builds."""
    query = select(Workspace).where(Workspace.id == workspace_id)
    return await session.scalar(_complete(query, true() if history else None))


async def by_name(session: AsyncSession, owner_id: UUID, name: str, *, deleted: bool = False) -> Workspace | None:
    """Return an owner's workspace by name, whatever its case; with `deleted`, the last deleted one if none lives."""
    query = select(Workspace).where(Workspace.owner_id == owner_id, func.lower(Workspace.name) == name.lower())
    if not deleted:
        query = query.where(Workspace.deleted_at.is_(None))
    query = query.order_by(Workspace.deleted_at.is_(None).desc(), Workspace.deleted_at.desc()).limit(1)
    return await session.scalar(_complete(query))


async def search(
    session: AsyncSession, wanted: Search, *, limit: int | None = None, offset: int = 0
) -> Sequence[Workspace]:
    """Return the living workspaces that meet all conditions, by owner and name; at most `limit` after `offset`."""
    query = select(Workspace).join(Workspace.owner).where(*_conditions(wanted))
    query = query.order_by(func.lower(User.username), func.lower(Workspace.name)).limit(limit).offset(offset)
    return (await session.scalars(_complete(query))).all()


async def count(session: AsyncSession, wanted: Search) -> int:
    """Return how many living workspaces meet all conditions."""
    query = select(func.count()).select_from(Workspace).join(Workspace.owner).where(*_conditions(wanted))
    return (await session.scalars(query)).one()


def _conditions(wanted: Search) -> list[Any]:
    found: list[Any] = [Workspace.deleted_at.is_(None)]
    if wanted.reader:
        found.append(Workspace.owner_id == wanted.reader)
    if wanted.id:
        found.append(Workspace.id == wanted.id)
    if wanted.owner_id:
        found.append(Workspace.owner_id == wanted.owner_id)
    if wanted.owner is not None:
        found.append(func.lower(User.username) == wanted.owner.lower())
    if wanted.name is not None:
        found.append(func.lower(Workspace.name).contains(wanted.name.lower(), autoescape=True))
    if wanted.template is not None:
        found.append(Workspace.template.has(func.lower(Template.name) == wanted.template.lower()))
    if wanted.organization is not None:
        found.append(Workspace.organization.has(func.lower(Organization.name) == wanted.organization.lower()))
    return found


async def create(
    session: AsyncSession, *, owner: User, template_id: UUID, name: str, now: datetime, **values: Any
) -> Workspace:
    """Add a workspace; `values` are further columns. Raises IntegrityError when the owner has one of that name."""
    workspace = Workspace(
        id=uuid4(),
        owner_id=owner.id,
        organization_id=owner.organization_id,
        template_id=template_id,
        name=name,
        created_at=now,
        updated_at=now,
        last_used_at=now,
        **values,
    )
    session.add(workspace)
    await session.flush()
    return workspace


async def get_build(session: AsyncSession, build_id: UUID) -> Workspace | None:
    """Return the workspace that a build belongs to, with that build too."""
    query = select(Workspace).where(Workspace.builds.any(WorkspaceBuild.id == build_id))
    return await session.scalar(_complete(query, WorkspaceBuild.id == build_id))


async def change(session: AsyncSession, workspace_id: UUID, now: datetime, **values: Any) -> None:
    """Set columns of a workspace. Raises IntegrityError when the owner has one of its new name."""
    await session.execute(update(Workspace).where(Workspace.id == workspace_id).values(updated_at=now, **values))


async def delete(session: AsyncSession, workspace_id: UUID, now: datetime) -> None:
    """Free a workspace's name; its agents' tokens are worth nothing from now on."""
    await change(session, workspace_id, now, deleted_at=now)
