"""The network as pages show it: the ways to an agent, how fast a browser's is, and whether the deployment is well."""

import json
import os
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from coder.access.roles import Action, Resource
from coder.clock import Clock
from coder.server import health, health_probes, ways
from coder.server.auth import ANYONE, SignedIn, anyone, caller
from coder.server.deployment import Deployed
from coder.server.problems import not_found
from coder.server.routes.agents import visible
from coder.server.upgrade import websocket_route
from coder.server.views import Json

router = APIRouter(tags=["network"])

SPEEDTEST_SECONDS = 4.0
"""How long one direction of a speed test takes."""
_PIECE = 64 * 1024
_TELL_EVERY = 0.25
_GOING_AWAY = 1013  # RFC 6455 and its registry: try again later


@router.get("/workspaceagents/{agent}/network")
async def network(agent: UUID, who: SignedIn, deployment: Deployed) -> Json:
    """Show the ways to an agent: its relays and how far they are, and who is introduced to it."""
    await visible(deployment, who, agent)
    return ways.of_agent(deployment, agent)


@router.get("/debug/health")
async def health_report(who: SignedIn, deployment: Deployed, force: bool = False) -> Json:
    """Report on the parts of the deployment, with what helps where something is wrong. For its owners."""
    if not who.may(Action.READ, Resource.DEPLOYMENT):
        raise not_found()
    return health.report(await health_probes.probe(deployment, force=force))


_ECHOES, _LONGEST_ECHO = 3, 1024


@websocket_route(router, "/debug/ws", anyone)
async def echo(websocket: WebSocket, _anyone: Annotated[None, ANYONE]) -> None:
    """Send the first three messages back, then close: shows that a WebSocket passes all the way to this server."""
    await websocket.accept()
    try:
        for _ in range(_ECHOES):
            await websocket.send_text((await websocket.receive_text())[:_LONGEST_ECHO])
        await websocket.close()
    except (WebSocketDisconnect, KeyError):  # gone, or no text
        pass


@websocket_route(router, "/speedtest", caller)
async def speedtest(
    websocket: WebSocket, who: SignedIn, deployment: Deployed, direction: Literal["down", "up"] = "down"
) -> None:
    """Carry bytes one way for a few seconds, so that a page can show its throughput. One at a time for each user."""
    running = deployment.speedtests
    await websocket.accept()
    if who.user.id in running:
        await websocket.close(_GOING_AWAY, "another speed test of yours is running")
        return
    running.add(who.user.id)
    try:
        with deployment.sockets.belonging_to(who.user.id, who.key.id):
            await (_send if direction == "down" else _receive)(websocket, deployment.clock)
            await websocket.close()
    except WebSocketDisconnect:
        pass
    finally:
        running.discard(who.user.id)


async def _send(websocket: WebSocket, clock: Clock) -> None:
    piece, end = os.urandom(_PIECE), clock.monotonic() + SPEEDTEST_SECONDS
    while clock.monotonic() < end:
        await websocket.send_bytes(piece)
        await clock.sleep(0)  # others get their turn


async def _receive(websocket: WebSocket, clock: Clock) -> None:
    """Take what comes and tell now and then how much it was."""
    now = clock.monotonic()
    end, tell, count = now + SPEEDTEST_SECONDS, now + _TELL_EVERY, 0
    while now < end:
        count += len(await websocket.receive_bytes())
        now = clock.monotonic()
        if now >= tell:
            tell = now + _TELL_EVERY
            await websocket.send_text(json.dumps({"bytes": count}))
    await websocket.send_text(json.dumps({"bytes": count}))
