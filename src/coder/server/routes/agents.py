"""Agents as their users see them: state, how to connect, what they printed."""

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request, WebSocket

from coder.access.roles import Action, Resource
from coder.db import agents
from coder.db.models import AgentLog
from coder.server import agent_status, feeds, views
from coder.server.auth import Caller, SignedIn
from coder.server.deployment import Deployed, Deployment
from coder.server.problems import Problem, not_found, upgrade_required
from coder.server.rechecks import rechecked
from coder.server.surroundings import of_agents

router = APIRouter(tags=["agents"])


async def visible(deployment: Deployment, who: Caller, agent_id: UUID, action: Action = Action.READ) -> agents.Identity:
    """Return an agent with which the caller may do that. Raises Problem (403, 404)."""
    async with deployment.store.read() as session:
        found = await agents.get(session, agent_id)
    if found is None:
        raise not_found()
    who.require(action, Resource.WORKSPACE, found.owner.id)
    return found


def _connection_info(deployment: Deployment) -> views.Json:
    settings = deployment.settings
    info = {
        "derp_map": deployment.maps.json(),
        "derp_force_websockets": settings.derp.force_websockets,
        "disable_direct_connections": settings.derp.block_direct,
    }
    suffix = settings.client.hostname_suffix
    return {**info, "hostname_suffix": suffix} if suffix else info


@router.get("/workspaceagents/connection")
async def any_connection(_who: SignedIn, deployment: Deployed) -> views.Json:
    """Say how one connects to agents: the relays, and what is allowed."""
    return _connection_info(deployment)


@router.get("/workspaceagents/{agent}/connection")
async def connection(agent: UUID, who: SignedIn, deployment: Deployed) -> views.Json:
    """Say how one connects to this agent."""
    await visible(deployment, who, agent)
    return _connection_info(deployment)


@router.get("/workspaceagents/{agent}")
async def show(agent: UUID, who: SignedIn, deployment: Deployed) -> views.Json:
    """Show an agent."""
    found = await visible(deployment, who, agent)
    return views.agent(found.agent, found.agent.build.resource_id, of_agents(deployment, [agent]))


@router.get("/workspaceagents/{agent}/logs")
async def logs(
    agent: UUID, who: SignedIn, deployment: Deployed, request: Request, after: int = 0
) -> list[dict[str, Any]]:
    """List what the agent and its scripts printed. With `follow` it is a WebSocket."""
    await visible(deployment, who, agent)
    if "follow" in request.query_params:
        raise upgrade_required()
    async with deployment.store.read() as session:
        return [_line(row) for row in await agents.logs_after(session, agent, after)]


@router.websocket("/workspaceagents/{agent}/logs")
async def follow_logs(websocket: WebSocket, agent: UUID, who: SignedIn, deployment: Deployed, after: int = 0) -> None:
    """Send what the agent and its scripts printed, and what they print from now on: an array of lines each message."""
    found = await visible(deployment, who, agent)
    sockets = deployment.sockets.belonging_to(agent, who.user.id, who.key.id, found.owner.id)
    with sockets, rechecked(deployment, who):
        await websocket.accept()
        await feeds.send(websocket, _lines(deployment, agent, after))


async def _lines(deployment: Deployment, agent: UUID, after: int) -> AsyncIterator[str]:
    with deployment.changes.watch((agents.LOGS, agent)) as changed:
        while True:
            async with deployment.store.read() as session:
                rows = await agents.logs_after(session, agent, after)
            if rows:
                after = rows[-1].id
                yield json.dumps([_line(row) for row in rows], separators=(",", ":"))
            await changed.wait()
            changed.clear()


def _line(row: AgentLog) -> dict[str, Any]:
    return {
        "id": row.id,
        "created_at": views.when(row.created_at),
        "output": row.output,
        "level": row.level,
        "source_id": str(row.source_id),
    }


@router.get("/workspaceagents/{agent}/listening-ports")
async def listening_ports(agent: UUID, who: SignedIn, deployment: Deployed) -> None:
    """Refuse: this server has no node of its own yet, so it cannot ask the agent."""
    await _require_connected(deployment, who, agent)
    raise Problem(501, "This server does not ask agents for their ports.", detail="Use `coder port-forward` or `ssh`.")


@router.get("/workspaceagents/{agent}/containers")
async def containers(agent: UUID, who: SignedIn, deployment: Deployed) -> None:
    """Refuse: dev containers are not offered."""
    await _require_connected(deployment, who, agent)
    raise Problem(403, "Dev containers are not offered by this server.", detail="Run them on the machine itself.")


async def _require_connected(deployment: Deployment, who: Caller, agent_id: UUID) -> None:
    found = await visible(deployment, who, agent_id)
    state = agent_status.status(found.agent, deployment.clock.now())
    if state is not agent_status.Status.CONNECTED:
        raise Problem(400, f"The agent is {state.value}; it must be connected to be asked.")
