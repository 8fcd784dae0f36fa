"""What agents report of the things their manifest lists: values of metadata, health of apps, runs of scripts."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from coder.db.agents import change
from coder.db.models import AgentMetadatum, WorkspaceAgent

METADATA = "metadata"
"""What changes when an agent reports metadata; a subject of announcements together with the agent's id."""


async def set_metadata(session: AsyncSession, agent_id: UUID, found: Sequence[dict[str, Any]]) -> None:
    """Keep values, given as the other columns of `AgentMetadatum`; of a key only the latest."""
    keys = [each["key"] for each in found]
    mine = AgentMetadatum.agent_id == agent_id
    await session.execute(delete(AgentMetadatum).where(mine, AgentMetadatum.key.in_(keys)))
    if found:
        await session.execute(insert(AgentMetadatum), [each | {"agent_id": agent_id} for each in found])


async def metadata(session: AsyncSession, agent_id: UUID) -> dict[str, AgentMetadatum]:
    """Return an agent's values by key."""
    rows = await session.scalars(select(AgentMetadatum).where(AgentMetadatum.agent_id == agent_id))
    return {row.key: row for row in rows}


async def set_app_health(session: AsyncSession, agent_id: UUID, healths: Mapping[UUID, str], now: datetime) -> bool:
    """Note how apps are; return whether that is news. Apps the agent does not have are passed over."""
    apps = await session.scalar(select(WorkspaceAgent.apps).where(WorkspaceAgent.id == agent_id)) or []
    told = {str(app): health for app, health in healths.items()}
    changed = [each | {"health": told[each["id"]]} if each["id"] in told else each for each in apps]
    if changed == apps:
        return False
    await change(session, agent_id, now, apps=changed)
    return True


async def set_last_run(
    session: AsyncSession, agent_id: UUID, script: UUID, run: Mapping[str, Any], now: datetime
) -> bool:
    """Note how the latest run of a script went; return whether the agent has that script."""
    scripts = await session.scalar(select(WorkspaceAgent.scripts).where(WorkspaceAgent.id == agent_id)) or []
    if all(each["id"] != str(script) for each in scripts):
        return False
    changed = [each | {"last_run": dict(run)} if each["id"] == str(script) else each for each in scripts]
    await change(session, agent_id, now, scripts=changed)
    return True
