"""What an agent asks with its own token: its call socket, and whether to start again."""

import structlog
from fastapi import APIRouter, WebSocket
from starlette.responses import StreamingResponse

from coder.db import agents
from coder.rpc import server as rpc
from coder.server import agent_status, api_version, events
from coder.server.agent_calls import AgentCalls
from coder.server.auth import AgentCaller, agent_caller
from coder.server.channel import ServerChannel
from coder.server.deployment import Deployed, Deployment
from coder.server.sockets import agents_of
from coder.server.tailnet_calls import TailnetCalls
from coder.server.upgrade import websocket_route

router = APIRouter(tags=["agents"])
log = structlog.get_logger(__name__)


@router.get("/workspaceagents/me/reinit")
async def reinit(who: AgentCaller, deployment: Deployed) -> StreamingResponse:
    """Hold a stream open on which an agent would be told to start again; nothing here needs that, so it only pings."""
    return events.stream(deployment, events.silence(), who.agent.id)


@websocket_route(router, "/workspaceagents/me/rpc", agent_caller)
async def serve(websocket: WebSocket, who: AgentCaller, deployment: Deployed) -> None:
    """Serve the calls of an agent, and keep track of its connection."""
    version = api_version.accept(websocket.query_params.get("version") or "2.0")
    tracked = websocket.query_params.get("role") in {None, "", "agent"}
    monitor = Monitor(deployment, who) if tracked else None
    calls = AgentCalls(deployment, who, version).handlers()
    introduction = TailnetCalls.of_agent(deployment, who.agent.id)
    calls |= introduction.handlers()
    bound = structlog.contextvars.bound_contextvars(agent=str(who.agent.id), workspace=who.workspace.name)
    sockets = deployment.sockets.belonging_to(who.agent.id, agents_of(who.owner.id), farewell=introduction.revoke)
    with bound, sockets:
        await websocket.accept()
        if monitor:
            await monitor.started()
        try:
            fault = await rpc.serve(
                ServerChannel(websocket),
                calls,
                ping_every=agent_status.PING_EVERY,
                on_ping=monitor.answered if monitor else None,
                clock=deployment.clock,
            )
            log.info("agent.gone", api_version=version, fault=str(fault) if fault else None)
        finally:
            if monitor:
                await monitor.ended()


class Monitor:
    """Keeps the times of one agent's connection. The newest connection of an agent owns its record."""

    def __init__(self, deployment: Deployment, identity: agents.Identity) -> None:
        self._deployment = deployment
        self._agent_id = identity.agent.id
        self._workspace_id = identity.workspace.id

    async def started(self) -> None:
        """Note the connection's start."""
        self._deployment.presence[self._agent_id] = self
        async with self._deployment.store.write() as session:
            await agents.connected(session, self._agent_id, self._deployment.clock.now())
        self._deployment.changes.announce(self._workspace_id)
        log.info("agent.connected")

    async def answered(self, _round_trip: float) -> None:
        """Note that the agent answered a ping. Takes the record back if a newer connection has come and gone."""
        presence = self._deployment.presence
        taken_back = self._agent_id not in presence
        if presence.setdefault(self._agent_id, self) is not self:
            return
        async with self._deployment.store.write() as session:
            await agents.alive(session, self._agent_id, self._deployment.clock.now())
        if taken_back:
            self._deployment.changes.announce(self._workspace_id)

    async def ended(self) -> None:
        """Note the connection's end, unless the agent has come back on another one meanwhile."""
        if self._deployment.presence.get(self._agent_id) is not self:
            return
        del self._deployment.presence[self._agent_id]
        async with self._deployment.store.write() as session:
            await agents.disconnected(session, self._agent_id, self._deployment.clock.now())
        self._deployment.changes.announce(self._workspace_id)
        log.info("agent.disconnected")
