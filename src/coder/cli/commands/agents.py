"""`coder agents`: the processes on workspaces' machines."""

import os
from pathlib import Path

import click

from coder.cli import output, workspaces
from coder.cli.context import Globals
from coder.cli.options import Group, output_option, workspace_argument
from coder.cli.store import write_private


@click.group("agents", cls=Group)
def command() -> None:
    """Look after the agents of workspaces."""


@command.command("token")
@workspace_argument(metavar="WORKSPACE[.AGENT]")
@click.option("--renew", is_flag=True, required=True, help="Make a new token; the old one ends at once.")
@click.option(
    "--output-token-file", "token_file", type=click.Path(dir_okay=False, path_type=Path),
    help="Write the token to this file (mode 0600) instead of printing it.",
)  # fmt: skip
@output_option("text", "json")
@click.pass_obj
def token(flags: Globals, *, workspace: str, renew: bool, token_file: Path | None, form: str) -> None:
    """Renew the token that an agent signs in with, and print it, this once.

    Whoever used the old token is cut off. The agent needs the new one as CODER_AGENT_TOKEN; a workspace that the
    server starts itself gets it with 'coder restart'.
    """
    del renew
    if token_file is not None and not os.access(token_file.absolute().parent, os.W_OK | os.X_OK):
        problem = f"the directory {token_file.absolute().parent} cannot be written to"
        raise click.BadParameter(problem, param_hint="--output-token-file")
    target = workspaces.Target.parse(workspace)
    with flags.api() as api:
        agent = workspaces.choose_agent(workspaces.find(api, target), target)
        made = api.renew_agent_token(agent["id"])
    if token_file is not None:
        write_private(token_file, made.reveal() + "\n")
    if form == "json":
        shown = {"agent_id": agent["id"], "agent_name": agent["name"]}
        output.out(output.json_text(shown | ({} if token_file else {"agent_token": made.reveal()})))
    elif token_file is None:
        output.out(made.reveal())
    output.note(f"The token of agent {agent['name']} was renewed; start the agent with the new one.")
