"""`coder create`."""

import os
import shlex
from pathlib import Path

import click

from coder.cli import output, workspaces
from coder.cli.context import Globals
from coder.cli.options import output_option
from coder.cli.store import write_private


@click.command("create")
@click.argument("name")
@output_option("text", "json")
@click.option(
    "--output-token-file", "token_file", type=click.Path(dir_okay=False, path_type=Path),
    help="Write the agent's token to this file (mode 0600) instead of printing it.",
)  # fmt: skip
@click.pass_obj
def command(flags: Globals, *, name: str, form: str, token_file: Path | None) -> None:
    """Create a workspace whose machine you bring.

    Prints the one line to run on that machine. The line holds the agent's token, which is shown only this once:
    whoever has it can act as the machine.
    """
    if token_file is not None:
        _check(token_file)
    with flags.api() as api:
        workspace, token = api.create_workspace(name)
        agent = workspaces.agents(workspace)[0]
    place = {"CODER_AGENT_URL": api.url}
    if token_file is not None:
        write_private(token_file, token.reveal() + "\n")
        place["CODER_AGENT_TOKEN_FILE"] = str(token_file.absolute())
    else:
        place["CODER_AGENT_TOKEN"] = token.reveal()
    line = " ".join([*(f"{key}={shlex.quote(value)}" for key, value in place.items()), "coder", "agent"])
    if form == "json":
        result = {key: workspace[key] for key in ("id", "name", "owner_name")}
        result |= {"agent_id": agent["id"], "agent_name": agent["name"], "agent_url": api.url, "command": line}
        output.out(output.json_text(result | ({} if token_file else {"agent_token": token.reveal()})))
        return
    output.note(f"The workspace {workspace['name']!r} has been created. Run this on its machine:\n")
    output.out(f"  {line}" if flags.watched else line)


def _check(token_file: Path) -> None:
    """Refuse a file that could not be written, before there is a token that would be lost."""
    place = token_file.absolute()
    if os.path.lexists(place):
        problem = f"{token_file} exists already and may hold another workspace's token; name another file, or remove it"
    elif not place.parent.is_dir():
        problem = f"there is no directory {place.parent}"
    elif not os.access(place.parent, os.W_OK | os.X_OK):
        problem = f"{place.parent} cannot be written to"
    else:
        return
    raise click.BadParameter(problem, param_hint="--output-token-file")
