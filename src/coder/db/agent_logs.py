"""What agents and their scripts printed: kept up to a bound for each agent."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, exists, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from coder.db.agents import change
from coder.db.models import AgentLog, Workspace, WorkspaceAgent, WorkspaceBuild

LOGS = "logs"
"""What changes when an agent prints; a subject of announcements together with the agent's id."""
MAX_LOG_BYTES = 1 << 20
"""Bytes kept of what one agent printed, each line with the space it takes beside its text."""
LOG_LINE_BYTES = 64
"""That space."""
MAX_LOG_LINES = MAX_LOG_BYTES // LOG_LINE_BYTES
"""Lines that can be kept of one agent, if they are all empty."""
EXTERNAL = UUID("3b579bf4-1ed8-4b99-87a8-e9a1e3410410")
"""Source of lines that name none; the protocol's number."""
MAX_SOURCES = 64
"""Log sources an agent may make for itself."""


async def add(session: AsyncSession, agent_id: UUID, lines: Sequence[dict[str, Any]], now: datetime) -> bool:
    """Keep lines an agent printed, given as the other columns of `AgentLog`.

    Returns False, and keeps none of them, when they exceed what is kept of an agent.
    """
    size = sum(len(line["output"].encode()) + LOG_LINE_BYTES for line in lines)
    before = await session.scalar(select(WorkspaceAgent.logs_length).where(WorkspaceAgent.id == agent_id)) or 0
    if before + size > MAX_LOG_BYTES:
        await overflow(session, agent_id, now)
        return False
    if lines:
        await session.execute(insert(AgentLog), [line | {"agent_id": agent_id} for line in lines])
        if any(line["source_id"] == EXTERNAL for line in lines):
            await add_source(session, agent_id, EXTERNAL, "External", "/emojis/1f310.png", now)
    await change(session, agent_id, now, logs_length=before + size)
    return True


async def overflow(session: AsyncSession, agent_id: UUID, now: datetime) -> None:
    """Note that an agent printed more than is kept."""
    await change(session, agent_id, now, logs_overflowed=True)


async def add_source(  # noqa: PLR0917
    session: AsyncSession, agent_id: UUID, source: UUID, name: str, icon: str, now: datetime
) -> bool:
    """Note a log source that is no script's, once. Returns False when there are too many."""
    query = select(WorkspaceAgent.log_sources).where(WorkspaceAgent.id == agent_id)
    known = await session.scalar(query) or []
    if any(each["id"] == str(source) for each in known):
        return True
    if len(known) >= MAX_SOURCES:
        return False
    made = {"id": str(source), "display_name": name, "icon": icon, "created_at": now.isoformat()}
    await change(session, agent_id, now, log_sources=[*known, made])
    return True


async def between(
    session: AsyncSession, agent_id: UUID, *, after: int = 0, before: int | None = None
) -> Sequence[AgentLog]:
    """Return an agent's lines after the one of that number, and before the other, in order."""
    query = select(AgentLog).where(AgentLog.agent_id == agent_id, AgentLog.id > after)
    if before is not None:
        query = query.where(AgentLog.id < before)
    return (await session.scalars(query.order_by(AgentLog.id))).all()


async def forget_replaced(session: AsyncSession) -> None:
    """Forget what agents printed that have successors, or whose workspace is deleted: nobody can ask for it."""
    later, successor = aliased(WorkspaceBuild), aliased(WorkspaceAgent)
    has_successor = exists().where(
        successor.build_id == later.id,
        later.workspace_id == WorkspaceBuild.workspace_id,
        later.number > WorkspaceBuild.number,
    )
    replaced = (
        select(WorkspaceAgent.id)
        .join(WorkspaceAgent.build)
        .join(WorkspaceBuild.workspace)
        .where(or_(Workspace.deleted_at.is_not(None), has_successor))
    )
    forgotten = delete(AgentLog).where(AgentLog.agent_id.in_(replaced))
    await session.execute(forgotten.execution_options(synchronize_session=False))
