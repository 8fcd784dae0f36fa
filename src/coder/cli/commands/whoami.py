"""`coder whoami`."""

import click

from coder.cli import output
from coder.cli.context import Globals
from coder.cli.options import output_option


@click.command("whoami")
@output_option("text", "table", "json")
@click.pass_obj
def command(flags: Globals, *, form: str) -> None:
    """Say who is signed in, and where."""
    with flags.api() as api:
        user = api.me()
    if form == "json":
        output.out(output.json_text([{"url": api.url, "username": user["username"], "id": user["id"]}]))
    elif form == "table":
        output.out(output.table(["url", "username", "id"], [[api.url, user["username"], user["id"]]]))
    else:
        name = output.printable(user["username"])
        output.out(f"Coder is running at {api.url}, You're authenticated as {name} !")
