"""The audit log and the connection log, for those who may read them."""

from typing import Annotated

from fastapi import APIRouter, Query

from coder.access.roles import Action, Resource
from coder.db import logs
from coder.db.models import AuditLog, ConnectionLog
from coder.server import log_search, views
from coder.server.auth import SignedIn
from coder.server.deployment import Deployed
from coder.server.problems import forbidden

router = APIRouter(tags=["logs"])

_PAGE, _MAX_PAGE = 50, 1000

Limit = Annotated[int, Query(ge=0, le=_MAX_PAGE)]
Offset = Annotated[int, Query(ge=0, le=2**31)]


@router.get("/audit")
async def audit(who: SignedIn, deployment: Deployed, q: str = "", limit: Limit = 0, offset: Offset = 0) -> views.Json:
    """List who did what, the newest first. For owners and auditors."""
    if not who.may(Action.READ, Resource.AUDIT_LOG):
        raise forbidden("Only owners and auditors read the audit log.")
    search = log_search.audit(q, who.user)
    async with deployment.store.read() as session:
        rows, count = await logs.audit(session, search, limit=limit or _PAGE, offset=offset)
    organization = str(deployment.site.organization.id)
    return {"audit_logs": [_entry(row, organization) for row in rows], "count": count}


def _entry(row: AuditLog, organization: str) -> views.Json:
    user = {"id": str(row.user_id), "username": row.username, "organization_ids": [organization]}
    return {
        "id": str(row.id),
        "request_id": row.request_id or views.NIL,
        "time": views.when(row.time),
        "organization_id": organization,
        "ip": row.ip,
        "user_agent": row.user_agent,
        "resource_type": row.resource_type,
        "resource_id": row.resource_id or views.NIL,
        "resource_target": row.resource_target,
        "resource_icon": "",
        "action": row.action,
        "diff": {},
        "status_code": row.status_code,
        "additional_fields": {"detail": row.detail} if row.detail else {},
        "description": " ".join(filter(None, (row.action, row.resource_type, row.resource_target, row.detail))),
        "resource_link": "",
        "is_deleted": False,
        "user": user if row.user_id else None,
    }


@router.get("/connectionlog")
async def connections(
    who: SignedIn, deployment: Deployed, q: str = "", limit: Limit = 0, offset: Offset = 0
) -> views.Json:
    """List who was connected to workspaces, the newest first; to one's own, or to all for owners and auditors."""
    everybodys = who.may(Action.READ, Resource.CONNECTION_LOG)
    search = log_search.connections(q, who.user, owner_id=None if everybodys else who.user.id)
    async with deployment.store.read() as session:
        rows, count = await logs.connections(session, search, limit=limit or _PAGE, offset=offset)
    organization = views.organization(deployment.site.organization)
    return {"connection_logs": [_connection(row, organization) for row in rows], "count": count}


def _connection(row: ConnectionLog, organization: views.Json) -> views.Json:
    ssh: views.Json = {"connection_id": str(row.connection_id)}
    if row.disconnect_time:
        ssh |= {"disconnect_time": views.when(row.disconnect_time), "disconnect_reason": row.disconnect_reason}
        ssh |= {"exit_code": row.exit_code}
    return {
        "id": str(row.id),
        "connect_time": views.when(row.connect_time),
        "organization": {name: organization[name] for name in ("id", "name", "display_name", "icon")},
        "workspace_owner_id": str(row.owner_id),
        "workspace_owner_username": row.owner_username,
        "workspace_id": str(row.workspace_id),
        "workspace_name": row.workspace_name,
        "agent_name": row.agent_name,
        "ip": row.ip,
        "type": row.type,
        "ssh_info": ssh,
        "user_id": str(row.user_id) if row.user_id else None,
        "username": row.username,
    }
