"""`coder schedule`: when a workspace starts and stops by itself."""

from datetime import UTC, datetime, timedelta
from typing import Any

import click

from coder.cli import output, times, workspaces
from coder.cli.context import Globals
from coder.cli.options import Duration, format_duration, output_option


@click.group("schedule")
def command() -> None:
    """Show and change when a workspace starts and stops by itself."""


@command.command("show")
@click.argument("workspace")
@output_option("text", "json")
@click.pass_obj
def show(flags: Globals, *, workspace: str, form: str) -> None:
    """Show when a workspace starts and stops."""
    with flags.api() as api:
        found = workspaces.find(api, workspaces.Target.parse(workspace))
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
@click.argument("workspace")
@click.argument("schedule", metavar="SCHEDULE|manual")
@click.pass_obj
def start(flags: Globals, *, workspace: str, schedule: str) -> None:
    """Start a workspace by itself: 'CRON_TZ=Europe/Berlin 30 9 * * 1-5' is at half past nine on workdays."""
    line = None if schedule == "manual" else schedule
    _put(flags, workspace, "autostart", {"schedule": line})
    output.out("It is started by hand only." if line is None else f"It starts by itself: {line}")


@command.command("stop")
@click.argument("workspace")
@click.argument("idle", metavar="DURATION|manual")
@click.pass_obj
def stop(flags: Globals, *, workspace: str, idle: str) -> None:
    """Stop a workspace by itself when it was not used for so long, such as 8h."""
    seconds = 0.0 if idle == "manual" else Duration(positive=True).convert(idle, None, None)
    _put(flags, workspace, "ttl", {"ttl_ms": round(seconds * 1000) or None})
    output.out(f"It stops after {format_duration(seconds)} without use." if seconds else "It is stopped by hand only.")


@command.command("extend")
@click.argument("workspace")
@click.argument("duration", type=Duration(positive=True))
@click.pass_obj
def extend(flags: Globals, *, workspace: str, duration: float) -> None:
    """Let a running workspace run for so long from now, such as 3h, even when nobody uses it."""
    deadline = datetime.now(UTC) + timedelta(seconds=duration)
    with flags.api() as api:
        found = workspaces.find(api, workspaces.Target.parse(workspace))
        stops = times.parse(found["latest_build"].get("deadline"))
        if stops and stops >= deadline:  # the server would move it back
            output.out(f"It runs longer than that already{_next(found['latest_build']['deadline'])}.")
            return
        api.call("PUT", f"/api/v2/workspaces/{found['id']}/extend", {"deadline": deadline.isoformat()})
    output.out(f"It runs for {format_duration(duration)} from now at least.")


def _put(flags: Globals, workspace: str, what: str, body: dict[str, Any]) -> None:
    with flags.api() as api:
        found = workspaces.find(api, workspaces.Target.parse(workspace))
        api.call("PUT", f"/api/v2/workspaces/{found['id']}/{what}", body)
