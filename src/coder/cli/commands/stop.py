"""`coder stop`."""

import click

from coder.cli import builds, output, workspaces
from coder.cli.context import Globals
from coder.cli.options import workspace_argument


@click.command("stop")
@workspace_argument()
@click.option("-y", "--yes", is_flag=True, hidden=True)
@click.pass_obj
def command(flags: Globals, *, workspace: str, yes: bool) -> None:
    """Stop a workspace and show the log of its build. A machine of your own keeps running, but cannot be reached."""
    del yes  # nothing is asked: it can be started again
    target = workspaces.Target.whole(workspace)
    with flags.api() as api:
        found = workspaces.find(api, target)
        if found["latest_build"].get("status") == "stopped":
            output.out(f"The workspace {target.name!r} is stopped already.")
            return
        builds.carry_out(api, found, "stop")
    output.out(f"The workspace {target.name!r} has been stopped.")
