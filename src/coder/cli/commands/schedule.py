"""`coder schedule`: when a workspace starts and stops by itself."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from coder.cli import output, times, workspaces
from coder.cli.context import Globals
from coder.cli.options import Duration, Group, format_duration, output_option, workspace_argument
from coder.errors import Conflict

SHORTEST = 60
"""Seconds a workspace must be left unused at least."""


@click.group("schedule", cls=Group)
def command() -> None:
    """Show and change when a workspace starts and stops by itself."""


@command.command("show")
@workspace_argument()
@output_option("text", "json")
@click.pass_obj
def show(flags: Globals, *, workspace: str, form: str) -> None:
    """Show when a workspace starts and stops."""
    with flags.api() as api:
        found = workspaces.find(api, workspaces.Target.whole(workspace))
    shown = {
        "starts_at": found.get("autostart_schedule"),
        "starts_next": found.get("next_start_at"),
        "stops_after_ms": found.get("ttl_ms"),
        "stops_next": found["latest_build"].get("deadline"),
    }
    if form == "json":
        output.out(output.json_text(shown))
        return
    idle = (
        f"after {format_duration(shown['stops_after_ms'] / 1000)} without use" if shown["stops_after_ms"] else "never"
    )
    output.out(f"starts  {shown['starts_at'] or 'never'}{_next(shown['starts_next'])}")
    output.out(f"stops   {idle}{_next(shown['stops_next'])}")


def _next(text: Any) -> str:
    moment = times.parse(text)
    return f"; next on {moment.astimezone():%Y-%m-%d at %H:%M %Z}" if moment else ""


@command.command("start")
@workspace_argument()
@click.argument("words", nargs=-1, required=True, metavar="{TIME [DAYS] [ZONE] | CRON | manual}")
@click.pass_obj
def start(flags: Globals, *, workspace: str, words: tuple[str, ...]) -> None:
    """Start a workspace by itself.

    9:30AM Mon-Fri Europe/Berlin is at half past nine on workdays there; without days it is daily, without a zone in
    this machine's. 'CRON_TZ=Europe/Berlin 30 9 * * 1-5' says the same. With manual it is started by hand only.
    """
    from coder.cli import daytimes

    line = None if words == ("manual",) else daytimes.line(words, times.zone())
    found = _put(flags, workspace, "autostart", {"schedule": line})
    output.out("It is started by hand only." if line is None else f"It starts by itself: {line}{found}")


@command.command("stop")
@workspace_argument()
@click.argument("idle", metavar="DURATION|manual")
@click.pass_obj
def stop(flags: Globals, *, workspace: str, idle: str) -> None:
    """Stop a workspace by itself when it was not used for so long, such as 8h."""
    seconds = 0.0 if idle == "manual" else Duration(positive=True).convert(idle, None, None)
    if 0 < seconds < SHORTEST:
        raise click.BadParameter("give it a minute at least", param_hint="DURATION")
    _put(flags, workspace, "ttl", {"ttl_ms": math.ceil(seconds * 1000) or None})
    output.out(f"It stops after {format_duration(seconds)} without use." if seconds else "It is stopped by hand only.")


@command.command("extend")
@workspace_argument()
@click.argument("duration", type=Duration(positive=True))
@click.pass_obj
def extend(flags: Globals, *, workspace: str, duration: float) -> None:
    """Let a running workspace run for so long from now, such as 3h, even when nobody uses it."""
    deadline = datetime.now(UTC) + timedelta(seconds=duration)
    with flags.api() as api:
        found = workspaces.find(api, workspaces.Target.whole(workspace))
        stops = times.parse(found["latest_build"].get("deadline"))
        if stops and stops >= deadline:  # the server would move it back
            output.out(f"It runs longer than that already{_next(found['latest_build']['deadline'])}.")
            return
        if stops is None:
            raise Conflict(
                f"the workspace {found['name']!r} does not stop by itself",
                remedy=f"Give it a time: coder schedule stop {workspace} 8h.",
            )
        api.call("PUT", f"/api/v2/workspaces/{found['id']}/extend", {"deadline": deadline.isoformat()})
    output.out(f"It runs for {format_duration(duration)} from now at least.")


def _put(flags: Globals, workspace: str, what: str, body: dict[str, Any]) -> str:
    """Change a schedule; return when it next starts, in words."""
    target = workspaces.Target.whole(workspace)
    with flags.api() as api:
        found = workspaces.find(api, target)
        api.call("PUT", f"/api/v2/workspaces/{found['id']}/{what}", body)
        return _next(workspaces.find(api, target).get("next_start_at"))
