"""`coder list`."""

import sys
from collections.abc import Callable
from typing import Any

import click

from coder.cli import output, times, workspaces
from coder.cli.context import Globals
from coder.cli.options import column_option, output_option

DEFAULT = ("workspace", "template", "status", "healthy", "agent", "last built")


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
    "agent": lambda one: ", ".join(str(agent.get("status", "")) for agent in workspaces.agents(one)),
    "created at": lambda one: times.ago(one.get("created_at")),
}
COLUMNS = tuple(_CELLS)


LEAST = ("template", "last built", "healthy")
"""What is left out first where a terminal is too narrow."""


def _fitting(columns: list[str], found: list[Any]) -> list[str]:
    """Leave out columns until the table fits the terminal; all stay in a pipe."""
    import shutil

    if not sys.stdout.isatty():
        return columns
    width = shutil.get_terminal_size().columns
    for name in LEAST:
        rows = [[_CELLS[column](one) for column in columns] for one in found]
        if max(map(len, output.table(columns, rows).splitlines())) <= width:
            break
        columns = [column for column in columns if column != name]
    return columns


@click.command("list")
@click.option("-a", "--all", "everyone", is_flag=True, help="Also the workspaces of other users.")
@click.option("--search", metavar="QUERY", help="What to look for.  [default: owner:me]")
@output_option("table", "json")
@column_option(", ".join(COLUMNS))
@click.pass_obj
def command(flags: Globals, *, everyone: bool, search: str | None, form: str, chosen: str | None) -> None:
    """List workspaces."""
    columns = output.pick(COLUMNS, chosen, DEFAULT)
    query = search if search is not None else ("" if everyone else "owner:me")
    with flags.api() as api:
        found = api.workspaces(query)
    if form == "json":
        output.out(output.json_text(found))
    elif not found:
        output.note("No workspaces found! Create one:\n  coder create <name>")
    else:
        if chosen is None:
            columns = _fitting(columns, found)
        output.out(output.table(columns, [[_CELLS[column](one) for column in columns] for one in found]))
