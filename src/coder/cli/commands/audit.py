"""`coder audit`: who did what on the server."""

from collections.abc import Callable
from typing import Any

import click

from coder.cli import accounts, times
from coder.cli.context import Globals
from coder.cli.listing import Listing
from coder.cli.options import Moment, column_option, output_option

_NOTHING = "00000000-0000-0000-0000-000000000000"

_CELLS: dict[str, Callable[[Any], str]] = {
    "time": lambda one: times.short(one.get("time")),
    "user": lambda one: str((one.get("user") or {}).get("username") or "-"),
    "action": lambda one: str(one.get("action") or ""),
    "resource": lambda one: str(one.get("resource_type") or ""),
    "target": lambda one: str(one.get("resource_target") or one.get("resource_id") or "").replace(_NOTHING, ""),
    "detail": lambda one: str((one.get("additional_fields") or {}).get("detail") or ""),
    "status": lambda one: str(one.get("status_code") or ""),
    "ip": lambda one: str(one.get("ip") or ""),
    "user agent": lambda one: str(one.get("user_agent") or ""),
}
DEFAULT = ("time", "user", "action", "resource", "target", "detail", "status", "ip")
LISTING = Listing(_CELLS, DEFAULT, least=("ip", "detail", "status"))
_KEYS = (("username", "user"), ("action", "action"), ("resource_type", "resource"), ("date_from", "since"))


@click.command("audit")
@click.option("--user", help="Who did it.")
@click.option("--action", help="Such as create, write, delete, login, logout.")
@click.option("--resource", help="Such as user, api_key, workspace.")
@click.option(
    "--since", type=Moment(), metavar="TIME", help="Not before then, such as 2030-01-31, or 2h for the last two hours."
)
@click.option("--failed", is_flag=True, help="Only what was refused.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Most entries to show.")
@output_option("table", "json")
@column_option(", ".join(LISTING.columns))
@click.pass_obj
def command(
    flags: Globals, /, *, limit: int, form: str, chosen: str | None, failed: bool, **filters: str | None
) -> None:
    """List who did what, when, from where and with which result; the newest first."""
    columns = LISTING.pick(chosen)
    terms = [f'{key}:"{filters[name]}"' for key, name in _KEYS if filters[name]]
    with flags.api() as api:
        found = accounts.audit(api, " ".join([*terms, "success:false"] if failed else terms), limit)
    LISTING.print(found, columns, form, "The audit log holds nothing of that kind.")
