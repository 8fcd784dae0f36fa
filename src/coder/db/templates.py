"""Templates and their versions."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload

from coder.access.templates import MACHINE, PROCESS, Content, Kind
from coder.db.models import Template, TemplateVersion, Workspace

_BUILT_IN = (
    (MACHINE, "Machine", Kind.MACHINE, "A machine that you bring: start the agent there yourself."),
    (PROCESS, "Process", Kind.PROCESS, "A process of the server itself, to try things out. For its administrators."),
)
BUILT_IN = frozenset(name for name, *_ in _BUILT_IN)
"""Names of the templates that are always there."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A template with its active version, and how many workspaces are made of it."""

    template: Template
    version: TemplateVersion
    workspaces: int


def _offers() -> Any:
    living = (
        select(func.count())
        .select_from(Workspace)
        .where(Workspace.template_id == Template.id, Workspace.deleted_at.is_(None))
        .correlate(Template)
        .scalar_subquery()
    )
    return (
        select(Template, TemplateVersion, living)
        .join(TemplateVersion, TemplateVersion.id == Template.active_version_id)
        .where(Template.deleted_at.is_(None))
        .order_by(func.lower(Template.name))
        .execution_options(populate_existing=True)
    )


async def offers(session: AsyncSession) -> Sequence[Offer]:
    """Return all templates, by name."""
    return [Offer(*row) for row in await session.execute(_offers())]


async def get(session: AsyncSession, template_id: UUID) -> Offer | None:
    """Return a template."""
    row = (await session.execute(_offers().where(Template.id == template_id))).first()
    return Offer(*row) if row else None


async def by_name(session: AsyncSession, name: str) -> Offer | None:
    """Return the template of that name, whatever its case."""
    row = (await session.execute(_offers().where(func.lower(Template.name) == name.lower()))).first()
    return Offer(*row) if row else None


async def version(session: AsyncSession, version_id: UUID) -> TemplateVersion | None:
    """Return a version with its template, deleted or not."""
    query = select(TemplateVersion).where(TemplateVersion.id == version_id)
    return await session.scalar(query.options(joinedload(TemplateVersion.template)))


async def versions(session: AsyncSession, template_id: UUID) -> Sequence[TemplateVersion]:
    """Return the versions of a template, the oldest first."""
    query = select(TemplateVersion).where(TemplateVersion.template_id == template_id)
    return (await session.scalars(query.order_by(TemplateVersion.created_at, TemplateVersion.name))).all()


async def create(
    session: AsyncSession,
    *,
    organization_id: UUID,
    name: str,
    kind: Kind,
    content: Content,
    now: datetime,
    **values: Any,
) -> UUID:
    """Add a template with its first version; `values` are further columns. Raises IntegrityError: the name is taken."""
    template = Template(
        id=uuid4(),
        organization_id=organization_id,
        name=name,
        kind=kind.value,
        active_version_id=uuid4(),
        created_at=now,
        updated_at=now,
        **values,
    )
    session.add(template)
    await session.flush()
    session.add(_version(template.active_version_id, template.id, 1, content, now))
    await session.flush()
    return template.id


async def change(session: AsyncSession, template_id: UUID, now: datetime, **values: Any) -> None:
    """Set columns of a template. Raises IntegrityError when its new name is taken."""
    await session.execute(update(Template).where(Template.id == template_id).values(updated_at=now, **values))


async def add_version(session: AsyncSession, template_id: UUID, content: Content, now: datetime) -> UUID:
    """Add a version, from which workspaces are made from now on."""
    query = select(func.count()).select_from(TemplateVersion).where(TemplateVersion.template_id == template_id)
    count = await session.scalar(query) or 0
    added = _version(uuid4(), template_id, count + 1, content, now)
    session.add(added)
    await session.flush()
    await change(session, template_id, now, active_version_id=added.id)
    return added.id


async def delete(session: AsyncSession, template: Template, now: datetime) -> None:
    """Offer a template no more, and free its name; it stays for what was made of it."""
    await change(session, template.id, now, deleted_at=now, name=f"{template.name[:31]}~{template.id.hex}")


async def ensure(session: AsyncSession, organization_id: UUID, now: datetime) -> None:
    """Make those templates that are always there, where they are missing."""
    for name, display_name, kind, description in _BUILT_IN:
        if await by_name(session, name) is None:
            await create(
                session,
                organization_id=organization_id,
                name=name,
                kind=kind,
                content=Content(),
                now=now,
                display_name=display_name,
                description=description,
            )


def _version(version_id: UUID, template_id: UUID, number: int, content: Content, now: datetime) -> TemplateVersion:
    return TemplateVersion(
        id=version_id,
        template_id=template_id,
        name=f"v{number}",
        settings=dict(content.settings),
        agents=[one.model_dump(mode="json") for one in content.agents],
        parameters=[one.model_dump(mode="json") for one in content.parameters],
        created_at=now,
        updated_at=now,
    )
