"""`coder logout`."""

import click

from coder.cli import output
from coder.cli.context import Globals
from coder.errors import CoderError


@click.command("logout")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def command(flags: Globals, *, yes: bool) -> None:
    """Sign out and forget the session.

    The files go even when the server cannot be told; the session then ends there by its age.
    """
    api = flags.api()
    if not yes and flags.interactive:
        click.confirm("Sign out?", abort=True, default=True, err=True)
    try:
        with api:
            api.sign_out()
    except CoderError as error:
        output.note(f"The server was not told: {error}")
    flags.config.clear()
    output.out("You are no longer logged in. You can log in using 'coder login <url>'.")
