"""Agents as their users see them: state, how to connect, what they printed."""

from http import HTTPStatus
from uuid import UUID

import structlog
from fastapi import APIRouter

from coder.access.roles import Action, Resource
from coder.db import agents
from coder.errors import CoderError, PeerMisbehaved
from coder.server import agent_ports, agent_status, views
from coder.server.auth import Caller, SignedIn
from coder.server.deployment import Deployed, Deployment
from coder.server.problems import Problem, not_found
from coder.server.surroundings import of_agents
from coder.server.ways import API_PORT

router = APIRouter(tags=["agents"])
log = structlog.get_logger(__name__)


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


@router.get("/workspaceagents/{agent}/listening-ports")
async def listening_ports(agent: UUID, who: SignedIn, deployment: Deployed) -> views.Json:
    """List the TCP ports something listens on in the workspace, without those of services that are no web pages."""
    found = await _require_connected(deployment, who, agent)
    try:
        status, body = await deployment.node.http_get(agent, API_PORT, "/api/v0/listening-ports")
        if status != HTTPStatus.OK:
            raise PeerMisbehaved(f"the agent answered with status {status}")
        return {"ports": agent_ports.shown(body, agent_ports.of_apps(found.agent.apps))}
    except CoderError as error:
        log.info("agent.ports_unknown", agent=str(agent), reason=str(error))
        raise Problem(500, "The agent could not be asked for its ports.", detail=str(error)) from None


@router.get("/workspaceagents/{agent}/containers")
async def containers(agent: UUID, who: SignedIn, deployment: Deployed) -> None:
    """Refuse: dev containers are not offered."""
    await _require_connected(deployment, who, agent)
    raise Problem(403, "Dev containers are not offered by this server.", detail="Run them on the machine itself.")


async def _require_connected(deployment: Deployment, who: Caller, agent_id: UUID) -> agents.Identity:
    found = await visible(deployment, who, agent_id)
    state = agent_status.status(found.agent, deployment.clock.now())
    if state is not agent_status.Status.CONNECTED:
        raise Problem(400, f"The agent is {state.value}; it must be connected to be asked.")
    return found
