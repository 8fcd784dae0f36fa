"""What the deployment says of itself."""

from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field
from starlette.responses import PlainTextResponse

from coder import BUILD_VERSION
from coder.access import app_names
from coder.access.roles import Action, Resource
from coder.server import version, views
from coder.server.asking import AskedFirst
from coder.server.auth import ANYONE, Caller, SignedIn
from coder.server.deployment import Deployed
from coder.server.problems import Problem, not_found

router = APIRouter(tags=["deployment"], route_class=AskedFirst)
root = APIRouter(tags=["health"])

_ANY_SITE = {
    "Timing-Allow-Origin": "*",
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "*",
    "Access-Control-Allow-Methods": "*",
    "Access-Control-Allow-Credentials": "false",
}


_ACTIONS = {"application_connect": "connect", "ssh": "connect", "view": "read"}
"""Words of clients for actions of ours."""


class Check(BaseModel):
    """One question of a page: whether its user may do something."""

    object: dict[Annotated[str, Field(max_length=64)], Any] = Field(max_length=16)
    action: str = Field(max_length=64)


class Checks(BaseModel):
    """Questions by name."""

    checks: dict[Annotated[str, Field(max_length=128)], Check] = Field(max_length=256)


@root.get("/healthz", response_class=PlainTextResponse)
async def healthz(deployment: Deployed) -> PlainTextResponse:
    """Say whether the server and its database answer."""
    await deployment.store.ping()
    return PlainTextResponse("OK")


@root.get("/latency-check", response_class=PlainTextResponse)
async def latency_check() -> PlainTextResponse:
    """Answer at once, to any site, so that a page can measure the way to this server."""
    return PlainTextResponse("OK", headers=_ANY_SITE)


@router.get("", dependencies=[ANYONE])
async def hello() -> dict[str, str]:
    """Greet."""
    return {"message": "👋"}


@router.get("/buildinfo", dependencies=[ANYONE])
async def build_info(deployment: Deployed) -> dict[str, Any]:
    """Say which build this is."""
    return {
        "external_url": f"{deployment.access_url}/api/docs",
        "version": BUILD_VERSION,
        "dashboard_url": deployment.access_url,
        "telemetry": False,
        "workspace_proxy": False,
        "agent_api_version": "1.0",
        "provisioner_api_version": version.PROVISIONER_API_VERSION,
        "upgrade_message": "",
        "deployment_id": str(deployment.site.deployment_id),
    }


@router.get("/deployment/ssh")
async def ssh_options(_who: SignedIn, deployment: Deployed) -> dict[str, Any]:
    """Say what an SSH configuration of clients should hold."""
    client = deployment.settings.client
    return {
        "hostname_prefix": client.ssh_hostname_prefix,
        "hostname_suffix": client.hostname_suffix,
        "ssh_config_options": client.ssh_config_options,
    }


@router.get("/regions")
async def regions(_who: SignedIn, deployment: Deployed) -> dict[str, Any]:
    """List the places the API is served from: this one."""
    here = {
        "id": str(deployment.site.deployment_id),
        "name": "primary",
        "display_name": "Default",
        "icon_url": "",
        "healthy": True,
        "path_app_url": deployment.access_url,
        "wildcard_hostname": app_names.wildcard_host(
            deployment.settings.apps.wildcard_access_url, deployment.access_url
        ),
    }
    return {"regions": [here]}


@router.get("/organizations")
async def organizations(_who: SignedIn, deployment: Deployed) -> list[views.Json]:
    """List the organizations: the one there is."""
    return [views.organization(deployment.site.organization)]


@router.get("/organizations/{name}")
async def show_organization(name: str, _who: SignedIn, deployment: Deployed) -> views.Json:
    """Show an organization by id or name; `default` is the one there is."""
    found = deployment.site.organization
    if name.lower() not in {"default", found.name, str(found.id)}:
        raise not_found()
    return views.organization(found)


@router.get("/organizations/{name}/provisionerdaemons")
async def provisioners(name: str, who: SignedIn, deployment: Deployed) -> list[views.Json]:
    """List the processes that build beside the server: it builds all by itself."""
    await show_organization(name, who, deployment)
    return []


@router.get("/experiments")
async def experiments(_who: SignedIn) -> list[str]:
    """List the experiments that are on: none exist."""
    return []


@router.get("/experiments/available")
async def available_experiments(_who: SignedIn) -> dict[str, list[str]]:
    """List the experiments one may turn on."""
    return {"safe": []}


@router.get("/updatecheck", dependencies=[ANYONE])
async def update_check() -> dict[str, Any]:
    """Say whether a newer version is known. The server asks nobody, so none is."""
    return {"current": True, "version": BUILD_VERSION.partition("+")[0], "url": ""}


@router.post("/authcheck")
async def auth_check(wanted: Checks, who: SignedIn) -> dict[str, bool]:
    """Answer whether the caller may do things. What this server has no word for only its owners may do."""
    return {name: _may(who, check) for name, check in wanted.checks.items()}


def _may(who: Caller, check: Check) -> bool:
    mine = check.object.get("owner_id") in {"me", str(who.user.id)}
    try:
        resource, action = (
            Resource(str(check.object.get("resource_type"))),
            Action(_ACTIONS.get(check.action, check.action)),
        )
    except ValueError:
        return who.may(Action.UPDATE, Resource.DEPLOYMENT)
    return who.may(action, resource, who.user.id if mine else None)


@router.get("/appearance", dependencies=[ANYONE])
@router.get("/entitlements", dependencies=[ANYONE])
async def not_offered() -> Response:
    """Tell clients that ask for licensed features that there are none; they expect exactly this."""
    raise Problem(404, "Route not found.")
