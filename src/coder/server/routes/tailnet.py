"""The sockets of clients: introductions to agents, and the DERP map."""

from collections.abc import AsyncIterator, Hashable
from uuid import UUID, uuid4

import structlog
from fastapi import APIRouter, WebSocket
from sqlalchemy.exc import SQLAlchemyError

from coder.access import tunnels
from coder.access.roles import Action
from coder.rpc import server as rpc
from coder.server import api_version, feeds
from coder.server.auth import Caller, SignedIn, caller
from coder.server.channel import ServerChannel
from coder.server.deployment import Deployed, Deployment
from coder.server.problems import DATABASE_UNREACHABLE, RESUME_FIELD, Problem
from coder.server.rechecks import rechecked
from coder.server.routes.agents import visible
from coder.server.sockets import MOST_OF_USER
from coder.server.tailnet_calls import TailnetCalls
from coder.server.upgrade import websocket_route
from coder.tailnet.resume import InvalidResumeToken

router = APIRouter(tags=["agents"])
log = structlog.get_logger(__name__)


@websocket_route(router, "/workspaceagents/{agent}/coordinate", caller)
async def coordinate(websocket: WebSocket, agent: UUID, who: SignedIn, deployment: Deployed) -> None:
    """Introduce a client to this agent: the Tailnet service, with a tunnel to this agent only."""
    await _require_database(deployment)
    found = await visible(deployment, who, agent, Action.CONNECT)
    _require_tunnels(deployment, who, template=found.workspace.template.browser_only)
    version = api_version.accept(websocket.query_params.get("version") or "1.0")
    peer = _resumed(deployment, who, websocket.query_params.get(RESUME_FIELD))
    calls = TailnetCalls.of_client(deployment, peer, agent, who.user.id)
    await _serve(websocket, deployment, who, calls, version, agent, found.owner.id)


@websocket_route(router, "/tailnet", caller)
async def tailnet(websocket: WebSocket, who: SignedIn, deployment: Deployed) -> None:
    """Introduce a client to all agents its user may reach: the Tailnet service, with news of the user's workspaces."""
    await _require_database(deployment)
    _require_tunnels(deployment, who)
    version = api_version.accept(websocket.query_params.get("version") or "2.0")
    peer = _resumed(deployment, who, websocket.query_params.get(RESUME_FIELD))
    await _serve(websocket, deployment, who, TailnetCalls.of_user(deployment, peer, who), version)


def _require_tunnels(deployment: Deployment, who: Caller, *, template: bool = False) -> None:
    """Raise Problem (409, final for clients) unless the caller may have tunnels."""
    everybody = deployment.settings.http.browser_only
    if reason := tunnels.browser_only(everybody=everybody, user=who.user.browser_only, template=template):
        raise Problem(409, reason, detail=tunnels.REMEDY)


async def _serve(
    websocket: WebSocket, deployment: Deployment, who: Caller, calls: TailnetCalls, version: str, *owners: Hashable
) -> None:
    deployment.sockets.require_room(who.user.id, MOST_OF_USER)
    bound = structlog.contextvars.bound_contextvars(peer=str(calls.peer), user=who.user.username)
    sockets = deployment.sockets.belonging_to(who.user.id, who.key.id, *owners, farewell=calls.revoke)
    known = deployment.introductions.of_user(calls.peer, who.user.id, who.user.username)
    with bound, sockets, known, rechecked(deployment, who):
        await websocket.accept()
        fault = await rpc.serve(ServerChannel(websocket), calls.handlers(), clock=deployment.clock)
        log.info("client.gone", api_version=version, fault=str(fault) if fault else None)


def _resumed(deployment: Deployment, who: Caller, token: str | None) -> UUID:
    """Return the peer id that a resume token stands for, or a fresh one. Raises Problem (401), known by its field."""
    if not token:
        return uuid4()
    try:
        return deployment.resume.peer(token, deployment.clock.now(), who.user.id) or uuid4()
    except InvalidResumeToken as refusal:
        message = "The resume token is not valid."
        raise Problem(401, message, detail=str(refusal), validations=[(RESUME_FIELD, message)]) from None


async def _require_database(deployment: Deployment) -> None:
    try:
        await deployment.store.ping()
    except SQLAlchemyError:
        raise Problem(500, DATABASE_UNREACHABLE) from None


@websocket_route(router, "/derp-map", caller)
async def derp_map(websocket: WebSocket, who: SignedIn, deployment: Deployed) -> None:
    """Send the DERP map as JSON, now and whenever it changes."""
    with deployment.sockets.belonging_to(who.user.id, who.key.id), rechecked(deployment, who):
        await websocket.accept()
        await feeds.send(websocket, _maps(deployment))


async def _maps(deployment: Deployment) -> AsyncIterator[bytes]:
    async for _ in deployment.maps.each():
        yield deployment.maps.json_text().encode() + b"\n"
