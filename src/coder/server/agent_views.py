"""What an agent's template lists for it, and what the agent said of that, as the JSON of the API."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from coder.access import app_names
from coder.access.app_names import Named
from coder.db.models import AgentMetadatum, WorkspaceAgent
from coder.server.agent_manifest import app_health

Json = dict[str, Any]

_NEVER = "0001-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Place:
    """The workspace of an agent."""

    id: UUID
    name: str
    owner: str


def apps(row: WorkspaceAgent, place: Place | None) -> list[Json]:
    """Write an agent's apps; the labels of their hosts too where its place is known."""
    return [_app(each) | _host(each, row.name, place) for each in row.apps]


def _host(told: Json, agent: str, place: Place | None) -> Json:
    if place is None or not told.get("subdomain"):
        return {}
    return {"subdomain_name": host_label(told["slug"], agent, place)}


def host_label(app: str, agent: str, place: Place) -> str:
    """Return the first label of the host of an app or port."""
    return app_names.label(Named(app=app, agent=agent, workspace=place.name, owner=place.owner), place.id)


def _app(told: Json) -> Json:
    check = told.get("healthcheck") or {}
    return {
        "id": told["id"],
        "url": told.get("url", ""),
        "external": told.get("external", False),
        "slug": told["slug"],
        "display_name": told.get("display_name", ""),
        "command": told.get("command", ""),
        "icon": told.get("icon", ""),
        "subdomain": told.get("subdomain", False),
        "sharing_level": told.get("sharing_level", "owner"),
        "healthcheck": {
            "url": check.get("url", ""),
            "interval": check.get("interval_seconds", 0),
            "threshold": check.get("threshold", 0),
        },
        "health": app_health(told),
        "group": told.get("group", ""),
        "hidden": told.get("hidden", False),
        "open_in": told.get("open_in") or "slim-window",
        "statuses": [],
    }


def scripts(row: WorkspaceAgent) -> list[Json]:
    """Write an agent's scripts, each with its last run if there was one."""
    return [_script(each) for each in row.scripts]


def _script(told: Json) -> Json:
    view = {
        "id": told["id"],
        "log_source_id": told["log_source_id"],
        "log_path": told.get("log_path", ""),
        "script": told["script"],
        "cron": told.get("cron", ""),
        "run_on_start": told.get("run_on_start", False),
        "run_on_stop": told.get("run_on_stop", False),
        "start_blocks_login": told.get("start_blocks_login", False),
        "timeout": told.get("timeout_seconds", 0),
        "display_name": told.get("display_name", ""),
    }
    if run := told.get("last_run"):
        view["last_run"] = {name: _zulu(value) if name.endswith("_at") else value for name, value in run.items()}
    return view


def _zulu(moment: str) -> str:
    return moment.replace("+00:00", "Z")


def log_sources(row: WorkspaceAgent) -> list[Json]:
    """Write where an agent's lines come from: its scripts, and what it made itself."""
    of_scripts = [
        {
            "id": each["log_source_id"],
            "display_name": each.get("display_name", ""),
            "icon": each.get("icon", ""),
            "created_at": row.created_at.isoformat(),
        }
        for each in row.scripts
    ]
    return [
        {"workspace_agent_id": str(row.id), **each, "created_at": _zulu(each["created_at"])}
        for each in [*of_scripts, *row.log_sources]
    ]


def source_names(row: WorkspaceAgent) -> dict[UUID, str]:
    """Return the names of log sources by id."""
    return {UUID(each["id"]): each["display_name"] for each in log_sources(row)}


def metadata(row: WorkspaceAgent, found: dict[str, AgentMetadatum], now: Any) -> list[Json]:
    """Write an agent's metadata, each item with its latest value."""
    return [_metadatum(each, found.get(each["key"]), now) for each in row.metadata_items]


def _metadatum(told: Json, value: AgentMetadatum | None, now: Any) -> Json:
    return {
        "result": {
            "collected_at": _zulu(value.collected_at.isoformat()) if value else _NEVER,
            "age": int((now - value.collected_at).total_seconds()) if value else 0,
            "value": value.value if value else "",
            "error": value.error if value else "",
        },
        "description": {
            "display_name": told.get("display_name", ""),
            "key": told["key"],
            "script": told["script"],
            "interval": told.get("interval_seconds", 0),
            "timeout": told.get("timeout_seconds", 0),
        },
    }
