"""Builds of workspaces: their state, what was chosen for them, and what they print."""

import json
from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, WebSocket

from coder.access.roles import Action, Resource
from coder.db import builds, workspaces
from coder.db.models import Workspace, WorkspaceBuild
from coder.db.models_builds import BuildLog
from coder.server import audit, feeds, views
from coder.server import builds as orders
from coder.server.auth import Caller, SignedIn
from coder.server.deployment import Deployed, Deployment
from coder.server.problems import Problem, not_found, upgrade_required
from coder.server.rechecks import rechecked
from coder.server.surroundings import of_agents

router = APIRouter(tags=["builds"])

After = Annotated[int, Query(ge=0, lt=2**63)]


@router.get("/workspacebuilds/{build}")
async def show(build: UUID, who: SignedIn, deployment: Deployed) -> views.Json:
    """Show a build."""
    workspace, row = await _visible(build, who, deployment)
    return views.build(row, workspace, of_agents(deployment, (agent.id for agent in row.agents)))


@router.get("/workspaces/{workspace}/builds")
async def list_builds(
    workspace: UUID,
    who: SignedIn,
    deployment: Deployed,
    limit: Annotated[int, Query(ge=0, le=1000)] = 0,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> list[views.Json]:
    """List the builds of a workspace, the newest first."""
    async with deployment.store.read() as session:
        row = await workspaces.get(session, workspace, history=True)
    if row is None or not who.may(Action.READ, Resource.WORKSPACE, row.owner_id):
        raise not_found()
    shown = list(reversed(row.builds))[offset : offset + limit if limit else None]
    around = of_agents(deployment, (agent.id for each in shown for agent in each.agents))
    return [views.build(each, row, around) for each in shown]


@router.get("/workspacebuilds/{build}/parameters")
async def parameters(build: UUID, who: SignedIn, deployment: Deployed) -> list[views.Json]:
    """List the values that were chosen."""
    _, row = await _visible(build, who, deployment)
    return [{"name": name, "value": str(value)} for name, value in row.parameters.items()]


@router.get("/workspacebuilds/{build}/resources")
async def resources(build: UUID, who: SignedIn, deployment: Deployed) -> list[views.Json]:
    """List what a build made, with its agents."""
    shown: list[views.Json] = (await show(build, who, deployment))["resources"]
    return shown


@router.patch("/workspacebuilds/{build}/cancel")
async def cancel(build: UUID, who: SignedIn, deployment: Deployed) -> views.Json:
    """Break a build off. What it has started is ended again."""
    workspace, row = await _visible(build, who, deployment)
    who.require(Action.UPDATE, Resource.WORKSPACE, workspace.owner_id)
    audit.about(workspace.id, workspace.name, action="cancel")
    async with deployment.store.write() as session:
        under_way = await builds.status(session, row.id) in builds.ACTIVE
        if under_way:
            await builds.change(session, row.id, status=builds.CANCELING)
    if not under_way:
        raise Problem(400, "The build has ended already.")
    deployment.runner.cancel(row.id)
    orders.announce(deployment, workspace)
    return {"message": "The build is being canceled."}


@router.get("/workspacebuilds/{build}/logs")
async def logs(
    build: UUID, who: SignedIn, deployment: Deployed, request: Request, after: After = 0
) -> list[views.Json]:
    """List what a build printed. With `follow` it is a WebSocket."""
    await _visible(build, who, deployment)
    if "follow" in request.query_params:
        raise upgrade_required()
    async with deployment.store.read() as session:
        return [_line(row) for row in await builds.logs_after(session, build, after)]


@router.websocket("/workspacebuilds/{build}/logs")
async def follow_logs(websocket: WebSocket, build: UUID, who: SignedIn, deployment: Deployed, after: After = 0) -> None:
    """Send what a build prints, a line each message, until it ends."""
    workspace, _ = await _visible(build, who, deployment)
    sockets = deployment.sockets.belonging_to(who.user.id, who.key.id, workspace.owner_id)
    with sockets, rechecked(deployment, who):
        await websocket.accept()
        await feeds.send(websocket, _lines(deployment, build, after))


async def _lines(deployment: Deployment, build: UUID, after: int) -> AsyncIterator[str]:
    with deployment.changes.watch((builds.LOGS, build)) as changed:
        over = False
        while not over:
            async with deployment.store.read() as session:
                over = await builds.status(session, build) not in builds.ACTIVE
                rows = await builds.logs_after(session, build, after)
            for row in rows:
                after = row.id
                yield json.dumps(_line(row), separators=(",", ":"))
            if not over:
                await changed.wait()
                changed.clear()


def _line(row: BuildLog) -> views.Json:
    return {
        "id": row.id,
        "created_at": views.when(row.created_at),
        "log_source": row.source,
        "log_level": row.level,
        "stage": row.stage,
        "output": row.output,
    }


async def _visible(build_id: UUID, who: Caller, deployment: Deployment) -> tuple[Workspace, WorkspaceBuild]:
    async with deployment.store.read() as session:
        workspace = await workspaces.get_build(session, build_id)
    if workspace is None or not who.may(Action.READ, Resource.WORKSPACE, workspace.owner_id):
        raise not_found()
    return workspace, next(each for each in workspace.builds if each.id == build_id)
