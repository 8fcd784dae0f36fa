"""`coder start`."""

import click

from coder.cli import builds, output, workspaces
from coder.cli.context import Globals
from coder.cli.options import workspace_argument


@click.command("start")
@workspace_argument()
@click.option("--parameter", "given", multiple=True, metavar="NAME=VALUE", help="Choose another value; repeatable.")
@click.option("--no-wait", is_flag=True, help="Do not wait until it has been started.")
@click.option("-y", "--yes", is_flag=True, hidden=True)
@click.pass_obj
def command(flags: Globals, *, workspace: str, given: tuple[str, ...], no_wait: bool, yes: bool) -> None:
    """Start a workspace and show the log of its build. The machine of a workspace that you bring may connect again."""
    del yes  # nothing is asked
    target = workspaces.Target.whole(workspace)
    more = {"rich_parameter_values": builds.parameters(given)} if given else {}
    with flags.api() as api:
        found = workspaces.find(api, target)
        if found["latest_build"].get("status") == "running" and not given:
            output.out(f"The workspace {target.name!r} is running already.")
            return
        if no_wait:
            builds.request(api, found, "start", **more)
            output.out(f"The workspace {target.name!r} is being started.")
            return
        builds.carry_out(api, found, "start", **more)
    output.out(f"The workspace {target.name!r} has been started.")
