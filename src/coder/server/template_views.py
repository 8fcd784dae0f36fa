"""Templates as the JSON of the API."""

from typing import Any

from coder.access.templates import Parameter
from coder.db.models import Organization, TemplateVersion
from coder.db.templates import Offer
from coder.server.views import NIL, when

Json = dict[str, Any]

_EVERY_DAY = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def template(offer: Offer, organization: Organization, *, content: bool) -> Json:
    """Write a template; with `content`, also what its active version holds, which is for those who may change it."""
    row = offer.template
    view: Json = {
        "id": str(row.id),
        "created_at": when(row.created_at),
        "updated_at": when(row.updated_at),
        "organization_id": str(row.organization_id),
        "organization_name": organization.name,
        "organization_display_name": organization.display_name,
        "organization_icon": "",
        "name": row.name,
        "display_name": row.display_name,
        "description": row.description,
        "icon": row.icon,
        "kind": row.kind,
        "browser_only": row.browser_only,
        "workspace_count": offer.workspaces,
        "provisioner": "echo",
        "active_version_id": str(row.active_version_id),
        "active_version_name": offer.version.name,
        "active_user_count": -1,
        "build_time_stats": {name: {"P50": None, "P95": None} for name in ("start", "stop", "delete")},
        "deprecated": False,
        "deprecation_message": "",
        "default_ttl_ms": row.default_ttl_ms,
        "activity_bump_ms": row.default_ttl_ms,
        "autostop_requirement": {"days_of_week": [], "weeks": 1},
        "autostart_requirement": {"days_of_week": list(_EVERY_DAY)},
        "created_by_id": NIL,
        "created_by_name": "",
        "allow_user_autostart": True,
        "allow_user_autostop": True,
        "allow_user_cancel_workspace_jobs": True,
        "failure_ttl_ms": 0,
        "time_til_dormant_ms": 0,
        "time_til_dormant_autodelete_ms": 0,
        "require_active_version": False,
        "max_port_share_level": row.max_port_share_level,
        "use_classic_parameter_flow": True,
        "cors_behavior": row.cors_behavior,
    }
    if content:
        version = offer.version
        view |= {"settings": version.settings, "agents": version.agents, "parameters": version.parameters}
    return view


def parameters(version: TemplateVersion) -> list[Json]:
    """Write what may be chosen for workspaces of a version."""
    return [_parameter(Parameter.model_validate(each)) for each in version.parameters]


def _parameter(one: Parameter) -> Json:
    options = [{"name": value, "description": "", "value": value, "icon": ""} for value in one.options]
    return {
        "name": one.name,
        "display_name": one.display_name,
        "description": one.description,
        "description_plaintext": one.description,
        "type": one.type,
        "form_type": "",
        "mutable": True,
        "default_value": one.default or "",
        "icon": "",
        "options": options,
        "required": one.default is None,
        "ephemeral": False,
    }
