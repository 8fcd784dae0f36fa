"""`coder show`."""

from typing import Any

import click

from coder.cli import output, times, workspaces
from coder.cli.context import Globals
from coder.cli.options import output_option
from coder.errors import CoderError


@click.command("show")
@click.argument("workspace")
@output_option("table", "json")
@click.pass_obj
def command(flags: Globals, *, workspace: str, form: str) -> None:
    """Show a workspace and its agents."""
    target = workspaces.Target.parse(workspace)
    with flags.api() as api:
        found = workspaces.find(api, target)
        if form == "json":
            output.out(output.json_text(found))
            return
        rows = []
        for resource in found["latest_build"].get("resources") or []:
            rows.append([f"{resource['type']}.{resource['name']}", "", "", "", ""])
            for agent in resource.get("agents") or []:
                rows.append(_agent_row(found, agent))
                rows += [["     " + port, "", "", "", ""] for port in _ports(api, agent)]
    name = output.printable(f"{found['owner_name']}/{found['name']}")
    output.out(f"{name}  {workspaces.status_text(found)}, created {times.ago(found.get('created_at')) or 'just now'}\n")
    output.out(output.table(["resource", "status", "health", "version", "access"], rows))


def _agent_row(workspace: Any, agent: Any) -> list[str]:
    place = ", ".join(part for part in (agent.get("operating_system"), agent.get("architecture")) if part)
    status = str(agent.get("status", ""))
    if status in {"disconnected", "timeout"} and (since := times.ago(agent.get("disconnected_at"))):
        status += f" {since}"
    elif status == "connected" and agent.get("lifecycle_state") != "ready":
        status += f", {agent.get('lifecycle_state')}"
    health = "healthy" if (agent.get("health") or {}).get("healthy") else "not healthy"
    several = len(workspaces.agents(workspace)) > 1
    access = f"coder ping {workspace['name']}{'.' + agent['name'] if several else ''}"
    label = f"└─ {agent['name']}" + (f" ({place})" if place else "")
    return [label, status, health, str(agent.get("version") or ""), access]


def _ports(api: Any, agent: Any) -> list[str]:
    """Name what listens in the workspace; nothing when the agent cannot be asked."""
    if agent.get("status") != "connected":
        return []
    try:
        ports = api.listening_ports(agent["id"])
    except CoderError:
        return []
    return [f"{port['port']}/{port['network']} {port.get('process_name') or ''}".rstrip() for port in ports]
