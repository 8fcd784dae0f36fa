"""`coder delete`."""

import click

from coder.cli import builds, output, workspaces
from coder.cli.context import Globals
from coder.cli.options import workspace_argument


@click.command("delete")
@workspace_argument()
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def command(flags: Globals, *, workspace: str, yes: bool) -> int:
    """Delete a workspace. A machine of your own stays; only its access to this server ends. What the server runs ends.

    Exits with 1 when the answer to the question is no.
    """
    target = workspaces.Target.whole(workspace)
    with flags.api() as api:
        found = workspaces.find(api, target)
        if not yes:
            if not flags.interactive:
                raise click.UsageError("Nobody is there to confirm; pass --yes to delete.")
            if not click.confirm(f"Delete workspace {target.name!r} for good?", err=True):
                output.note("Nothing was deleted.")
                return 1
        builds.follow(api, target.name, api.delete_workspace(found["id"]))
    output.out(f"The workspace {target.name!r} has been deleted.")
    return 0
