"""Workspaces: list, show, create, watch, use, delete."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response, WebSocket
from pydantic import AfterValidator, BaseModel, Field
from sqlalchemy.exc import IntegrityError
from starlette.responses import StreamingResponse

from coder.access import names
from coder.access.roles import Action, Resource
from coder.db import users, workspaces
from coder.db.builds import DELETE
from coder.db.models import Workspace
from coder.server import agent_status, audit, build_status, creation, events, keeping_hours, search, views
from coder.server import builds as orders
from coder.server.asking import AskedFirst
from coder.server.auth import Caller, SignedIn, caller, user_named
from coder.server.deployment import Deployed, Deployment
from coder.server.problems import Problem, forbidden, invalid, not_found
from coder.server.rechecks import rechecked
from coder.server.surroundings import surroundings
from coder.server.texts import Line, Typed
from coder.server.upgrade import websocket_route

router = APIRouter(tags=["workspaces"], route_class=AskedFirst)

Number = Annotated[int, Query(ge=0, lt=1 << 63)]

_ACTION_OF = {"start": Action.UPDATE, "stop": Action.UPDATE, "delete": Action.DELETE}


class ParameterValue(BaseModel):
    """A chosen value."""

    name: Typed
    value: Annotated[str, Field(max_length=1024)]


def _or_none(value: UUID | None) -> UUID | None:
    return value if value and value.int else None


Chosen = Annotated[UUID | None, AfterValidator(_or_none)]
"""An id that may be absent; clients say so by leaving it out or with the nil UUID."""


class NewWorkspace(BaseModel):
    """A workspace to make; without a template it is a machine that its user brings."""

    name: Typed
    template_id: Chosen = None
    template_version_id: Chosen = None
    rich_parameter_values: list[ParameterValue] = Field(default_factory=list, max_length=64)
    ttl_ms: int | None = None
    autostart_schedule: str | None = None
    architecture: Line | None = Field(default=None, max_length=16)
    operating_system: Line | None = Field(default=None, max_length=16)
    directory: Line | None = Field(default=None, max_length=1024)


class NewBuild(BaseModel):
    """A change of a workspace's state."""

    transition: Literal["start", "stop", "delete"]
    template_version_id: Chosen = None
    rich_parameter_values: list[ParameterValue] = Field(default_factory=list, max_length=64)
    reason: Line = Field(default="", max_length=32)
    orphan: bool = False


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
    limit: Number = 0,
    offset: Number = 0,
) -> views.Json:
    """List the workspaces that a search finds; members find their own."""
    query = search.parse(q, who.user)
    wanted = replace(query.search, reader=None if who.may(Action.READ, Resource.WORKSPACE) else who.user.id)
    async with deployment.store.read() as session:
        if query.computed:
            rows = await workspaces.search(session, wanted)
            found = [row for row in rows if _matches(deployment, query, row)]
            shown: Sequence[Workspace] = found[offset : offset + limit] if limit else found[offset:]
            count = len(found)
        else:
            shown = await workspaces.search(session, wanted, limit=limit or None, offset=offset)
            count = await workspaces.count(session, wanted)
    around = surroundings(deployment, shown)
    return {"workspaces": [views.workspace(row, around) for row in shown], "count": count}


def _matches(deployment: Deployment, query: search.Query, row: Workspace) -> bool:
    latest = row.latest_build
    if query.status not in {None, build_status.status(latest)} or query.dormant:
        return False
    if query.outdated not in {None, latest.template_version_id != row.template.active_version_id}:
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
    if organization and not deployment.site.is_organization(organization):
        raise not_found()
    if fault := names.name_problem(wanted.name):
        raise invalid(("name", fault))
    owner = await user_named(deployment, who, user)
    who.require(Action.CREATE, Resource.WORKSPACE, owner.id)
    audit.about(None, wanted.name)
    values = {each.name: each.value for each in wanted.rich_parameter_values}
    made = creation.Wanted(
        **wanted.model_dump(include={"name", "template_id", "template_version_id", "ttl_ms", "autostart_schedule"}),
        parameters=values,
        machine=wanted.model_dump(include={"architecture", "operating_system", "directory"}, exclude_none=True),
    )
    row, agent_tokens = await creation.create(deployment, owner, made, who.user.id)
    audit.about(row.id, row.name)
    audit.detail(f"template: {row.template.name}")
    answer = _view(deployment, row)
    if agent_tokens:
        revealed = {name: token.reveal() for name, token in agent_tokens.items()}
        answer |= {"agent_token": next(iter(revealed.values())), "agent_tokens": revealed}
    return answer


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
            await workspaces.change(session, row.id, deployment.clock.now(), name=wanted.name)
    except IntegrityError:
        raise Problem(409, f"A workspace named {wanted.name!r} exists already.") from None
    orders.announce(deployment, row)
    return Response(status_code=204)


@router.post("/workspaces/{workspace}/usage", status_code=204)
async def use(workspace: UUID, who: SignedIn, deployment: Deployed, usage: Usage | None = None) -> Response:
    """Note that a workspace is in use."""
    row = await visible(deployment, who, workspace, Action.UPDATE, living=True)
    if usage and (usage.agent_id is None) != (not usage.app_name):
        raise invalid(("app_name", "Give both agent_id and app_name, or neither."))
    await keeping_hours.used(deployment, row.id)
    return Response(status_code=204)


@router.post("/workspaces/{workspace}/builds", status_code=201)
async def build(workspace: UUID, wanted: NewBuild, who: SignedIn, deployment: Deployed) -> views.Json:
    """Start, stop or delete a workspace. The answer is the build, which is carried out from now on."""
    row = await visible(deployment, who, workspace, _ACTION_OF[wanted.transition])
    audit.about(row.id, row.name, action=wanted.transition)
    if wanted.orphan and not who.may(Action.UPDATE, Resource.DEPLOYMENT):
        raise forbidden("Only owners of the deployment may leave behind what runs of a workspace.")
    order = orders.Order(
        transition=wanted.transition,
        version_id=wanted.template_version_id,
        reason=wanted.reason or "initiator",
        parameters={each.name: each.value for each in wanted.rich_parameter_values},
        orphan=wanted.orphan and wanted.transition == DELETE,
    )
    changed = await orders.request(deployment, row.id, order, who.user.id)
    return views.build(changed.latest_build, changed, surroundings(deployment, [changed]))


@router.delete("/workspaces/{workspace}", status_code=204)
async def delete(workspace: UUID, who: SignedIn, deployment: Deployed) -> Response:
    """Delete a workspace; where something runs of it, as soon as that has ended."""
    row = await visible(deployment, who, workspace, Action.DELETE, living=True)
    await orders.request(deployment, row.id, orders.Order(transition=DELETE), who.user.id)
    return Response(status_code=204)


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
