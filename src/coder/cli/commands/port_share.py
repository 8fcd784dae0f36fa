"""`coder port-share`: with whom the ports of a workspace are shared."""

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import UUID

import click

from coder.access import app_names
from coder.access.app_names import Named
from coder.cli import output, workspaces
from coder.cli.context import Globals
from coder.cli.options import Group, output_option, workspace_argument

if TYPE_CHECKING:
    from coder.cli.api import Api

COLUMNS = ("port", "agent", "shared with", "protocol", "url")
LEVELS = ("organization", "authenticated", "public")


@click.group("port-share", cls=Group)
def command() -> None:
    """Share ports of a workspace with others, who open them in their browsers."""


@command.command("list")
@workspace_argument()
@output_option("table", "json")
@click.pass_obj
def list_shares(flags: Globals, *, workspace: str, form: str) -> None:
    """List the shared ports of a workspace and where they are."""
    with flags.api() as api:
        found = workspaces.find(api, workspaces.Target.parse(workspace))
        shares = api.call("GET", _path(found))["shares"]
        shown = [share | {"url": _url(api, found, share)} for share in shares]
    if form == "json":
        output.out(output.json_text(shown))
    elif not shown:
        output.note("No port is shared. Share one:\n  coder port-share set WORKSPACE PORT --level authenticated")
    else:
        keys = ("port", "agent_name", "share_level", "protocol", "url")
        output.out(output.table(COLUMNS, [[str(share[key]) for key in keys] for share in shown]))


@command.command("set")
@workspace_argument()
@click.argument("port", type=click.IntRange(app_names.LOWEST_PORT, 0xFFFF))
@click.option("--level", type=click.Choice(LEVELS), required=True, help="With whom.")
@click.option(
    "--protocol", type=click.Choice(["http", "https"]), default="http", show_default=True, help="What the port speaks."
)
@click.pass_obj
def put(flags: Globals, *, workspace: str, port: int, level: str, protocol: str) -> None:
    """Share a port, or share it with others than before."""
    target = workspaces.Target.parse(workspace)
    with flags.api() as api:
        found = workspaces.find(api, target)
        agent = workspaces.choose_agent(found, target)["name"]
        share = {"agent_name": agent, "port": port, "share_level": level, "protocol": protocol}
        api.call("POST", _path(found), share)
        where = _url(api, found, share)
    whom = {"public": "everybody", "authenticated": "everybody who is signed in"}.get(level, "your organization")
    output.out(f"Port {port} of {target.name!r} is shared with {whom}.")
    output.out(where or "The server has no host for ports: --wildcard-access-url is not set.")


@command.command("delete")
@workspace_argument()
@click.argument("port", type=int)
@click.pass_obj
def delete(flags: Globals, *, workspace: str, port: int) -> None:
    """Share a port no more."""
    target = workspaces.Target.parse(workspace)
    with flags.api() as api:
        found = workspaces.find(api, target)
        agent = workspaces.choose_agent(found, target)["name"]
        api.call("DELETE", _path(found), {"agent_name": agent, "port": port})
    output.out(f"Port {port} of {target.name!r} is not shared any more.")


def _path(workspace: Any) -> str:
    return f"/api/v2/workspaces/{workspace['id']}/port-share"


def _url(api: "Api", workspace: Any, share: Any) -> str:
    """Return where a port is, empty without hosts for ports."""
    host = api.call("GET", "/api/v2/applications/host").get("host")
    if not host:
        return ""
    port = f"{share['port']}s" if share["protocol"] == "https" else str(share["port"])
    named = Named(app=port, agent=share["agent_name"], workspace=workspace["name"], owner=workspace["owner_name"])
    label = app_names.label(named, UUID(workspace["id"]))
    return f"{urlsplit(str(api.url)).scheme}://{host.replace('*', label, 1)}/"
