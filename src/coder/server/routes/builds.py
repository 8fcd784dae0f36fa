"""Builds of workspaces."""

from uuid import UUID

from fastapi import APIRouter, Request, WebSocket

from coder.access.roles import Action, Resource
from coder.db import workspaces
from coder.server import views
from coder.server.auth import Caller, SignedIn
from coder.server.deployment import Deployed, Deployment
from coder.server.problems import not_found, upgrade_required
from coder.server.surroundings import of_agents

router = APIRouter(tags=["builds"])


@router.get("/workspacebuilds/{build}")
async def show(build: UUID, who: SignedIn, deployment: Deployed) -> views.Json:
    """Show a build."""
    return await _view(build, who, deployment)


@router.get("/workspacebuilds/{build}/parameters")
async def parameters(build: UUID, who: SignedIn, deployment: Deployed) -> list[views.Json]:
    """List the parameters of a build: the machine template has none."""
    await _view(build, who, deployment)
    return []


@router.get("/workspacebuilds/{build}/logs")
async def logs(build: UUID, who: SignedIn, deployment: Deployed, request: Request) -> list[views.Json]:
    """List what a build printed: nothing is built here. With `follow` it is a WebSocket."""
    await _view(build, who, deployment)
    if "follow" in request.query_params:
        raise upgrade_required()
    return []


@router.websocket("/workspacebuilds/{build}/logs")
async def follow_logs(websocket: WebSocket, build: UUID, who: SignedIn, deployment: Deployed) -> None:
    """Send what a build prints until it ends: all builds have ended."""
    await _view(build, who, deployment)
    await websocket.accept()
    await websocket.close()


async def _view(build_id: UUID, who: Caller, deployment: Deployment) -> views.Json:
    async with deployment.store.read() as session:
        workspace = await workspaces.get_build(session, build_id)
    if workspace is None or not who.may(Action.READ, Resource.WORKSPACE, workspace.owner_id):
        raise not_found()
    row = next(each for each in workspace.builds if each.id == build_id)
    return views.build(row, workspace, of_agents(deployment, (agent.id for agent in row.agents)))
