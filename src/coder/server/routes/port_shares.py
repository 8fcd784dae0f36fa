"""With whom the ports of a workspace are shared."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from coder.access.app_names import LOWEST_PORT
from coder.access.roles import Action
from coder.access.sharing import Level
from coder.config import AppsSettings
from coder.db import port_shares
from coder.db.models import Workspace
from coder.db.models_ports import PortShare
from coder.server import audit
from coder.server.asking import AskedFirst
from coder.server.auth import SignedIn
from coder.server.deployment import Deployed
from coder.server.problems import Problem
from coder.server.routes.workspaces import visible
from coder.server.texts import Typed

router = APIRouter(tags=["workspaces"], route_class=AskedFirst)

_PROTOCOLS = ("http", "https")


class Share(BaseModel):
    """A port, and with whom to share it."""

    agent_name: Typed
    port: int
    share_level: str
    protocol: str = Field(default="http")


class Shared(BaseModel):
    """A port."""

    agent_name: Typed
    port: int


@router.get("/workspaces/{workspace}/port-share")
async def list_shares(workspace: UUID, who: SignedIn, deployment: Deployed) -> dict[str, Any]:
    """List the shared ports of a workspace."""
    row = await visible(deployment, who, workspace, living=True)
    async with deployment.store.read() as session:
        shares = await port_shares.of_workspace(session, row.id)
    return {"shares": [_view(share) for share in shares]}


@router.post("/workspaces/{workspace}/port-share")
async def put_share(workspace: UUID, wanted: Share, who: SignedIn, deployment: Deployed) -> dict[str, Any]:
    """Share a port, or share it otherwise."""
    row = await visible(deployment, who, workspace, Action.UPDATE, living=True)
    _check(row, wanted, deployment.settings.apps)
    share = PortShare(
        workspace_id=row.id,
        agent_name=_agent(row, wanted.agent_name),
        port=wanted.port,
        share_level=wanted.share_level,
        protocol=wanted.protocol,
    )
    view = _view(share)
    audit.detail(f"port {wanted.port}: {wanted.share_level}")
    async with deployment.store.write() as session:
        await port_shares.put(session, share)
    return view


@router.delete("/workspaces/{workspace}/port-share")
async def end_share(workspace: UUID, wanted: Shared, who: SignedIn, deployment: Deployed) -> Response:
    """Share a port no more."""
    row = await visible(deployment, who, workspace, Action.UPDATE, living=True)
    async with deployment.store.write() as session:
        found = await port_shares.delete(session, row.id, wanted.agent_name, wanted.port)
    if not found:
        raise Problem(404, "Port share not found.")
    audit.detail(f"port {wanted.port}: {Level.OWNER}")
    return Response()


def _agent(row: Workspace, name: str) -> str:
    for agent in row.latest_build.agents:
        if agent.name.lower() == name.lower():
            return agent.name
    raise Problem(400, "Agent not found.")


def _check(row: Workspace, wanted: Share, settings: AppsSettings) -> None:
    """Refuse what makes no sense, and what exceeds a ceiling. Raises Problem (400)."""
    _agent(row, wanted.agent_name)
    allowed = [level.value for level in Level if level is not Level.OWNER]
    if wanted.share_level not in allowed:
        fault = ("share_level", f"One of {', '.join(allowed)}.")
        raise Problem(400, "Port sharing level not allowed.", validations=[fault])
    if wanted.protocol not in _PROTOCOLS:
        fault = ("protocol", f"One of {', '.join(_PROTOCOLS)}.")
        raise Problem(400, "Port protocol not allowed.", validations=[fault])
    if not LOWEST_PORT <= wanted.port <= 0xFFFF:
        fault = ("port", "Out of range.")
        raise Problem(400, f"Port must be between {LOWEST_PORT} and {0xFFFF}.", validations=[fault])
    for ceiling in (row.template.max_port_share_level, settings.max_sharing_level):
        if Level(wanted.share_level).openness > Level(ceiling).openness:
            text = f'"{wanted.share_level}" sharing level is not allowed under max level "{ceiling}"'
            raise Problem(400, text, validations=[("share_level", text)])


def _view(share: PortShare) -> dict[str, Any]:
    return {
        "workspace_id": str(share.workspace_id),
        "agent_name": share.agent_name,
        "port": share.port,
        "share_level": share.share_level,
        "protocol": share.protocol,
    }
