"""Rows as the JSON of the API. Field names are the protocol's; what it leaves out when empty is left out here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from coder.access import roles
from coder.access.schedule import Schedule
from coder.db.models import ApiKey, Organization, TemplateVersion, User, Workspace, WorkspaceAgent, WorkspaceBuild
from coder.errors import Malformed
from coder.server import agent_status, agent_views, build_status
from coder.server.agent_views import Place

Json = dict[str, Any]

NIL = "00000000-0000-0000-0000-000000000000"
_NOBODY = {"count": 0, "available": 0, "most_recently_seen": None}


def when(moment: datetime) -> str:
    """Write a time as RFC 3339 in UTC."""
    return moment.isoformat().replace("+00:00", "Z")


def user(row: User) -> Json:
    """Write a user."""
    return {
        "id": str(row.id),
        "username": row.username,
        "name": row.name,
        "email": row.email,
        "created_at": when(row.created_at),
        "updated_at": when(row.updated_at),
        "last_seen_at": when(row.last_seen_at),
        "status": row.status,
        "login_type": row.login_type,
        **({"browser_only": True} if row.browser_only else {}),
        "organization_ids": [str(row.organization_id)],
        "roles": [{"name": name, "display_name": roles.DISPLAY.get(name, name)} for name in sorted(row.role_names)],
    }


def organization(row: Organization) -> Json:
    """Write an organization."""
    return {
        "id": str(row.id),
        "name": row.name,
        "display_name": row.display_name,
        "icon": "",
        "description": "",
        "created_at": when(row.created_at),
        "updated_at": when(row.updated_at),
        "is_default": row.is_default,
    }


def api_key(row: ApiKey) -> Json:
    """Write a session or token; its secret is not known here."""
    return {
        "id": row.id,
        "user_id": str(row.user_id),
        "last_used": when(row.last_used),
        "expires_at": when(row.expires_at),
        "created_at": when(row.created_at),
        "updated_at": when(row.updated_at),
        "login_type": row.login_type,
        "scope": row.scope,
        "token_name": row.token_name or "",
        "lifetime_seconds": row.lifetime_seconds,
        "username": row.user.username,
    }


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a view needs to know besides the rows."""

    now: datetime
    troubleshooting_url: str
    latencies: Mapping[UUID, Mapping[str, Mapping[str, Any]]]
    """By agent, then by region name: what the agent measured to the relays."""
    places: Mapping[UUID, Place] = field(default_factory=dict)
    """By agent: its workspace, which the hosts of its apps are named after."""


def agent(row: WorkspaceAgent, resource_id: UUID, around: Surroundings) -> Json:
    """Write an agent, which belongs to a resource of its build."""
    health = agent_status.health(row, around.now)
    view: Json = {
        "id": str(row.id),
        "parent_id": None,
        "created_at": when(row.created_at),
        "updated_at": when(row.updated_at),
        "status": agent_status.status(row, around.now).value,
        "lifecycle_state": row.lifecycle_state,
        "name": row.name,
        "resource_id": str(resource_id),
        "architecture": row.architecture,
        "environment_variables": None,
        "operating_system": row.operating_system,
        "logs_length": row.logs_length,
        "logs_overflowed": row.logs_overflowed,
        "directory": row.directory,
        "version": row.version,
        "api_version": row.api_version,
        "apps": agent_views.apps(row, around.places.get(row.id)),
        "connection_timeout_seconds": row.connection_timeout_seconds,
        "troubleshooting_url": around.troubleshooting_url,
        "subsystems": row.subsystems.split(",") if row.subsystems else [],
        "health": {"healthy": True} if health.healthy else {"healthy": False, "reason": health.reason},
        "display_apps": ["ssh_helper", "port_forwarding_helper", "web_terminal"],
        "log_sources": agent_views.log_sources(row),
        "scripts": agent_views.scripts(row),
        "startup_script_behavior": "blocking" if _blocks(row) else "non-blocking",
    }
    for name in ("first_connected_at", "last_connected_at", "disconnected_at", "started_at", "ready_at"):
        if moment := getattr(row, name):
            view[name] = when(moment)
    if row.disconnect_reason and agent_status.status(row, around.now) is agent_status.Status.DISCONNECTED:
        view["disconnect_reason"] = row.disconnect_reason
    if row.expanded_directory:
        view["expanded_directory"] = row.expanded_directory
    if latency := around.latencies.get(row.id):
        view["latency"] = latency
    return view


def _blocks(row: WorkspaceAgent) -> bool:
    return any(each.get("start_blocks_login") for each in row.scripts)


def _job(job_id: UUID, created: datetime, organization_id: UUID, *, kind: str, source: Json) -> Json:
    """Write a job that was done at once."""
    return {
        "id": str(job_id),
        "created_at": when(created),
        "started_at": when(created),
        "completed_at": when(created),
        "status": "succeeded",
        "worker_id": NIL,
        "file_id": NIL,
        "tags": {"owner": "", "scope": "organization"},
        "queue_position": 0,
        "queue_size": 0,
        "organization_id": str(organization_id),
        "input": source,
        "type": kind,
        "metadata": {
            "template_version_name": "",
            "template_id": NIL,
            "template_name": "",
            "template_display_name": "",
            "template_icon": "",
        },
        "logs_overflowed": False,
    }


def _build_job(row: WorkspaceBuild, organization_id: UUID) -> Json:
    source = {"workspace_build_id": str(row.id)}
    job = _job(row.job_id, row.created_at, organization_id, kind="workspace_build", source=source)
    ended = when(row.ended_at) if row.ended_at else None
    job |= {"status": row.status, "started_at": when(row.started_at) if row.started_at else None, "completed_at": ended}
    if row.error:
        job["error"] = row.error
    if row.status == "canceled":
        job["canceled_at"] = ended
    return job


def build(row: WorkspaceBuild, workspace: Workspace, around: Surroundings) -> Json:
    """Write a build of a workspace."""
    agents = [agent(each, row.resource_id, around) for each in row.agents]
    resource = {
        "id": str(row.resource_id),
        "created_at": when(row.created_at),
        "job_id": str(row.job_id),
        "workspace_transition": row.transition,
        "type": build_status.resource_type(workspace),
        "name": workspace.template.kind,
        "hide": False,
        "icon": workspace.template.icon,
        "agents": agents,
        "daily_cost": 0,
    }
    return {
        "id": str(row.id),
        "created_at": when(row.created_at),
        "updated_at": when(row.ended_at or row.started_at or row.created_at),
        "workspace_id": str(workspace.id),
        "workspace_name": workspace.name,
        "workspace_owner_id": str(workspace.owner_id),
        "workspace_owner_name": workspace.owner.username,
        "template_version_id": str(row.template_version_id),
        "template_version_name": row.template_version.name,
        "build_number": row.number,
        "transition": row.transition,
        "initiator_id": str(row.initiator_id),
        "initiator_name": row.initiator.username,
        "job": _build_job(row, workspace.organization_id),
        "reason": row.reason,
        "resources": [resource] if agents else [],
        "deadline": when(row.deadline) if row.deadline else None,
        "max_deadline": None,
        "status": build_status.status(row),
        "daily_cost": 0,
        "matched_provisioners": dict(_NOBODY),
        "template_version_preset_id": None,
        "has_ai_task": False,
        "has_external_agent": False,
    }


def workspace(row: Workspace, around: Surroundings) -> Json:
    """Write a workspace."""
    latest = row.latest_build
    failing = [each for each in latest.agents if not agent_status.health(each, around.now).healthy]
    view: Json = {
        "id": str(row.id),
        "created_at": when(row.created_at),
        "updated_at": when(row.updated_at),
        "owner_id": str(row.owner_id),
        "owner_name": row.owner.username,
        "owner_avatar_url": "",
        "organization_id": str(row.organization_id),
        "organization_name": row.organization.name,
        "template_id": str(row.template_id),
        "template_name": row.template.name,
        "template_display_name": row.template.display_name,
        "template_icon": row.template.icon,
        "template_kind": row.template.kind,
        "template_allow_user_cancel_workspace_jobs": True,
        "template_active_version_id": str(row.template.active_version_id),
        "template_require_active_version": False,
        "template_use_classic_parameter_flow": False,
        "latest_build": build(latest, row, around),
        "latest_app_status": None,
        "outdated": latest.template_version_id != row.template.active_version_id,
        "name": row.name,
        "last_used_at": when(row.last_used_at),
        "deleting_at": None,
        "dormant_at": None,
        "health": {"healthy": not failing, "failing_agents": [str(each.id) for each in failing]},
        "automatic_updates": "never",
        "allow_renames": True,
        "favorite": False,
        "next_start_at": _next_start(row, around.now),
        "is_prebuild": False,
    }
    if row.autostart_schedule:
        view["autostart_schedule"] = row.autostart_schedule
    if row.ttl_ms:
        view["ttl_ms"] = row.ttl_ms
    return view


def _next_start(row: Workspace, now: datetime) -> str | None:
    try:
        return when(Schedule.parse(row.autostart_schedule).after(now)) if row.autostart_schedule else None
    except Malformed:  # a time zone that this machine does not know any more
        return None


def template_version(row: TemplateVersion, organization_id: UUID) -> Json:
    """Write a version of a template."""
    return {
        "id": str(row.id),
        "template_id": str(row.template_id),
        "organization_id": str(organization_id),
        "created_at": when(row.created_at),
        "updated_at": when(row.updated_at),
        "name": row.name,
        "message": "",
        "job": _job(
            row.id,
            row.created_at,
            organization_id,
            kind="template_version_import",
            source={"template_version_id": str(row.id)},
        ),
        "readme": "",
        "created_by": {"id": NIL, "username": ""},
        "archived": False,
        "has_external_agent": False,
    }
