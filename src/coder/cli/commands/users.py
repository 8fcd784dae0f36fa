"""`coder users`: who may use the server, and as what."""

from collections.abc import Callable
from typing import Any

import click

from coder.cli import accounts, output, times
from coder.cli.context import Globals
from coder.cli.listing import Listing
from coder.cli.options import Group, column_option, output_option
from coder.ids import Secret

_CELLS: dict[str, Callable[[Any], str]] = {
    "id": lambda one: str(one["id"]),
    "username": lambda one: str(one["username"]),
    "name": lambda one: str(one.get("name") or ""),
    "email": lambda one: str(one.get("email") or ""),
    "roles": lambda one: ", ".join(role["name"] for role in one.get("roles") or []),
    "status": lambda one: str(one.get("status") or ""),
    "created at": lambda one: times.ago(one.get("created_at")),
    "last seen": lambda one: times.ago(one.get("last_seen_at")),
}
DEFAULT = ("username", "email", "roles", "status", "created at")
LISTING = Listing(_CELLS, DEFAULT, least=("created at", "status"))


@click.group("users", cls=Group, aliases={"ls": "list", "rm": "delete", "add": "create"})
def command() -> None:
    """Create users, list them, and change what they may do."""


@command.command("list")
@click.option("--search", metavar="QUERY", default="", help="Part of a name, status:suspended, role:auditor.")
@output_option("table", "json")
@column_option(", ".join(LISTING.columns))
@click.pass_obj
def list_users(flags: Globals, *, search: str, form: str, chosen: str | None) -> None:
    """List users; members see themselves only."""
    columns = LISTING.pick(chosen)
    with flags.api() as api:
        found = accounts.users(api, search)
    LISTING.print(found, columns, form, "No user is found by that.")


@command.command("show")
@click.argument("user", default="me")
@output_option("table", "json")
@click.pass_obj
def show(flags: Globals, *, user: str, form: str) -> None:
    """Show a user, yourself when none is named."""
    with flags.api() as api:
        found = accounts.user(api, user)
    if form == "json":
        output.out(output.json_text(found))
    else:
        output.out(output.table(["", ""], [[name, cell(found)] for name, cell in _CELLS.items()]).partition("\n")[2])


@command.command("create")
@click.option("-u", "--username", required=True, help="Name to sign in and to be found by.")
@click.option("-e", "--email", required=True, help="Address to sign in with.")
@click.option("-n", "--full-name", "name", default="", help="What the person is called.")
@click.option(
    "-p", "--password", envvar="CODER_USER_PASSWORD", metavar="PASSWORD",
    help="Other users of this machine can read it here: better set CODER_USER_PASSWORD, or let one be made.",
)  # fmt: skip
@click.option(
    "--login-type", type=click.Choice(["password", "oidc"]), default="password", show_default=True,
    help="How they sign in; `oidc`: through the provider, with no password here.",
)  # fmt: skip
@output_option("text", "json")
@click.pass_obj
def create(
    flags: Globals, *, username: str, email: str, name: str, password: str | None, login_type: str, form: str
) -> None:
    """Create a user, a member. Without a password one is made and printed, this once."""
    if login_type != "password" and password:
        raise click.UsageError("Who signs in through the provider has no password here: leave out --password.")
    made = None if password or login_type != "password" else accounts.generated_password()
    secret = made or (Secret(password) if password else None)
    with flags.api() as api:
        user = accounts.create_user(api, username=username, email=email, name=name, password=secret)
    if form == "json":
        output.out(output.json_text(user | ({"password": made.reveal()} if made else {})))
        return
    output.note(f"The user {username!r} has been created; they sign in as {email}.")
    if made:
        output.note("Their password, shown only now:")
        output.out(made.reveal())


def _ask(flags: Globals, question: str, yes: bool) -> None:
    if yes:
        return
    if not flags.interactive:
        raise click.UsageError("Nobody is there to confirm; pass --yes.")
    click.confirm(question, abort=True, err=True)


_YES = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


@command.command("suspend")
@click.argument("user")
@_YES
@click.pass_obj
def suspend(flags: Globals, *, user: str, yes: bool) -> None:
    """Suspend a user: their connections end at once, their sessions and tokens are refused."""
    _ask(flags, f"Suspend {user!r}?", yes)
    with flags.api() as api:
        accounts.set_status(api, user, "suspend")
    output.out(f"The user {user!r} has been suspended.")


@command.command("browser-only")
@click.argument("user")
@click.option("--off", is_flag=True, help="Let the user have tunnels again.")
@click.pass_obj
def browser_only(flags: Globals, *, user: str, off: bool) -> None:
    """Hold a user to the dashboard's terminal and apps: their tunnels end, and they get no new ones."""
    with flags.api() as api:
        accounts.set_browser_only(api, user, only=not off)
    output.out(f"The user {user!r} {'may have tunnels again' if off else 'reaches workspaces by browser only'}.")


@command.command("activate")
@click.argument("user")
@click.pass_obj
def activate(flags: Globals, *, user: str) -> None:
    """Make a suspended user active again: their tokens work again, and they may sign in."""
    with flags.api() as api:
        accounts.set_status(api, user, "activate")
    output.out(f"The user {user!r} is active.")


@command.command("delete")
@click.argument("user")
@_YES
@click.pass_obj
def delete(flags: Globals, *, user: str, yes: bool) -> None:
    """Delete a user who has no workspaces, with their sessions and tokens."""
    _ask(flags, f"Delete the user {user!r} for good?", yes)
    with flags.api() as api:
        accounts.delete_user(api, user)
    output.out(f"The user {user!r} has been deleted.")


@command.command("edit-roles")
@click.argument("user")
@click.option("--roles", "wanted", required=True, metavar="NAMES", help="All roles to have, by comma; empty for none.")
@_YES
@click.pass_obj
def edit_roles(flags: Globals, *, user: str, wanted: str, yes: bool) -> None:
    """Give a user exactly these roles: owner, user-admin, auditor. Connections they have open end."""
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    _ask(flags, f"Give {user!r} the roles {', '.join(names) or 'of a member'}?", yes)
    with flags.api() as api:
        changed = accounts.set_roles(api, user, names)
    output.out(f"The roles of {user!r} are: {output.printable(_CELLS['roles'](changed)) or 'member'}.")


@command.command("password")
@click.argument("user", default="me")
@click.pass_obj
def password(flags: Globals, *, user: str) -> None:
    """Set a password, your own when nobody is named. All other sessions and all tokens of that user end."""
    with flags.api() as api:
        me = api.me()
        own = user.lower() in {"me", me["username"].lower(), me["id"]}
        old = output.ask_secret("Old password") if own else ""
        new = output.ask_secret("New password", confirm=flags.interactive)
        accounts.set_password(api, user, old=Secret(old), new=Secret(new))
    output.note("The password has been changed; all other sessions have ended.")
