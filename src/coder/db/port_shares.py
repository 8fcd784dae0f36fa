"""Shared ports."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import delete as delete_from
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from coder.db.models_ports import PortShare


async def of_workspace(session: AsyncSession, workspace_id: UUID) -> Sequence[PortShare]:
    """Return a workspace's shared ports, by port and agent."""
    query = select(PortShare).where(PortShare.workspace_id == workspace_id)
    return (await session.scalars(query.order_by(PortShare.port, PortShare.agent_name))).all()


async def level(session: AsyncSession, workspace_id: UUID, agent_name: str, port: int) -> str | None:
    """Return with whom a port is shared; None: with nobody."""
    found = await session.get(PortShare, (workspace_id, agent_name, port))
    return found.share_level if found else None


async def put(session: AsyncSession, share: PortShare) -> None:
    """Share a port, or share it otherwise."""
    await session.merge(share)


async def delete(session: AsyncSession, workspace_id: UUID, agent_name: str, port: int) -> bool:
    """End the sharing of a port; False: it was not shared."""
    query = delete_from(PortShare).where(
        PortShare.workspace_id == workspace_id, PortShare.agent_name == agent_name, PortShare.port == port
    )
    return bool((await session.execute(query.returning(PortShare.port))).all())
