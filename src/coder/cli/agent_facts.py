"""What `coder show` says about one agent, made of the API's object. Pure."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from coder.cli import times
from coder.cli.options import format_duration, format_latency

Fact = tuple[str, list[str]]
"""A name, and its lines."""

_LIFECYCLE = {
    "created": "not started yet",
    "starting": "start scripts are running",
    "start_timeout": "start scripts take too long",
    "start_error": "a start script failed",
    "shutting_down": "shutting down",
    "shutdown_timeout": "stop scripts take too long",
    "shutdown_error": "a stop script failed",
    "off": "has ended",
}


def facts(agent: Any, ports: list[Any], now: datetime | None = None) -> list[Fact]:
    """Say in what state an agent is and why, what it runs, and what listens beside it; nothing that goes without."""
    found = [("state", list(_state(agent, now))), ("home", _home(agent))]
    found += [("scripts", [_script(one, now) for one in agent.get("scripts") or []])]
    found += [("apps", [_app(one) for one in agent.get("apps") or [] if not one.get("hidden")])]
    return [(name, lines) for name, lines in (*found, ("ports", _ports(ports))) if lines]


def _state(agent: Any, now: datetime | None) -> Iterator[str]:
    status, lifecycle = agent["status"], agent.get("lifecycle_state")
    health = agent.get("health") or {}
    if status == "connected":
        since = times.ago(agent.get("started_at"), now)
        version = str(agent.get("version") or "")
        yield ", ".join(["connected", *([f"started {since}"] if since else []), *([version] if version else [])])
    elif since := times.ago(agent.get("disconnected_at") or agent.get("last_connected_at"), now):
        yield f"{status}, last there {since}"
    else:
        yield f"{status}, has never connected"
    why = [agent.get("disconnect_reason"), None if status == "connected" else health.get("reason")]
    yield from list(dict.fromkeys(str(text) for text in why if text))[:1]
    if lifecycle in _LIFECYCLE and not (status != "connected" and lifecycle in {"created", "off"}):
        yield _LIFECYCLE[lifecycle]
    if status != "connected" and (url := agent.get("troubleshooting_url")):
        yield f"see {url}"


def _home(agent: Any) -> list[str]:
    """Name the relay the agent can always be reached at, and how far that is for it."""
    for name, told in (agent.get("latency") or {}).items():
        if isinstance(told, dict) and told.get("preferred"):
            latency = told.get("latency_ms")
            far = f", {format_latency(latency / 1e3)} from it" if isinstance(latency, int | float) else ""
            return [f"{name}{far}"]
    return []


def _script(script: Any, now: datetime | None) -> str:
    name = script.get("display_name") or str(script.get("script") or "").strip().partition("\n")[0][:40] or "script"
    when = [
        *(["on start"] if script.get("run_on_start") else []),
        *(["on stop"] if script.get("run_on_stop") else []),
        *([f"at {script['cron']}"] if script.get("cron") else []),
    ]
    return f"{name} ({', '.join(when)}): {_last_run(script.get('last_run'), now)}" if when else name


def _last_run(run: Any, now: datetime | None) -> str:
    if not isinstance(run, dict):
        return "has not run"
    began, ended = times.parse(run.get("started_at")), times.parse(run.get("ended_at"))
    took = f" in {format_duration(round((ended - began).total_seconds(), 1))}" if began and ended else ""
    told = times.ago(run.get("ended_at") or run.get("started_at"), now)
    return _OUTCOME.get(str(run.get("status")), "failed with exit code {code}").format(code=run.get("exit_code")) + (
        f"{took}, {told}" if told else took
    )


_OUTCOME = {
    "ok": "done",
    "exit_failure": "failed with exit code {code}",
    "timed_out": "took too long",
    "pipes_left_open": "done, and left programs running",
}


def _app(app: Any) -> str:
    name = app.get("display_name") or app.get("slug") or ""
    health = str(app.get("health") or "disabled")
    return name + {"disabled": "", "initializing": ": not checked yet"}.get(health, f": {health}")


def _ports(ports: list[Any]) -> list[str]:
    told = [f"{port['port']}/{port['network']} {port.get('process_name') or ''}".rstrip() for port in ports]
    return [", ".join(told)] if told else []
