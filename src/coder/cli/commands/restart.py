"""`coder restart`."""

import click

from coder.cli import builds, output, workspaces
from coder.cli.context import Globals
from coder.cli.options import workspace_argument


@click.command("restart")
@workspace_argument()
@click.option("--parameter", "given", multiple=True, metavar="NAME=VALUE", help="Choose another value; repeatable.")
@click.option("-y", "--yes", is_flag=True, hidden=True)
@click.pass_obj
def command(flags: Globals, *, workspace: str, given: tuple[str, ...], yes: bool) -> None:
    """Stop a workspace, then start it. Sessions in it end."""
    del yes  # nothing is asked
    target = workspaces.Target.whole(workspace)
    more = {"rich_parameter_values": builds.parameters(given)} if given else {}
    with flags.api() as api:
        found = workspaces.find(api, target)
        if found["latest_build"].get("status") != "stopped":
            builds.carry_out(api, found, "stop")
        builds.carry_out(api, found, "start", **more)
    output.out(f"The workspace {target.name!r} has been restarted.")
