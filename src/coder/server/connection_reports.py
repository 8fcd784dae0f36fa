"""What an agent reports of connections to its workspace, as rows of the connection log."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from coder.db import builds, logs
from coder.db.agents import Identity
from coder.db.models import ConnectionLog
from coder.server.deployment import Deployment
from coder.wire.proto import agent_pb2 as pb

_LATEST_REPORT = timedelta(days=1)
"""How much later than it happened a connection may be reported; agents keep reports while they are cut off."""
_MAX_REASON, _MAX_ADDRESS = 256, 64


async def store(deployment: Deployment, known: Identity, connection_id: UUID, report: pb.Connection) -> None:
    """Write down a reported beginning or end; other actions are nothing to write down."""
    ended = report.action == pb.Connection.DISCONNECT
    if not ended and report.action != pb.Connection.CONNECT:
        return
    when = _moment(report, deployment.clock.now())
    user_id, username = _user(deployment, known.agent.id, report) or (None, "")
    row = ConnectionLog(
        id=uuid4(),
        agent_id=known.agent.id,
        connection_id=connection_id,
        workspace_id=known.workspace.id,
        workspace_name=known.workspace.name,
        owner_id=known.owner.id,
        owner_username=known.owner.username,
        agent_name=known.agent.name,
        type=_kind(report.type),
        ip=report.ip[:_MAX_ADDRESS],
        user_id=user_id,
        username=username,
        connect_time=when,
        disconnect_time=when if ended else None,
        disconnect_reason=report.reason[:_MAX_REASON],
        exit_code=report.status_code if ended else None,
    )
    async with deployment.store.write() as session:
        await (logs.disconnected if ended else logs.connected)(session, row)
        await builds.used(session, known.workspace.id, deployment.clock.now())


def _user(deployment: Deployment, agent: UUID, report: pb.Connection) -> tuple[UUID, str] | None:
    """Return whose connection it is; those that come from our own node are of whoever has a terminal open."""
    if report.ip == deployment.node.address and report.type == pb.Connection.RECONNECTING_PTY:
        return deployment.terminals.user_at(agent)
    return deployment.introductions.user_at(report.ip)


def _kind(value: Any) -> str:
    return str(pb.Connection.Type.Name(value)).lower() if value in pb.Connection.Type.values() else "unknown"


def _moment(report: pb.Connection, now: datetime) -> datetime:
    """Return when it happened, as far as the agent can be believed."""
    try:
        told = report.timestamp.ToDatetime(now.tzinfo) if report.HasField("timestamp") else now
    except (ValueError, OverflowError):
        return now
    return min(max(told, now - _LATEST_REPORT), now)
