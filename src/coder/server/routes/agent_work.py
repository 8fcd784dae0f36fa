"""What goes on in a workspace, for its users: what is printed, metadata, and the token its agent signs in with."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, WebSocket
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from coder.access import tokens
from coder.access.roles import Action
from coder.db import agent_logs, agent_reports, agents
from coder.db.models import AgentLog
from coder.server import agent_views, audit, events, feeds, views
from coder.server.auth import Caller, SignedIn, caller
from coder.server.deployment import Deployed, Deployment
from coder.server.problems import Json, upgrade_required
from coder.server.rechecks import rechecked
from coder.server.routes.agents import visible
from coder.server.upgrade import websocket_route

router = APIRouter(tags=["agents"])

METADATA_PACE = 1.0
"""Seconds between two messages with metadata, at least."""

Number = Annotated[int, Query(ge=0, lt=1 << 63)]


@router.get("/workspaceagents/{agent}/logs")
async def logs(  # noqa: PLR0917
    agent: UUID,
    who: SignedIn,
    deployment: Deployed,
    request: Request,
    after: Number = 0,
    before: Number = 0,
    format: Literal["json", "text"] = "json",  # noqa: A002 - the protocol's name
) -> Response:
    """List what the agent and its scripts printed. With `follow` it is a WebSocket."""
    found = await visible(deployment, who, agent)
    if "follow" in request.query_params:
        raise upgrade_required()
    async with deployment.store.read() as session:
        rows = await agent_logs.between(session, agent, after=after, before=before or None)
    if format == "text":
        names = agent_views.source_names(found.agent)
        return PlainTextResponse("".join(_text(row, names.get(row.source_id, "")) for row in rows))
    return Json(_lines(rows))


@router.websocket("/workspaceagents/{agent}/logs")
async def follow_logs(  # noqa: PLR0917
    websocket: WebSocket, agent: UUID, who: SignedIn, deployment: Deployed, after: Number = 0, before: Number = 0
) -> None:
    """Send what the agent and its scripts printed, and what they print from now on: an array of lines each message."""
    found = await visible(deployment, who, agent)
    sockets = deployment.sockets.belonging_to(agent, who.user.id, who.key.id, found.owner.id)
    with sockets, rechecked(deployment, who):
        await websocket.accept()
        await feeds.send(websocket, _follow(deployment, agent, after, before))


async def _follow(deployment: Deployment, agent: UUID, after: int, before: int) -> AsyncIterator[str]:
    with deployment.changes.watch((agent_logs.LOGS, agent)) as changed:
        while not before or after + 1 < before:
            async with deployment.store.read() as session:
                rows = await agent_logs.between(session, agent, after=after, before=before or None)
            if rows:
                after = rows[-1].id
                yield json.dumps(_lines(rows), separators=(",", ":"))
            await changed.wait()
            changed.clear()


def _lines(rows: Sequence[AgentLog]) -> list[dict[str, Any]]:
    return [
        {
            "id": row.id,
            "created_at": views.when(row.created_at),
            "output": row.output,
            "level": row.level,
            "source_id": str(row.source_id),
        }
        for row in rows
    ]


def _text(row: AgentLog, source: str) -> str:
    return f"{views.when(row.created_at)} [{row.level}] {f'[{source}] ' if source else ''}{row.output}\n"


@router.get("/workspaceagents/{agent}/watch-metadata")
async def watch_metadata(agent: UUID, who: SignedIn, deployment: Deployed) -> StreamingResponse:
    """Stream an agent's metadata as server-sent events: now, and after each change."""
    found = await visible(deployment, who, agent)
    return events.stream(deployment, _metadata(deployment, found, who), agent, who.user.id, who.key.id)


@websocket_route(router, "/workspaceagents/{agent}/watch-metadata-ws", caller)
async def watch_metadata_by_websocket(websocket: WebSocket, agent: UUID, who: SignedIn, deployment: Deployed) -> None:
    """Send the same as text messages of a WebSocket."""
    found = await visible(deployment, who, agent)
    await events.feed(deployment, websocket, _metadata(deployment, found, who), agent, who.user.id, who.key.id)


async def _metadata(deployment: Deployment, found: agents.Identity, who: Caller) -> AsyncIterator[Any]:
    agent = found.agent
    with deployment.changes.watch((agent_reports.METADATA, agent.id)) as changed, rechecked(deployment, who):
        while True:
            async with deployment.store.read() as session:
                values = await agent_reports.metadata(session, agent.id)
            yield agent_views.metadata(agent, values, deployment.clock.now())
            await changed.wait()
            await deployment.clock.sleep(METADATA_PACE)
            changed.clear()


@router.post("/workspaceagents/{agent}/token", status_code=201)
async def renew_token(agent: UUID, who: SignedIn, deployment: Deployed) -> views.Json:
    """Give an agent another token, shown this once. The old one opens nothing any more; who used it is cut off."""
    found = await visible(deployment, who, agent, Action.UPDATE)
    audit.about(found.workspace.id, found.workspace.name)
    audit.detail(f"token of agent {found.agent.name} renewed")
    token = tokens.new_agent_token()
    async with deployment.store.write() as session:
        await agents.renew_token(session, agent, tokens.hash_agent_token(token), deployment.clock.now())
    deployment.sockets.end(agent, "the token was renewed")
    return {"agent_id": str(agent), "agent_token": str(token)}
