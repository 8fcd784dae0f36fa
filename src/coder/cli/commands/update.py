"""`coder update`."""

import click

from coder.cli import builds, output, workspaces
from coder.cli.context import Globals
from coder.cli.options import workspace_argument


@click.command("update")
@workspace_argument()
@click.option("--parameter", "given", multiple=True, metavar="NAME=VALUE", help="Choose another value; repeatable.")
@click.pass_obj
def command(flags: Globals, *, workspace: str, given: tuple[str, ...]) -> None:
    """Start a workspace anew, as its template is now."""
    target = workspaces.Target.whole(workspace)
    more = {"rich_parameter_values": builds.parameters(given)} if given else {}
    with flags.api() as api:
        found = workspaces.find(api, target)
        if not found.get("outdated") and not given:
            output.out(f"The workspace {target.name!r} is as its template is already.")
            return
        if found["latest_build"].get("status") == "running":
            builds.carry_out(api, found, "stop")
        version = found.get("template_active_version_id")
        builds.carry_out(api, found, "start", template_version_id=version, **more)
    output.out(f"The workspace {target.name!r} has been updated.")
