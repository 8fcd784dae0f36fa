"""Agents of workspaces: who they are, and what they report."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload

from coder.db.builds import newest_number
from coder.db.models import User, Workspace, WorkspaceAgent, WorkspaceBuild

MAX_REASON = 256
"""Characters kept of why a connection ended."""


@dataclass(frozen=True, slots=True)
class Identity:
    """An agent with the names around it."""

    agent: WorkspaceAgent
    workspace: Workspace
    owner: User


def _identities(condition: Any) -> Any:
    """Select agents of the latest build of living workspaces: all others are history."""
    return (
        select(WorkspaceAgent, Workspace, User)
        .join(WorkspaceBuild, WorkspaceBuild.id == WorkspaceAgent.build_id)
        .join(Workspace, Workspace.id == WorkspaceBuild.workspace_id)
        .join(User, User.id == Workspace.owner_id)
        .where(Workspace.deleted_at.is_(None), WorkspaceBuild.number == newest_number(), condition)
        .options(joinedload(WorkspaceAgent.build), joinedload(Workspace.template))
        .execution_options(populate_existing=True)
    )


async def get(session: AsyncSession, agent_id: UUID) -> Identity | None:
    """Return a living workspace's agent."""
    return await _one(session, WorkspaceAgent.id == agent_id)


async def by_token(session: AsyncSession, token_hash: bytes) -> Identity | None:
    """Return the agent whose token has this hash. Nothing is compared but hashes, so timing tells nothing."""
    return await _one(session, WorkspaceAgent.token_hash == token_hash)


async def _one(session: AsyncSession, condition: Any) -> Identity | None:
    row = (await session.execute(_identities(condition))).first()
    return Identity(*row) if row else None


async def of_workspace(session: AsyncSession, workspace_id: UUID) -> Sequence[UUID]:
    """Return the ids of all agents a workspace ever had."""
    query = select(WorkspaceAgent.id).join(WorkspaceBuild).where(WorkspaceBuild.workspace_id == workspace_id)
    return (await session.scalars(query)).all()


async def of_template(session: AsyncSession, template_id: UUID) -> Sequence[UUID]:
    """Return the ids of the agents of a template's living workspaces."""
    return [row[0].id for row in (await session.execute(_identities(Workspace.template_id == template_id))).all()]


async def change(session: AsyncSession, agent_id: UUID, now: datetime, **values: Any) -> None:
    """Set columns of an agent."""
    await session.execute(update(WorkspaceAgent).where(WorkspaceAgent.id == agent_id).values(updated_at=now, **values))


async def connected(session: AsyncSession, agent_id: UUID, now: datetime) -> None:
    """Note the start of a connection: the first one is kept for ever."""
    first = func.coalesce(WorkspaceAgent.first_connected_at, now)
    await change(session, agent_id, now, first_connected_at=first, last_connected_at=now, disconnected_at=None)


async def alive(session: AsyncSession, agent_id: UUID, now: datetime) -> None:
    """Note that a connection still answers."""
    await change(session, agent_id, now, last_connected_at=now, disconnected_at=None)


async def disconnected(session: AsyncSession, agent_id: UUID, now: datetime, reason: str = "") -> None:
    """Note the end of a connection, and why it ended."""
    await change(session, agent_id, now, disconnected_at=now, disconnect_reason=reason[:MAX_REASON])


async def renew_token(session: AsyncSession, agent_id: UUID, token_hash: bytes, now: datetime) -> None:
    """Give an agent another token; the one it had opens nothing any more."""
    await change(session, agent_id, now, token_hash=token_hash)
