"""What an agent asks with its own token: its call socket, and whether to start again."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

import structlog
from fastapi import APIRouter, WebSocket
from pydantic import AfterValidator, BaseModel, Field
from starlette.responses import StreamingResponse

from coder.db import agent_logs
from coder.rpc import server as rpc
from coder.server import agent_status, api_version, events, views
from coder.server.agent_calls import AgentCalls
from coder.server.agent_presence import INSTANCE, Monitor
from coder.server.agent_reports import AgentReports
from coder.server.asking import AskedFirst
from coder.server.auth import AgentCaller, address, agent_caller
from coder.server.channel import ServerChannel
from coder.server.deployment import Deployed
from coder.server.problems import Problem
from coder.server.sockets import MOST_OF_AGENTS, agents_of
from coder.server.tailnet_calls import TailnetCalls
from coder.server.upgrade import websocket_route

router = APIRouter(tags=["agents"], route_class=AskedFirst)
log = structlog.get_logger(__name__)


@router.get("/workspaceagents/me/reinit")
async def reinit(who: AgentCaller, deployment: Deployed) -> StreamingResponse:
    """Hold a stream open on which an agent would be told to start again; nothing here needs that, so it only pings."""
    return events.stream(deployment, events.silence(), who.agent.id)


class LogSource(BaseModel):
    """A source of lines that is no script's."""

    id: UUID
    display_name: str = Field(default="", max_length=128)
    icon: str = Field(default="", max_length=256)


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError("This is no time.") from None


class LogLine(BaseModel):
    """A line printed in the workspace."""

    created_at: Annotated[datetime, AfterValidator(_in_utc)]
    output: str
    level: Literal["trace", "debug", "info", "warn", "error"] = "info"


class LogLines(BaseModel):
    """Lines of one source."""

    log_source_id: UUID = agent_logs.EXTERNAL
    logs: list[LogLine] = Field(max_length=agent_logs.MAX_LOG_LINES)


@router.post("/workspaceagents/me/log-source", status_code=201)
async def add_log_source(wanted: LogSource, who: AgentCaller, deployment: Deployed) -> dict[str, str]:
    """Make a source of lines; making it again changes nothing."""
    now = deployment.clock.now()
    async with deployment.store.write() as session:
        made = await agent_logs.add_source(session, who.agent.id, wanted.id, wanted.display_name, wanted.icon, now)
    if not made:
        raise Problem(400, f"An agent has at most {agent_logs.MAX_SOURCES} log sources.")
    deployment.changes.announce(who.workspace.id)
    fields = {"id": str(wanted.id), "display_name": wanted.display_name, "icon": wanted.icon}
    return {"workspace_agent_id": str(who.agent.id), "created_at": views.when(now)} | fields


@router.patch("/workspaceagents/me/logs")
async def add_logs(wanted: LogLines, who: AgentCaller, deployment: Deployed) -> dict[str, str]:
    """Keep lines."""
    lines = [
        {
            "source_id": wanted.log_source_id,
            "level": each.level,
            "output": each.output.replace("\0", ""),
            "created_at": each.created_at,
        }
        for each in wanted.logs
    ]
    if not await AgentReports(deployment, who).keep(lines):
        raise Problem(413, "Logs limit exceeded", detail="No more is kept of this agent's lines.")
    return {"message": "Kept."}


@websocket_route(router, "/workspaceagents/me/rpc", agent_caller)
async def serve(websocket: WebSocket, who: AgentCaller, deployment: Deployed) -> None:
    """Serve the calls of an agent, and keep track of its connection."""
    deployment.sockets.require_room(agents_of(who.owner.id), MOST_OF_AGENTS)
    version = api_version.accept(websocket.query_params.get("version") or "2.0")
    tracked = websocket.query_params.get("role") in {None, "", "agent"}
    monitor = Monitor(deployment, who, websocket.headers.get(INSTANCE, ""), address(websocket)) if tracked else None
    calls = AgentCalls(deployment, who, version).handlers()
    introduction = TailnetCalls.of_agent(deployment, who.agent.id)
    calls |= introduction.handlers()
    bound = structlog.contextvars.bound_contextvars(agent=str(who.agent.id), workspace=who.workspace.name)
    sockets = deployment.sockets.belonging_to(who.agent.id, agents_of(who.owner.id), farewell=introduction.revoke)
    with bound, sockets:
        if monitor:
            await monitor.require_free()
        reason = ""
        try:
            await websocket.accept()
            if monitor:
                await monitor.started()
            fault = await rpc.serve(
                ServerChannel(websocket),
                calls,
                ping_every=agent_status.PING_EVERY,
                on_ping=monitor.answered if monitor else None,
                clock=deployment.clock,
                pinger=monitor.pinger if monitor else None,
            )
            reason = str(fault) if fault else "the agent ended the connection"
            log.info("agent.gone", api_version=version, fault=str(fault) if fault else None)
        except asyncio.CancelledError as ending:
            reason = str(ending)
            raise
        finally:
            if monitor:
                await monitor.ended(reason)
