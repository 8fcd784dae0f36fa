"""`coder connections`: who was connected to workspaces."""

from collections.abc import Callable
from typing import Any

import click

from coder.cli import accounts, times, workspaces
from coder.cli.context import Globals
from coder.cli.listing import Listing
from coder.cli.options import Moment, column_option, format_duration, output_option


def _duration(one: Any) -> str:
    began = times.parse(one.get("connect_time"))
    ended = times.parse((one.get("ssh_info") or {}).get("disconnect_time"))
    return format_duration(int((ended - began).total_seconds())) if began and ended else "open"


def _exit(one: Any) -> str:
    code = (one.get("ssh_info") or {}).get("exit_code")
    return "" if code is None else str(code)


_CELLS: dict[str, Callable[[Any], str]] = {
    "connected at": lambda one: times.short(one.get("connect_time")),
    "workspace": lambda one: f"{one.get('workspace_owner_username')}/{one.get('workspace_name')}",
    "agent": lambda one: str(one.get("agent_name") or ""),
    "type": lambda one: str(one.get("type") or ""),
    "user": lambda one: str(one.get("username") or "-"),
    "ip": lambda one: str(one.get("ip") or ""),
    "duration": _duration,
    "exit code": _exit,
    "reason": lambda one: str((one.get("ssh_info") or {}).get("disconnect_reason") or ""),
}
DEFAULT = ("connected at", "workspace", "type", "user", "ip", "duration", "exit code")
LISTING = Listing(_CELLS, DEFAULT, least=("ip", "exit code", "user"))
_KEYS = (
    ("workspace_owner", "owner"),
    ("workspace", "workspace"),
    ("type", "kind"),
    ("username", "user"),
    ("connected_after", "since"),
)


@click.command("connections")
@click.option("--workspace", metavar="[OWNER/]NAME", help="Name of the workspace.")
@click.option("--owner", help="Owner of the workspace.")
@click.option("--user", help="Who connected.")
@click.option(
    "--type", "kind", type=click.Choice(["ssh", "vscode", "jetbrains", "reconnecting_pty"]), help="What it was for."
)
@click.option(
    "--since", type=Moment(), metavar="TIME", help="Not before then, such as 2030-01-31, or 2h for the last two hours."
)
@click.option("--open", "ongoing", is_flag=True, help="Only those that have not ended.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Most connections to show.")
@output_option("table", "json")
@column_option(", ".join(LISTING.columns))
@click.pass_obj
def command(
    flags: Globals, /, *, limit: int, form: str, chosen: str | None, ongoing: bool, **filters: str | None
) -> None:
    """List who was connected to workspaces you may see, when, from where and how long; the newest first."""
    columns = LISTING.pick(chosen)
    owner, _, workspace = (filters["workspace"] or "").rpartition("/")
    filters |= {"workspace": workspace, "owner": filters["owner"] or owner}
    terms = [f'{key}:"{filters[name]}"' for key, name in _KEYS if filters[name]]
    with flags.api() as api:
        found = accounts.connections(api, " ".join([*terms, "status:ongoing"] if ongoing else terms), limit)
        if not found and workspace:
            workspaces.require(api, filters["owner"], workspace)
    LISTING.print(found, columns, form, "The log holds no connection of that kind.")
