"""The network as pages show it: the ways to an agent, how fast a browser's is, and whether the deployment is well."""

import asyncio
import json
import os
from contextlib import suppress
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from coder.access.roles import Action, Resource
from coder.clock import Clock
from coder.dataplane.engine import SpeedtestResult
from coder.server import agent_status, health, health_probes, ways
from coder.server.auth import ANYONE, SignedIn, anyone, caller
from coder.server.channel import ServerChannel
from coder.server.deployment import Deployed
from coder.server.problems import Problem, not_found
from coder.server.routes.agents import visible
from coder.server.upgrade import websocket_route
from coder.server.views import Json

router = APIRouter(tags=["network"])

SPEEDTEST_SECONDS = 4.0
"""How long one direction of a speed test takes."""
AGENT_SECONDS = 3.0
"""… and one between server and agent."""
_PIECE = 64 * 1024
_TELL_EVERY = 0.25
_GOING_AWAY = 1013  # RFC 6455 and its registry: try again later


@router.get("/workspaceagents/{agent}/network")
async def network(agent: UUID, who: SignedIn, deployment: Deployed) -> Json:
    """Show the ways to an agent: its relays and how far they are, who is introduced to it, and the server's own way."""
    found = await visible(deployment, who, agent)
    connected = agent_status.status(found.agent, deployment.clock.now()) is agent_status.Status.CONNECTED
    allowed = who.may(Action.CONNECT, Resource.WORKSPACE, found.owner.id)
    if not (connected and allowed):
        return ways.of_agent(deployment, agent)
    server = await ways.of_server(deployment, agent)
    told = await ways.of_clients(deployment, agent, found.agent.token_hash) if server else {}
    return ways.of_agent(deployment, agent, server, told)


@router.post("/workspaceagents/{agent}/speedtest")
async def speedtest_of_agent(agent: UUID, who: SignedIn, deployment: Deployed) -> Json:
    """Measure the throughput between this server and an agent, each way in turn. One at a time for each agent."""
    found = await visible(deployment, who, agent, Action.CONNECT)
    state = agent_status.status(found.agent, deployment.clock.now())
    if state is not agent_status.Status.CONNECTED:
        raise Problem(400, f"The agent is {state.value}; it must be connected to be measured.")
    if agent in deployment.speedtests:
        raise Problem(409, "A speed test with this agent is running.", detail="Try again when it has ended.")
    deployment.speedtests.add(agent)
    try:
        down, up = [
            await deployment.node.speedtest(agent, seconds=AGENT_SECONDS, download=download)
            for download in (True, False)
        ]
        pong = await deployment.node.ping(agent)
    finally:
        deployment.speedtests.discard(agent)
    return {
        "down_mbits": _mbits(down),
        "up_mbits": _mbits(up),
        "direct": pong.path.kind == "direct",
        "latency_ms": pong.latency * 1e3,
    }


def _mbits(result: SpeedtestResult) -> float:
    span = max(result.total.end - result.total.start, 1e-3)
    return round(result.total.bytes * 8 / span / 1e6, 1)


@router.get("/debug/health")
async def health_report(who: SignedIn, deployment: Deployed, force: bool = False) -> Json:
    """Report on the parts of the deployment, with what helps where something is wrong. For its owners."""
    if not who.may(Action.READ, Resource.DEPLOYMENT):
        raise not_found()
    return health.report(await health_probes.probe(deployment, force=force))


_ECHOES, _LONGEST_ECHO = 3, 1024
_ECHO_PATIENCE = 30.0
"""Seconds somebody whom we do not know may keep a socket open."""


@websocket_route(router, "/debug/ws", anyone)
async def echo(websocket: WebSocket, _anyone: Annotated[None, ANYONE]) -> None:
    """Send the first three messages back, then close: shows that a WebSocket passes all the way to this server."""
    await websocket.accept()
    with suppress(WebSocketDisconnect, KeyError, TimeoutError):  # gone, no text, or silent
        async with asyncio.timeout(_ECHO_PATIENCE):
            for _ in range(_ECHOES):
                await websocket.send_text((await websocket.receive_text())[:_LONGEST_ECHO])
    await ServerChannel(websocket).close()


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
        sockets = deployment.sockets.belonging_to(who.user.id, who.key.id)
        with sockets, suppress(WebSocketDisconnect, KeyError, TimeoutError):  # gone, no bytes, or at a standstill
            async with asyncio.timeout(2 * SPEEDTEST_SECONDS):
                await (_send if direction == "down" else _receive)(websocket, deployment.clock)
        await ServerChannel(websocket).close()
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
