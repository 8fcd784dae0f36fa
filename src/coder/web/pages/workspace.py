"""One workspace: its agents, their connections as a picture, apps, ports, logs, and what can be done with it."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from starlette.responses import Response

from coder.access.schedule import Schedule
from coder.errors import Malformed
from coder.web import api, text
from coder.web.page import Page, refusal
from coder.web.pages.workspaces import agents, condition

LOG_LINES = 500
"""Lines of a log on a page, the newest."""
_YEAR = 366 * 24 * text.HOUR
"""Milliseconds; how long it may really be, the API says."""
_DOING = {"start": "starting", "stop": "stopping", "delete": "deleted"}


async def _workspace(page: Page) -> dict[str, Any]:
    params = page.request.path_params
    route = f"/users{api.path(params['owner'])}/workspace{api.path(params['name'])}"
    found: dict[str, Any] = await page.ask("GET", route)
    return found


def _here(page: Page) -> str:
    params = page.request.path_params
    return api.path(f"@{params['owner']}", params["name"]).replace("%40", "@", 1)


async def show(page: Page) -> Response:
    """Show the whole page."""
    return await _show(page)


async def _show(page: Page, problem: api.Refused | None = None) -> Response:
    workspace = await _workspace(page)
    values: dict[str, Any] = {"workspace": workspace, "condition": condition(workspace), "agents": agents(workspace)}
    for each in await asyncio.gather(*(part(page, workspace) for part in (_picture, _ports, _logs))):
        values |= each
    return page.render(
        "workspace.html",
        problem.status if problem else 200,
        problem=problem,
        base=_here(page),
        schedule=_schedule(workspace),
        **values,
    )


async def part(page: Page) -> Response:
    """Show one part anew: `state`, `picture`, `ports` or `logs`."""
    name = page.request.path_params["part"]
    if name not in _PARTS:
        raise refusal(404, "There is no such part.")
    workspace = await _workspace(page)
    values = await _PARTS[name](page, workspace)
    return page.part(f"parts/{name}.html", workspace=workspace, base=_here(page), agents=agents(workspace), **values)


async def _state(page: Page, workspace: dict[str, Any]) -> dict[str, Any]:
    return {"condition": condition(workspace), "apps_host": (await page.ask("GET", "/applications/host"))["host"]}


async def _picture(page: Page, workspace: dict[str, Any]) -> dict[str, Any]:
    found = [(agent, await page.ask_or(None, f"/workspaceagents/{agent['id']}/network")) for agent in agents(workspace)]
    return {"networks": found}


async def _ports(page: Page, workspace: dict[str, Any]) -> dict[str, Any]:
    shares = (await page.ask_or({"shares": []}, f"/workspaces/{workspace['id']}/port-share"))["shares"]
    levels = {(each["agent_name"], each["port"]): each for each in shares}
    rows = []
    for agent in agents(workspace):
        answer: dict[str, Any] = {"ports": [], "problem": ""}
        if agent["status"] == "connected":
            answer |= await _listening(page, agent["id"])
        shown = {each["port"] for each in answer["ports"] or ()}
        rest = [each for (name, port), each in levels.items() if name == agent["name"] and port not in shown]
        rows.append((agent, answer, rest))
    host = (await page.ask("GET", "/applications/host"))["host"]
    return {"ports": rows, "shares": levels, "apps_host": host}


async def _listening(page: Page, agent_id: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = await page.ask("GET", f"/workspaceagents/{agent_id}/listening-ports")
    except api.Refused as refused:
        return {"problem": refused.message}
    return found


async def _logs(page: Page, workspace: dict[str, Any]) -> dict[str, Any]:
    found = []
    for agent in agents(workspace):
        lines = await page.ask_or([], f"/workspaceagents/{agent['id']}/logs")
        found.append((agent, lines[-LOG_LINES:], max(len(lines) - LOG_LINES, 0)))
    build = await page.ask_or([], f"/workspacebuilds/{workspace['latest_build']['id']}/logs")
    return {"logs": found, "build_log": build[-LOG_LINES:]}


_PARTS: dict[str, Callable[[Page, dict[str, Any]], Awaitable[dict[str, Any]]]] = {
    "state": _state,
    "picture": _picture,
    "ports": _ports,
    "logs": _logs,
}


async def act(page: Page) -> Response:
    """Do what a form of the page asks for."""
    what = page.form.get("what", "")
    workspace = await _workspace(page)
    try:
        if what in _DOING:
            return await _transition(page, workspace, what)
        if what in {"share", "unshare"}:
            return await _share(page, workspace, what)
        if what in _SCHEDULES:
            return page.go(_here(page), await _SCHEDULES[what](page, workspace))
        if what == "token":
            return await _token(page, workspace)
        raise refusal(400, "The form does not say what to do.")
    except api.Refused as refused:
        return await _show(page, refused)


async def _transition(page: Page, workspace: dict[str, Any], what: str) -> Response:
    if what == "delete" and page.form.get("confirm", "").strip() != workspace["name"]:
        raise refusal(400, f"To delete the workspace, type its name, {workspace['name']}, into the field.")
    await page.ask("POST", f"/workspaces/{workspace['id']}/builds", {"transition": what})
    return page.go("/workspaces" if what == "delete" else _here(page), _DOING[what])


async def _share(page: Page, workspace: dict[str, Any], what: str) -> Response:
    form = page.form
    port = form.get("port", "")
    if not (port.isdecimal() and len(port) < 6):
        raise refusal(400, "A port is a number from 9 to 65535.")
    wanted: dict[str, Any] = {"agent_name": form.get("agent", ""), "port": int(port)}
    route = f"/workspaces/{workspace['id']}/port-share"
    if what == "unshare" or form.get("level") == "owner":
        await page.ask("DELETE", route, wanted)
        return page.go(_here(page), "unshared")
    await page.ask(
        "POST", route, wanted | {"share_level": form.get("level", ""), "protocol": form.get("protocol", "http")}
    )
    return page.go(_here(page), "shared")


def _schedule(workspace: dict[str, Any]) -> dict[str, Any]:
    """Return what the forms of the schedule show."""
    line = workspace.get("autostart_schedule") or ""
    shown: dict[str, Any] = {"line": line, "time": "09:00", "days": range(1, 6), "zone": ""}
    shown["hours"] = text.in_hours(workspace.get("ttl_ms"))
    try:
        found = Schedule.parse(line)
    except Malformed:  # none, or in a time zone that is not known here
        return shown
    return shown | {"time": f"{found.hour:02}:{found.minute:02}", "days": found.days, "zone": found.zone.key}


async def _autostart(page: Page, workspace: dict[str, Any]) -> str:
    form, days = page.form, page.many.get("day", [])
    hour, _, minute = form.get("time", "").partition(":")
    if not days:
        raise refusal(400, "Choose the days on which it starts.")
    zone = form.get("zone", "").strip() or "UTC"
    line = f"CRON_TZ={zone} {minute} {hour} * * {'*' if len(days) == 7 else ','.join(days)}"
    await page.ask("PUT", f"/workspaces/{workspace['id']}/autostart", {"schedule": line})
    return "schedule"


async def _by_hand(page: Page, workspace: dict[str, Any]) -> str:
    await page.ask("PUT", f"/workspaces/{workspace['id']}/autostart", {"schedule": None})
    return "schedule"


async def _autostop(page: Page, workspace: dict[str, Any]) -> str:
    await page.ask("PUT", f"/workspaces/{workspace['id']}/ttl", {"ttl_ms": _milliseconds(page) or None})
    return "schedule"


async def _extend(page: Page, workspace: dict[str, Any]) -> str:
    deadline = page.dashboard.now() + timedelta(milliseconds=_milliseconds(page))
    stops = text.moment(workspace["latest_build"].get("deadline"))
    if stops and stops >= deadline:  # the API would move it back
        return "longer"
    await page.ask("PUT", f"/workspaces/{workspace['id']}/extend", {"deadline": deadline.isoformat()})
    return "schedule"


def _milliseconds(page: Page) -> int:
    found = text.from_hours(page.form.get("hours", ""))
    if found is None or found > _YEAR:
        raise refusal(400, "Expected a number of hours.")
    return found


_SCHEDULES: dict[str, Callable[[Page, dict[str, Any]], Awaitable[str]]] = {
    "autostart": _autostart,
    "by-hand": _by_hand,
    "autostop": _autostop,
    "extend": _extend,
}


async def _token(page: Page, workspace: dict[str, Any]) -> Response:
    """Give an agent another token, and show how it is started with it, this once."""
    agent = next((each for each in agents(workspace) if each["id"] == page.form.get("agent")), None)
    if agent is None:
        raise refusal(404, "The workspace has no such agent.")
    made = await page.ask("POST", f"/workspaceagents/{agent['id']}/token")
    tokens = {agent["name"]: made["agent_token"]}
    return page.render("workspace_created.html", workspace=workspace, where=_here(page), tokens=tokens, renewed=True)
