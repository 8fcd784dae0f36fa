"""Agents of workspaces: who they are, and what they report."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload

from coder.db.models import AgentLog, User, Workspace, WorkspaceAgent, WorkspaceBuild


@dataclass(frozen=True, slots=True)
class Identity:
    """An agent with the names around it."""

    agent: WorkspaceAgent
    workspace: Workspace
    owner: User


def _identities(condition: Any) -> Any:
    """Select agents of the latest build of living workspaces: all others are history."""
    latest = (
        select(func.max(WorkspaceBuild.number))
        .where(WorkspaceBuild.workspace_id == Workspace.id)
        .correlate(Workspace)
        .scalar_subquery()
    )
    return (
        select(WorkspaceAgent, Workspace, User)
        .join(WorkspaceBuild, WorkspaceBuild.id == WorkspaceAgent.build_id)
        .join(Workspace, Workspace.id == WorkspaceBuild.workspace_id)
        .join(User, User.id == Workspace.owner_id)
        .where(Workspace.deleted_at.is_(None), WorkspaceBuild.number == latest, condition)
        .options(joinedload(WorkspaceAgent.build))
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


async def disconnected(session: AsyncSession, agent_id: UUID, now: datetime) -> None:
    """Note the end of a connection."""
    await change(session, agent_id, now, disconnected_at=now)


LOGS = "logs"
"""What changes when an agent prints; a subject of announcements together with the agent's id."""
MAX_LOG_BYTES = 1 << 20
"""Bytes kept of what one agent printed, each line with the space it takes beside its text."""
LOG_LINE_BYTES = 64
"""That space."""
MAX_LOG_LINES = MAX_LOG_BYTES // LOG_LINE_BYTES
"""Lines that can be kept of one agent, if they are all empty."""


async def add_logs(session: AsyncSession, agent_id: UUID, lines: Sequence[dict[str, Any]], now: datetime) -> bool:
    """Keep lines an agent printed, given as the other columns of `AgentLog`.

    Returns False, and keeps none of them, when they exceed what is kept of an agent.
    """
    size = sum(len(line["output"].encode()) + LOG_LINE_BYTES for line in lines)
    before = await session.scalar(select(WorkspaceAgent.logs_length).where(WorkspaceAgent.id == agent_id)) or 0
    if before + size > MAX_LOG_BYTES:
        await overflow_logs(session, agent_id, now)
        return False
    if lines:
        await session.execute(insert(AgentLog), [line | {"agent_id": agent_id} for line in lines])
    await change(session, agent_id, now, logs_length=before + size)
    return True


async def overflow_logs(session: AsyncSession, agent_id: UUID, now: datetime) -> None:
    """Note that an agent printed more than is kept."""
    await change(session, agent_id, now, logs_overflowed=True)


async def logs_after(session: AsyncSession, agent_id: UUID, after: int) -> Sequence[AgentLog]:
    """Return an agent's lines after the one of that number, in order."""
    query = select(AgentLog).where(AgentLog.agent_id == agent_id, AgentLog.id > after).order_by(AgentLog.id)
    return (await session.scalars(query)).all()
