"""When workspaces stop and start by themselves."""

from datetime import datetime, timedelta
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import AwareDatetime, BaseModel

from coder.access.roles import Action
from coder.access.schedule import LONGEST_TTL_MS, Schedule, ttl_problem
from coder.db import builds, workspaces
from coder.db.builds import START
from coder.server import audit, views
from coder.server import builds as orders
from coder.server.asking import AskedFirst
from coder.server.auth import SignedIn
from coder.server.deployment import Deployed
from coder.server.problems import Problem, invalid
from coder.server.routes.workspaces import visible

router = APIRouter(tags=["workspaces"], route_class=AskedFirst)


class Ttl(BaseModel):
    """How long a workspace may be idle. None or 0: for ever."""

    ttl_ms: int | None = None


class Autostart(BaseModel):
    """When a workspace starts. None or nothing: never by itself."""

    schedule: str | None = None


class Extension(BaseModel):
    """When a running workspace stops unless it is used."""

    deadline: AwareDatetime


@router.put("/workspaces/{workspace}/ttl", status_code=204)
async def set_ttl(workspace: UUID, wanted: Ttl, who: SignedIn, deployment: Deployed) -> Response:
    """Say how long the workspace may be idle until it is stopped; it holds from now on."""
    row = await visible(deployment, who, workspace, Action.UPDATE, living=True)
    ttl = wanted.ttl_ms or 0
    if fault := ttl_problem(ttl):
        raise invalid(("ttl_ms", fault))
    audit.detail(f"ttl_ms: {ttl}")
    now = deployment.clock.now()
    async with deployment.store.write() as session:
        await workspaces.change(session, row.id, now, ttl_ms=ttl or None)
        if row.latest_build.transition == START:
            deadline = now + timedelta(milliseconds=ttl) if ttl else None
            await builds.change(session, row.latest_build.id, deadline=deadline)
    orders.announce(deployment, row)
    return Response(status_code=204)


@router.put("/workspaces/{workspace}/autostart", status_code=204)
async def set_autostart(workspace: UUID, wanted: Autostart, who: SignedIn, deployment: Deployed) -> Response:
    """Say when the workspace starts by itself."""
    row = await visible(deployment, who, workspace, Action.UPDATE, living=True)
    if wanted.schedule:
        Schedule.parse(wanted.schedule)
    audit.detail(f"schedule: {wanted.schedule or 'none'}")
    async with deployment.store.write() as session:
        await workspaces.change(session, row.id, deployment.clock.now(), autostart_schedule=wanted.schedule or None)
    orders.announce(deployment, row)
    return Response(status_code=204)


@router.put("/workspaces/{workspace}/extend")
async def extend(workspace: UUID, wanted: Extension, who: SignedIn, deployment: Deployed) -> views.Json:
    """Move the time at which the running workspace stops."""
    row = await visible(deployment, who, workspace, Action.UPDATE, living=True)
    build, now = row.latest_build, deployment.clock.now()
    if build.transition != START or build.status != builds.SUCCEEDED:
        raise Problem(409, "The workspace does not run, so nothing stops it.")
    if not row.ttl_ms:
        raise Problem(
            409, "The workspace does not stop by itself.", detail="Give it a time with `coder schedule stop`."
        )
    if not now + timedelta(minutes=1) <= wanted.deadline <= now + timedelta(milliseconds=LONGEST_TTL_MS):
        raise invalid(("deadline", "Expected a time from one minute to 30 days from now."))
    audit.detail(f"deadline: {views.when(_utc(wanted.deadline, now))}")
    async with deployment.store.write() as session:
        await builds.change(session, build.id, deadline=wanted.deadline)
    orders.announce(deployment, row)
    return {"message": "The time has been moved."}


def _utc(moment: datetime, like: datetime) -> datetime:
    return moment.astimezone(like.tzinfo)
