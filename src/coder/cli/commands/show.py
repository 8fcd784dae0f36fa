"""`coder show`."""

from typing import Any

import click

from coder.cli import agent_facts, output, times, workspaces
from coder.cli.context import Globals
from coder.cli.listing import fitted
from coder.cli.options import output_option, workspace_argument
from coder.errors import CoderError


@click.command("show")
@workspace_argument()
@output_option("table", "json")
@click.pass_obj
def command(flags: Globals, *, workspace: str, form: str) -> None:
    """Show a workspace and its agents."""
    target = workspaces.Target.parse(workspace)
    with flags.api() as api:
        found = workspaces.find(api, target)
        shown = workspaces.agents(found)
        if target.agent is not None:
            shown = [workspaces.named(found, target.agent)]
        if form == "json":
            output.out(output.json_text(found))
            return
        told = [(agent["name"], agent_facts.facts(agent, _ports(api, agent))) for agent in shown]
    rows = []
    for resource in found["latest_build"].get("resources") or []:
        rows.append([f"{resource['type']}.{resource['name']}", "", "", "", ""])
        rows += [_agent_row(found, agent) for agent in resource.get("agents") or [] if agent in shown]
    output.out(_head(found) + "\n")
    output.out(fitted(["resource", "status", "health", "version", "access"], rows, ("version", "health")))
    for name, facts in told:
        output.out(f"\n{output.printable(name)}")
        for what, lines in facts:
            for first, text in zip([what, *[""] * len(lines)], lines, strict=False):
                output.out(output.hang(f"  {first:7}  ", text))


def _head(workspace: Any) -> str:
    """Say in one line what the workspace is, and when it will be otherwise."""
    build = workspace["latest_build"]
    parts = [workspaces.status_text(workspace), f"created {times.ago(workspace.get('created_at')) or 'just now'}"]
    if template := workspace.get("template_display_name") or workspace.get("template_name"):
        outdated = " (outdated: coder update)" if workspace.get("outdated") else ""
        parts.append(f"of the template {template}{outdated}")
    if stops := times.short(build.get("deadline")):
        parts.append(f"stops {stops} unless used")
    if (build.get("job") or {}).get("error"):
        parts.append(f"failed: {build['job']['error']}")
    return output.printable(f"{workspace['owner_name']}/{workspace['name']}  {', '.join(parts)}")


def _agent_row(workspace: Any, agent: Any) -> list[str]:
    place = ", ".join(part for part in (agent.get("operating_system"), agent.get("architecture")) if part)
    several = len(workspaces.agents(workspace)) > 1
    return [
        f"└─ {agent['name']}" + (f" ({place})" if place else ""),
        workspaces.connection_text(agent),
        "healthy" if (agent.get("health") or {}).get("healthy") else "not healthy",
        str(agent.get("version") or ""),
        f"coder ssh {workspace['name']}{'.' + agent['name'] if several else ''}",
    ]


def _ports(api: Any, agent: Any) -> list[Any]:
    """Return what listens in the workspace; nothing when the agent cannot be asked."""
    if agent.get("status") != "connected":
        return []
    try:
        return list(api.listening_ports(agent["id"]))
    except CoderError:
        return []
