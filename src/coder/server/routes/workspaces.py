"""Workspaces: list, show, create, watch, use, delete."""

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response, WebSocket
from pydantic import BaseModel, Field
from sqlalchemy.exc import IntegrityError
from starlette.responses import StreamingResponse

from coder.access import names, tokens
from coder.access.roles import Action, Resource
from coder.db import agents, users, workspaces
from coder.db.models import User, Workspace
from coder.server import agent_status, audit, events, search, views
from coder.server.asking import AskedFirst
from coder.server.auth import Caller, SignedIn, caller, user_named
from coder.server.deployment import Deployed, Deployment
from coder.server.problems import Problem, invalid, not_found
from coder.server.rechecks import rechecked
from coder.server.surroundings import surroundings
from coder.server.texts import Line, Typed
from coder.server.upgrade import websocket_route

router = APIRouter(tags=["workspaces"], route_class=AskedFirst)

AGENT_NAME = "main"
CONNECTION_TIMEOUT = 120
"""Seconds after which an agent that never connected is shown as late."""

_ACTION_OF = {"start": Action.UPDATE, "stop": Action.UPDATE, "delete": Action.DELETE}


class NewWorkspace(BaseModel):
    """A workspace to make. The template is `machine`: the user brings the machine and starts the agent there."""

    name: Typed
    template_id: UUID | None = None
    template_version_id: UUID | None = None
    architecture: Line = Field(default="amd64", max_length=16)
    operating_system: Line = Field(default="linux", max_length=16)
    directory: Line = Field(default="", max_length=1024)


class NewBuild(BaseModel):
    """A change of a workspace's state."""

    transition: Literal["start", "stop", "delete"]
    template_version_id: UUID | None = None


class Rename(BaseModel):
    """A workspace's new name."""

    name: Typed = ""


class Usage(BaseModel):
    """What uses a workspace."""

    agent_id: UUID | None = None
    app_name: Literal["", "vscode", "jetbrains", "reconnecting-pty", "ssh"] = ""


async def visible(
    deployment: Deployment, who: Caller, workspace_id: UUID, action: Action = Action.READ, *, living: bool = False
) -> Workspace:
    """Return a workspace with which the caller may do that. Raises Problem (403, 404)."""
    async with deployment.store.read() as session:
        return _seen(await workspaces.get(session, workspace_id), who, action, living=living)


def _seen(row: Workspace | None, who: Caller, action: Action = Action.READ, *, living: bool = False) -> Workspace:
    if row is None or (living and row.deleted_at):
        raise not_found()
    who.require(action, Resource.WORKSPACE, row.owner_id)
    audit.about(row.id, row.name)
    return row


def _view(deployment: Deployment, row: Workspace) -> views.Json:
    return views.workspace(row, surroundings(deployment, [row]))


@router.get("/workspaces")
async def list_workspaces(
    who: SignedIn,
    deployment: Deployed,
    q: str = "",
    limit: Annotated[int, Query(ge=0)] = 0,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> views.Json:
    """List the workspaces that a search finds; members find their own."""
    query = search.parse(q, who.user)
    async with deployment.store.read() as session:
        rows = await workspaces.search(session, query.search)
    found = [row for row in rows if _matches(deployment, who, query, row)]
    shown = found[offset : offset + limit] if limit else found[offset:]
    around = surroundings(deployment, shown)
    return {"workspaces": [views.workspace(row, around) for row in shown], "count": len(found)}


def _matches(deployment: Deployment, who: Caller, query: search.Query, row: Workspace) -> bool:
    if not who.may(Action.READ, Resource.WORKSPACE, row.owner_id):
        return False
    if query.status not in {None, "running"} or query.outdated or query.dormant:
        return False
    now = deployment.clock.now()
    states = {agent_status.status(agent, now).value for agent in row.latest_build.agents}
    return query.has_agent is None or query.has_agent in states


@router.get("/users/{user}/workspace/{name}")
async def by_name(
    user: str, name: str, who: SignedIn, deployment: Deployed, include_deleted: bool = False
) -> views.Json:
    """Show a user's workspace."""
    owner = await user_named(deployment, who, user)
    async with deployment.store.read() as session:
        row = await workspaces.by_name(session, owner.id, name, deleted=include_deleted)
    return _view(deployment, _seen(row, who))


@router.post("/users/{user}/workspaces", status_code=201)
@router.post("/organizations/{organization}/members/{user}/workspaces", status_code=201)
async def create(user: str, wanted: NewWorkspace, request: Request, who: SignedIn, deployment: Deployed) -> views.Json:
    """Create a workspace. The answer's `agent_token` starts the agent on its machine; it is shown this once."""
    organization = request.path_params.get("organization", "")
    site = deployment.site
    if organization and organization.lower() not in {"default", site.organization.name, str(site.organization.id)}:
        raise not_found()
    if fault := names.name_problem(wanted.name):
        raise invalid(("name", fault))
    known = {None, site.template.id, site.template_version.id}
    if wanted.template_id not in known or wanted.template_version_id not in known:
        raise invalid(("template_id", f"The only template is {site.template.name}."))
    owner = await user_named(deployment, who, user)
    who.require(Action.CREATE, Resource.WORKSPACE, owner.id)
    token = tokens.new_agent_token()
    audit.about(None, wanted.name)
    row = await _create(deployment, owner, wanted, tokens.hash_agent_token(token))
    audit.about(row.id, row.name)
    _announce(deployment, row)
    return {**_view(deployment, row), "agent_token": str(token)}


async def _create(deployment: Deployment, owner: User, wanted: NewWorkspace, token_hash: bytes) -> Workspace:
    machine = workspaces.Machine(
        agent_name=AGENT_NAME,
        token_hash=token_hash,
        architecture=wanted.architecture,
        operating_system=wanted.operating_system,
        directory=wanted.directory,
        connection_timeout_seconds=CONNECTION_TIMEOUT,
    )
    try:
        async with deployment.store.write() as session:
            now, version = deployment.clock.now(), deployment.site.template_version
            found = await workspaces.create(
                session, owner=owner, version=version, name=wanted.name, machine=machine, now=now
            )
            row = await workspaces.get(session, found)
    except IntegrityError:
        raise Problem(
            409, f"A workspace named {wanted.name!r} exists already.", validations=[("name", "Taken.")]
        ) from None
    assert row is not None
    return row


@router.get("/workspaces/{workspace}")
async def show(workspace: UUID, who: SignedIn, deployment: Deployed) -> views.Json:
    """Show a workspace."""
    return _view(deployment, await visible(deployment, who, workspace))


@router.patch("/workspaces/{workspace}", status_code=204)
async def rename(workspace: UUID, wanted: Rename, who: SignedIn, deployment: Deployed) -> Response:
    """Give a workspace another name."""
    row = await visible(deployment, who, workspace, Action.UPDATE, living=True)
    if fault := names.name_problem(wanted.name):
        raise invalid(("name", fault))
    try:
        async with deployment.store.write() as session:
            await workspaces.rename(session, row.id, wanted.name, deployment.clock.now())
    except IntegrityError:
        raise Problem(409, f"A workspace named {wanted.name!r} exists already.") from None
    _announce(deployment, row)
    return Response(status_code=204)


@router.post("/workspaces/{workspace}/usage", status_code=204)
async def use(workspace: UUID, who: SignedIn, deployment: Deployed, usage: Usage | None = None) -> Response:
    """Note that a workspace is in use."""
    row = await visible(deployment, who, workspace, Action.UPDATE, living=True)
    if usage and (usage.agent_id is None) != (not usage.app_name):
        raise invalid(("app_name", "Give both agent_id and app_name, or neither."))
    async with deployment.store.write() as session:
        await workspaces.used(session, row.id, deployment.clock.now())
    return Response(status_code=204)


@router.post("/workspaces/{workspace}/builds", status_code=201)
async def build(workspace: UUID, wanted: NewBuild, who: SignedIn, deployment: Deployed) -> views.Json:
    """Delete a workspace. Its machine belongs to the user, so nothing here can start or stop it."""
    row = await visible(deployment, who, workspace, _ACTION_OF[wanted.transition])
    audit.about(row.id, row.name, action=wanted.transition)
    if row.deleted_at:
        raise Problem(409, "The workspace is deleted already.")
    if wanted.transition != workspaces.DELETE:
        raise Problem(
            400,
            f"The machine of {row.name} is not run by this server, so it cannot {wanted.transition} it.",
            detail="Start or stop the agent on the machine itself.",
        )
    changed = await delete_workspace(deployment, row, who.user)
    return views.build(changed.latest_build, changed, surroundings(deployment, [changed]))


@router.delete("/workspaces/{workspace}", status_code=204)
async def delete(workspace: UUID, who: SignedIn, deployment: Deployed) -> Response:
    """Delete a workspace."""
    await delete_workspace(deployment, await visible(deployment, who, workspace, Action.DELETE, living=True), who.user)
    return Response(status_code=204)


async def delete_workspace(deployment: Deployment, row: Workspace, by: User) -> Workspace:
    """Delete a workspace and end the connections of its agents and of their clients."""
    async with deployment.store.write() as session:
        await workspaces.delete(session, row, by.id, deployment.clock.now())
        ended = await agents.of_workspace(session, row.id)
        changed = await workspaces.get(session, row.id)
    for agent_id in ended:
        deployment.sockets.end(agent_id, "workspace deleted")
    _announce(deployment, row)
    assert changed is not None
    return changed


def _announce(deployment: Deployment, row: Workspace) -> None:
    deployment.changes.announce(row.id)
    deployment.changes.announce((workspaces.OF_OWNER, row.owner_id))


@router.get("/workspaces/{workspace}/watch")
async def watch(workspace: UUID, who: SignedIn, deployment: Deployed) -> StreamingResponse:
    """Stream the workspace as server-sent events: now, and after each change."""
    await visible(deployment, who, workspace)
    return events.stream(deployment, _states(deployment, workspace, who), who.user.id, who.key.id)


@websocket_route(router, "/workspaces/{workspace}/watch-ws", caller)
async def watch_by_websocket(websocket: WebSocket, workspace: UUID, who: SignedIn, deployment: Deployed) -> None:
    """Send the same as text messages of a WebSocket."""
    await visible(deployment, who, workspace)
    await events.feed(deployment, websocket, _states(deployment, workspace, who), who.user.id, who.key.id)


async def _states(deployment: Deployment, workspace: UUID, who: Caller) -> AsyncIterator[Any]:
    with deployment.changes.watch(workspace) as changed, rechecked(deployment, who):
        while True:
            async with deployment.store.read() as session:
                row = _seen(await workspaces.get(session, workspace), who)
                active = await users.get(session, who.user.id)
            if active is None or active.status != users.ACTIVE:
                return
            yield _view(deployment, row)
            await changed.wait()
            changed.clear()
