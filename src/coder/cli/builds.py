"""Builds of workspaces: asking for one, and showing what it prints until it is over."""

import time
from typing import TYPE_CHECKING, Any

from coder.cli import output, shapes
from coder.cli.loglines import plain
from coder.errors import Conflict

if TYPE_CHECKING:
    from coder.cli.api import Api

PACE = 0.3
"""Seconds between two looks at a build."""

_ACTIVE = frozenset({"pending", "running", "canceling"})
_DOING = {"start": "started", "stop": "stopped", "delete": "deleted"}


def request(api: "Api", workspace: Any, transition: str, **more: Any) -> Any:
    """Ask for a build and return it. Raises Conflict when one is under way."""
    return api.call("POST", f"/api/v2/workspaces/{workspace['id']}/builds", {"transition": transition, **more})


def carry_out(api: "Api", workspace: Any, transition: str, **more: Any) -> None:
    """Ask for a build and wait for its end, showing its log on stderr. Raises Conflict when it fails."""
    follow(api, workspace["name"], request(api, workspace, transition, **more))


def follow(api: "Api", name: str, build: Any) -> None:
    """Show what a build prints until it is over. Raises Conflict when it did not succeed."""
    number, shown = build.get("id"), 0
    if not number:
        return
    while True:
        over = _status(build) not in _ACTIVE
        for line in api.build_logs(number, shown):
            shown = max(shown, line["id"])
            output.note(f"  {plain(line['output'])}")
        if over:
            break
        time.sleep(PACE)
        build = api.ask(f"/api/v2/workspacebuilds/{number}", shapes.BUILD)
    if _status(build) != "succeeded":
        why = (build.get("job") or {}).get("error") or f"its build was {_status(build)}"
        done = _DOING.get(str(build.get("transition")), "changed")
        raise Conflict(output.printable(f"the workspace {name!r} could not be {done}: {why}"))


def _status(build: Any) -> str:
    return str((build.get("job") or {}).get("status") or "succeeded")


def parameters(given: tuple[str, ...]) -> list[dict[str, str]]:
    """Return values given as `name=value` as the API wants them. Raises click.BadParameter."""
    import click

    made = []
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{one!r} is not of the form name=value", param_hint="--parameter")
        made.append({"name": name, "value": value})
    return made
