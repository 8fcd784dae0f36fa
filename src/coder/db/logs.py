"""The audit log and the connection log: written, searched, and kept from growing without end."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from coder.db.models import AuditLog, ConnectionLog

MAX_AUDIT_ROWS = 1_000_000
"""Most entries of the audit log, some 300 MB; beyond that the oldest go, whatever the retention."""
MAX_CONNECTIONS_OF_AGENT = 10_000
"""Most connections kept of one agent, so that none can fill the disk or push out the records of others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSearch:
    """Conditions an entry meets. None: any."""

    username: str | None = None
    action: str | None = None
    resource_type: str | None = None
    resource_id: str | None = None
    resource_target: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    success: bool | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return them for the database."""
        found = _equal(AuditLog, self, ("username", "action", "resource_type", "resource_id", "resource_target"))
        found += _between(AuditLog.time, self.since, self.until)
        if self.success is not None:
            found.append(AuditLog.status_code < 400 if self.success else AuditLog.status_code >= 400)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSearch:
    """Conditions a connection meets. None: any."""

    owner_id: UUID | None = None
    owner_username: str | None = None
    workspace_id: UUID | None = None
    workspace_name: str | None = None
    agent_name: str | None = None
    username: str | None = None
    type: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    ongoing: bool | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return them for the database."""
        names = ("owner_id", "owner_username", "workspace_id", "workspace_name", "agent_name", "username", "type")
        found = _equal(ConnectionLog, self, names) + _between(ConnectionLog.connect_time, self.since, self.until)
        if self.ongoing is not None:
            ended = ConnectionLog.disconnect_time
            found.append(ended.is_(None) if self.ongoing else ended.is_not(None))
        return found


def _equal(table: Any, search: Any, names: Sequence[str]) -> list[ColumnElement[bool]]:
    wanted = {name: getattr(search, name) for name in names}
    return [
        func.lower(getattr(table, name)) == value.lower() if isinstance(value, str) else getattr(table, name) == value
        for name, value in wanted.items()
        if value is not None
    ]


def _between(column: Any, since: datetime | None, until: datetime | None) -> list[ColumnElement[bool]]:
    return ([column >= since] if since else []) + ([column < until] if until else [])


async def audit(
    session: AsyncSession, search: AuditSearch, *, limit: int, offset: int
) -> tuple[Sequence[AuditLog], int]:
    """Return entries, the newest first, and how many there are in all."""
    conditions = search.conditions()
    query = select(AuditLog).where(*conditions).order_by(AuditLog.time.desc(), AuditLog.id)
    count = await session.scalar(select(func.count()).select_from(AuditLog).where(*conditions))
    return (await session.scalars(query.limit(limit).offset(offset))).all(), count or 0


async def connections(
    session: AsyncSession, search: ConnectionSearch, *, limit: int, offset: int
) -> tuple[Sequence[ConnectionLog], int]:
    """Return connections, the newest first, and how many there are in all."""
    conditions = search.conditions()
    query = select(ConnectionLog).where(*conditions).order_by(ConnectionLog.connect_time.desc(), ConnectionLog.id)
    count = await session.scalar(select(func.count()).select_from(ConnectionLog).where(*conditions))
    return (await session.scalars(query.limit(limit).offset(offset))).all(), count or 0


async def connected(session: AsyncSession, row: ConnectionLog) -> None:
    """Note a connection, once. Of an agent with too many the oldest goes."""
    if await _reported(session, row.agent_id, row.connection_id) is not None:
        return
    of_agent = ConnectionLog.agent_id == row.agent_id
    count = await session.scalar(select(func.count()).select_from(ConnectionLog).where(of_agent)) or 0
    if (excess := count + 1 - MAX_CONNECTIONS_OF_AGENT) > 0:
        oldest = select(ConnectionLog.id).where(of_agent).order_by(ConnectionLog.connect_time).limit(excess)
        await session.execute(delete(ConnectionLog).where(ConnectionLog.id.in_(oldest)))
    session.add(row)
    await session.flush()


async def disconnected(session: AsyncSession, row: ConnectionLog) -> None:
    """Note a connection's end with what `row` says of it; the beginning too if that was not reported."""
    known = await _reported(session, row.agent_id, row.connection_id)
    if known is None:
        await connected(session, row)
        return
    values = {name: getattr(row, name) for name in ("disconnect_time", "disconnect_reason", "exit_code")}
    same = ConnectionLog.id == known
    await session.execute(update(ConnectionLog).where(same, ConnectionLog.disconnect_time.is_(None)).values(values))


async def _reported(session: AsyncSession, agent_id: UUID, connection_id: UUID) -> UUID | None:
    same = (ConnectionLog.agent_id == agent_id, ConnectionLog.connection_id == connection_id)
    return await session.scalar(select(ConnectionLog.id).where(*same))


async def prune(session: AsyncSession, now: datetime, *, audit_for: timedelta, connections_for: timedelta) -> None:
    """Forget what is older than it shall be kept; a time of 0 keeps everything up to the bounds above."""
    if audit_for:
        await session.execute(delete(AuditLog).where(AuditLog.time < now - audit_for))
    if connections_for:
        await session.execute(delete(ConnectionLog).where(ConnectionLog.connect_time < now - connections_for))
    oldest = select(AuditLog.time).order_by(AuditLog.time.desc()).offset(MAX_AUDIT_ROWS).limit(1)
    if (bound := await session.scalar(oldest)) is not None:
        await session.execute(delete(AuditLog).where(AuditLog.time <= bound))
