"""The manifest of an agent: what is stored of it, in the protocol's words."""

from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from google.protobuf.duration_pb2 import Duration

from coder.access import app_names
from coder.db.agents import Identity
from coder.server.deployment import Deployment
from coder.wire.proto import agent_pb2 as pb

_SHARING = {
    "owner": pb.WorkspaceApp.OWNER,
    "authenticated": pb.WorkspaceApp.AUTHENTICATED,
    "organization": pb.WorkspaceApp.ORGANIZATION,
    "public": pb.WorkspaceApp.PUBLIC,
}
_HEALTH = {
    "initializing": pb.WorkspaceApp.INITIALIZING,
    "healthy": pb.WorkspaceApp.HEALTHY,
    "unhealthy": pb.WorkspaceApp.UNHEALTHY,
}


def manifest(deployment: Deployment, known: Identity) -> pb.Manifest:
    """Return the manifest of an agent."""
    derp, agent = deployment.settings.derp, known.agent
    return pb.Manifest(
        agent_id=agent.id.bytes,
        agent_name=agent.name,
        owner_username=known.owner.username,
        workspace_id=known.workspace.id.bytes,
        workspace_name=known.workspace.name,
        directory=agent.directory,
        environment_variables={name: str(value) for name, value in agent.environment.items()},
        disable_direct_connections=derp.block_direct,
        derp_force_websockets=derp.force_websockets,
        derp_map=deployment.maps.protobuf(),
        vs_code_port_proxy_uri=_ports_at(deployment, known),
        scripts=map(_script, agent.scripts),
        apps=map(_app, agent.apps),
        metadata=map(_metadatum, agent.metadata_items),
    )


def _ports_at(deployment: Deployment, known: Identity) -> str:
    """Return where editors find ports, `{{port}}` for the port; empty where ports have no hosts."""
    wildcard = app_names.wildcard_host(deployment.settings.apps.wildcard_access_url, deployment.access_url)
    if not wildcard:
        return ""
    label = f"{{{{port}}}}--{known.agent.name}--{known.workspace.name}--{known.owner.username}"
    return f"{urlsplit(deployment.access_url).scheme}://{wildcard.replace('*', label, 1)}"


def _script(told: dict[str, Any]) -> pb.WorkspaceAgentScript:
    return pb.WorkspaceAgentScript(
        id=UUID(told["id"]).bytes,
        log_source_id=UUID(told["log_source_id"]).bytes,
        log_path=told.get("log_path", ""),
        display_name=told.get("display_name", ""),
        script=told["script"],
        cron=told.get("cron", ""),
        run_on_start=told.get("run_on_start", False),
        run_on_stop=told.get("run_on_stop", False),
        start_blocks_login=told.get("start_blocks_login", False),
        timeout=Duration(seconds=told.get("timeout_seconds", 0)),
    )


def _app(told: dict[str, Any]) -> pb.WorkspaceApp:
    check = told.get("healthcheck") or {}
    return pb.WorkspaceApp(
        id=UUID(told["id"]).bytes,
        url=told.get("url", ""),
        external=told.get("external", False),
        slug=told["slug"],
        display_name=told.get("display_name", ""),
        command=told.get("command", ""),
        icon=told.get("icon", ""),
        subdomain=told.get("subdomain", False),
        sharing_level=_SHARING.get(told.get("sharing_level", ""), pb.WorkspaceApp.OWNER),
        # A released agent fails without the check, and on a health of 0.
        healthcheck=pb.WorkspaceApp.Healthcheck(
            url=check.get("url", ""),
            interval=Duration(seconds=check.get("interval_seconds", 0)),
            threshold=check.get("threshold", 0),
        ),
        health=_HEALTH.get(app_health(told), pb.WorkspaceApp.DISABLED),
        hidden=told.get("hidden", False),
    )


def app_health(told: dict[str, Any]) -> str:
    """Say how an app is: as reported, or why there is no report."""
    if not told.get("healthcheck"):
        return "disabled"
    return str(told.get("health") or "initializing")


def _metadatum(told: dict[str, Any]) -> pb.WorkspaceAgentMetadata.Description:
    return pb.WorkspaceAgentMetadata.Description(
        key=told["key"],
        display_name=told.get("display_name", ""),
        script=told["script"],
        interval=Duration(nanos=told.get("interval_seconds", 0)),  # seconds travel as nanoseconds
        timeout=Duration(nanos=told.get("timeout_seconds", 0)),
    )
