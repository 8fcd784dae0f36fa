"""`coder tokens`: what programs sign in with."""

from collections.abc import Callable
from typing import Any

import click

from coder.cli import accounts, output, times
from coder.cli.context import Globals
from coder.cli.listing import Listing
from coder.cli.options import Duration, Group, column_option, output_option

_CELLS: dict[str, Callable[[Any], str]] = {
    "id": lambda one: str(one["id"]),
    "name": lambda one: str(one.get("token_name") or ""),
    "scope": lambda one: str(one.get("scope") or ""),
    "last used": lambda one: times.ago(one.get("last_used")),
    "expires at": lambda one: times.short(one.get("expires_at")),
    "created at": lambda one: times.ago(one.get("created_at")),
    "owner": lambda one: str(one.get("username") or one.get("user_id") or ""),
}
DEFAULT = ("id", "name", "last used", "expires at", "created at")
LISTING = Listing(_CELLS, DEFAULT, least=("created at", "last used"))


@click.group("tokens", cls=Group, aliases={"ls": "list", "rm": "remove", "delete": "remove"})
def command() -> None:
    """Create, list and remove the tokens that programs sign in with."""


@command.command("create")
@click.option(
    "--lifetime",
    type=Duration(),
    envvar="CODER_TOKEN_LIFETIME",
    help="Such as 8h, 30d, 4w. [env: CODER_TOKEN_LIFETIME]",
)
@click.option(
    "-n", "--name", default="", envvar="CODER_TOKEN_NAME", help="A name to know it by. [env: CODER_TOKEN_NAME]"
)
@click.option(
    "-u",
    "--user",
    default="me",
    envvar="CODER_TOKEN_USER",
    help="Whom it signs in. [env: CODER_TOKEN_USER; default: you]",
)
@click.option(
    "--scope", type=click.Choice(["all", "application_connect"]), default="all", show_default=True,
    help="What it opens: everything its user may do, or their apps alone.",
)  # fmt: skip
@click.pass_obj
def create(flags: Globals, *, lifetime: float | None, name: str, user: str, scope: str) -> None:
    """Create a token and print it, this once. It acts as its user until it expires or is removed."""
    if lifetime is not None and lifetime < 1:
        raise click.BadParameter("a token lives a second at least", param_hint="--lifetime")
    with flags.api() as api:
        made = accounts.create_token(api, user, name=name, lifetime=lifetime or 0, scope=scope)
    output.out(made.reveal())


@command.command("list")
@click.option("-a", "--all", "everyone", is_flag=True, help="Also those of other users.")
@output_option("table", "json")
@column_option(", ".join(LISTING.columns))
@click.pass_obj
def list_tokens(flags: Globals, *, everyone: bool, form: str, chosen: str | None) -> None:
    """List tokens; their secrets are not known any more."""
    columns = LISTING.pick(chosen, (*DEFAULT, "owner") if everyone else ())
    with flags.api() as api:
        found = accounts.tokens(api, everyone=everyone)
    LISTING.print(found, columns, form, "There are no tokens. Create one:\n  coder tokens create")


@command.command("remove")
@click.argument("token", metavar="NAME|ID|TOKEN")
@click.pass_obj
def remove(flags: Globals, *, token: str) -> None:
    """Remove a token; what is connected with it ends."""
    with flags.api() as api:
        accounts.remove_token(api, accounts.find_token(api, token)["id"])
    output.out("Token has been deleted.")
