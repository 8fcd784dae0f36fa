"""`coder logs`."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from coder.cli import loglines, output, workspaces
from coder.cli.context import Globals
from coder.cli.errors import ApiError
from coder.cli.loglines import Line
from coder.cli.options import output_option, workspace_argument
from coder.errors import Unreachable

if TYPE_CHECKING:
    from coder.cli.api import Api

PACE = 1.0
"""Seconds between two looks for new lines."""


@click.command("logs")
@workspace_argument()
@click.option("-f", "--follow", is_flag=True, help="Go on with what is printed from now on, until interrupted.")
@click.option("-n", "--lines", "count", type=click.IntRange(0), help="Only the last so many lines.")
@output_option("text", "json")
@click.pass_obj
def command(flags: Globals, *, workspace: str, follow: bool, count: int | None, form: str) -> None:
    """Show what the build of a workspace, its agents and their scripts printed, by time.

    Names of agents stand before those of their scripts. With -o json and --follow each line is an object of its own.
    """
    target = workspaces.Target.parse(workspace)
    with flags.api() as api:
        reader = Reader(api, target)
        lines = reader.read()
        if count is not None:
            lines = lines[max(0, len(lines) - count) :]
        if form == "json" and not follow:
            output.out(output.json_text([line.json() for line in lines]))
            return
        _print(lines, form)
        if not follow and not lines:
            output.note(f"Nothing has been printed yet. Watch it come:\n  coder logs {target.name} --follow")
        while follow:
            time.sleep(PACE)
            _print(_patiently(reader.read), form)


def _print(lines: list[Line], form: str) -> None:
    for line in lines:
        if form == "json":
            import json

            output.out(json.dumps(line.json()))
        else:
            output.out(line.shown())


def _patiently(read: Callable[[], list[Line]]) -> list[Line]:
    """Read, and wait for a server that is away: it is likely restarting."""
    told = False
    while True:
        try:
            return read()
        except Unreachable as error:
            if not told:
                output.note(output.printable(f"{error}; waiting for it ..."))
            told = True
            time.sleep(PACE)


class Reader:
    """Reads the lines of a workspace's latest build and its agents, each line once."""

    def __init__(self, api: "Api", target: workspaces.Target) -> None:
        self._api = api
        self._target = target
        self._seen: dict[str, int] = {}

    def read(self) -> list[Line]:
        """Return what is new, by time. A later build, and the agents it brings, are found by themselves."""
        workspace = workspaces.find(self._api, self._target)
        build, found = workspace["latest_build"].get("id"), workspaces.agents(workspace)
        if self._target.agent is not None:
            if not self._seen:
                workspaces.choose_agent(workspace, self._target)
            found = [one for one in found if one["name"] == self._target.agent]
        of_build = loglines.of_build(self._new(build, self._api.build_logs)) if build else []
        agents = [loglines.of_agent(one, self._new(one["id"], self._api.agent_logs)) for one in found]
        return loglines.merged(of_build, *agents)

    def _new(self, what: str, ask: Callable[[str, int], list[Any]]) -> list[Any]:
        try:
            rows = ask(what, self._seen.setdefault(what, 0))
        except ApiError as error:
            if error.code != 404:
                raise
            return []  # it has gone since: what came in its place is found next time
        if rows:
            self._seen[what] = max(row["id"] for row in rows)
        return rows
