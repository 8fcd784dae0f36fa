"""`coder list`."""

from collections.abc import Callable
from typing import Any

import click

from coder.cli import times, workspaces
from coder.cli.context import Globals
from coder.cli.listing import Listing
from coder.cli.options import column_option, output_option

DEFAULT = ("workspace", "template", "status", "healthy", "agent", "last built")
LEAST = ("template", "last built", "healthy")


def _template(workspace: Any) -> str:
    return str(workspace.get("template_display_name") or workspace.get("template_name") or "")


def _healthy(workspace: Any) -> str:
    if workspace["latest_build"].get("status") not in {"running", "starting"}:
        return ""
    return str(bool((workspace.get("health") or {}).get("healthy"))).lower()


def _built(workspace: Any) -> str:
    build = workspace["latest_build"]
    return times.ago((build.get("job") or {}).get("created_at") or build.get("created_at"))


_CELLS: dict[str, Callable[[Any], str]] = {
    "workspace": lambda one: f"{one['owner_name']}/{one['name']}",
    "template": _template,
    "status": workspaces.status_text,
    "healthy": _healthy,
    "last built": _built,
    "current version": lambda one: str(one["latest_build"].get("template_version_name") or ""),
    "outdated": lambda one: str(bool(one.get("outdated"))).lower(),
    "agent": lambda one: ", ".join(map(workspaces.connection_text, workspaces.agents(one))),
    "created at": lambda one: times.ago(one.get("created_at")),
}
LISTING = Listing(_CELLS, DEFAULT, LEAST)


@click.command("list")
@click.option("-a", "--all", "everyone", is_flag=True, help="Also the workspaces of other users.")
@click.option("--search", metavar="QUERY", help="What to look for.  [default: owner:me]")
@output_option("table", "json")
@column_option(", ".join(LISTING.columns))
@click.pass_obj
def command(flags: Globals, *, everyone: bool, search: str | None, form: str, chosen: str | None) -> None:
    """List workspaces."""
    columns = LISTING.pick(chosen)
    query = search if search is not None else ("" if everyone else "owner:me")
    with flags.api() as api:
        found = api.workspaces(query)
    LISTING.print(found, columns, form, "No workspaces found! Create one:\n  coder create <name>")
