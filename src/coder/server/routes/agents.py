"""Agents as their users see them: state, how to connect, and the coordinate socket."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import structlog
from fastapi import APIRouter, WebSocket
from sqlalchemy.exc import SQLAlchemyError

from coder.db import agents
from coder.rpc import server as rpc
from coder.server import agent_status, api_version, views
from coder.server.auth import Caller, SignedIn, still_valid
from coder.server.channel import ServerChannel
from coder.server.deployment import Deployed, Deployment
from coder.server.problems import DATABASE_UNREACHABLE, RESUME_FIELD, Problem, not_found
from coder.server.surroundings import of_agents
from coder.server.tailnet_calls import TailnetCalls
from coder.tailnet.resume import InvalidResumeToken

router = APIRouter(tags=["agents"])
log = structlog.get_logger(__name__)

RECHECK_EVERY = 60.0
"""Seconds between looks at whether the user of an open socket may still have it."""


async def visible(deployment: Deployment, who: Caller, agent_id: UUID) -> agents.Identity:
    """Return an agent that the caller may see. Raises Problem (404)."""
    async with deployment.store.read() as session:
        found = await agents.get(session, agent_id)
    if found is None or (found.owner.id != who.user.id and not who.is_owner):
        raise not_found()
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
async def logs(agent: UUID, who: SignedIn, deployment: Deployed, after: int = 0) -> list[dict[str, Any]]:
    """List what the agent and its scripts printed."""
    await visible(deployment, who, agent)
    async with deployment.store.read() as session:
        rows = await agents.logs_after(session, agent, after)
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


@router.websocket("/workspaceagents/{agent}/coordinate")
async def coordinate(websocket: WebSocket, agent: UUID, who: SignedIn, deployment: Deployed) -> None:
    """Introduce a client to this agent: the Tailnet service, with a tunnel to this agent only."""
    await _require_database(deployment)
    found = await visible(deployment, who, agent)
    version = api_version.accept(websocket.query_params.get("version") or "1.0")
    peer = _resumed(deployment, websocket.query_params.get(RESUME_FIELD))
    calls = TailnetCalls.of_client(deployment, peer, agent)
    bound = structlog.contextvars.bound_contextvars(peer=str(peer), user=who.user.username)
    with bound, deployment.sockets.belonging_to(agent, who.user.id, who.key.id, found.owner.id):
        await websocket.accept()
        watching = asyncio.create_task(_recheck(deployment, who))
        try:
            fault = await rpc.serve(ServerChannel(websocket), calls.handlers(), clock=deployment.clock)
            log.info("client.gone", agent=str(agent), api_version=version, fault=str(fault) if fault else None)
        finally:
            watching.cancel()


def _resumed(deployment: Deployment, token: str | None) -> UUID:
    """Return the peer id that a resume token stands for, or a fresh one. Raises Problem (401), known by its field."""
    if not token:
        return uuid4()
    try:
        return deployment.resume.peer(token, deployment.clock.now()) or uuid4()
    except InvalidResumeToken as refusal:
        message = "The resume token is not valid."
        raise Problem(401, message, detail=str(refusal), validations=[(RESUME_FIELD, message)]) from None


async def _require_database(deployment: Deployment) -> None:
    try:
        await deployment.store.ping()
    except SQLAlchemyError:
        raise Problem(500, DATABASE_UNREACHABLE) from None


async def _recheck(deployment: Deployment, who: Caller) -> None:
    """End the caller's sockets when their session has ended or they have been suspended."""
    while True:
        await deployment.clock.sleep(RECHECK_EVERY)
        if not await still_valid(deployment, who):
            deployment.sockets.end(who.key.id, "session ended")


@router.websocket("/derp-map")
async def derp_map(websocket: WebSocket, who: SignedIn, deployment: Deployed) -> None:
    """Send the DERP map as JSON, now and whenever it changes."""
    channel = ServerChannel(websocket)
    with deployment.sockets.belonging_to(who.user.id, who.key.id):
        await websocket.accept()
        sending = asyncio.create_task(_send_maps(deployment, channel))
        try:
            while await channel.recv() is not None:
                pass
        finally:
            sending.cancel()
    await channel.close()


async def _send_maps(deployment: Deployment, channel: ServerChannel) -> None:
    async for _ in deployment.maps.each():
        await channel.send(deployment.maps.json_text().encode() + b"\n")
