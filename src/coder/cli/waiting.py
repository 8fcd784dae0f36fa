"""Waiting for a workspace: that it is started, that its start scripts have run, and that it is stopped."""

import asyncio
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from coder.cli import errors, output, workspaces
from coder.cli.threads import in_thread
from coder.errors import CoderError

if TYPE_CHECKING:
    from coder.cli.api import Api

Wait = Literal["yes", "no", "auto"]
"""Whether to wait for start scripts; auto: when one of them says that logins shall wait for it."""

PACE = 0.5
"""Seconds between two looks at what is waited for."""

BUILD_PACE = 5.0
"""Seconds between two looks at whether the workspace still runs."""

_STARTING = frozenset({"created", "starting"})
_ENDING = frozenset({"shutting_down", "shutdown_timeout", "shutdown_error", "off"})
_TROUBLE = {
    "start_error": "A start script failed, so the workspace may not be complete; 'coder logs {name}' shows more.",
    "start_timeout": "A start script took too long and was ended; 'coder logs {name}' shows more.",
}


async def ready(api: "Api", agent: Any, name: str, wait: Wait) -> None:
    """Wait for the agent's start scripts, if that is wanted, and show what they print. Raises Unreachable."""
    if wait == "no":
        return
    state = agent.get("lifecycle_state")
    if state in _ENDING:
        raise errors.agent_shuts_down(name, state)
    if state in _STARTING and (wait == "yes" or (wait == "auto" and _blocks(agent))):
        state = await _scripts(api, agent, name)
    if state in _TROUBLE:
        output.note(_TROUBLE[state].format(name=output.printable(name)))


def _blocks(agent: Mapping[str, Any]) -> bool:
    return any(script.get("start_blocks_login") for script in agent.get("scripts") or [])


async def _scripts(api: "Api", agent: Any, name: str) -> str | None:
    """Show what start scripts print until the agent says that they are done; return the state it says then."""
    from coder.cli.loglines import plain

    output.note(
        f"The start scripts of {output.printable(name)} are running; --wait=no goes in before they are done ..."
    )
    after = 0
    while True:
        rows = await in_thread(functools.partial(api.agent_logs, agent["id"], after))
        for row in rows:
            after = max(after, row["id"])
            output.note(f"  {plain(row['output'])}".rstrip())
        if agent.get("lifecycle_state") not in _STARTING:
            break
        await asyncio.sleep(PACE)
        agent = await in_thread(functools.partial(api.agent, agent["id"]))
    state = agent.get("lifecycle_state")
    if state in _ENDING:
        raise errors.agent_shuts_down(name, state)
    return str(state) if state else None


def stopped(workspace: Any) -> bool:
    """Whether the workspace was stopped, and is there to be started again."""
    build = workspace["latest_build"]
    return build["transition"] == "stop" and build.get("status") in {"stopped", "stopping"}


async def started(api: "Api", workspace: Any, target: workspaces.Target) -> Any:
    """Have a stopped workspace started; return it when its agents are known. Raises Conflict."""
    output.note(f"The workspace {output.printable(target.name)} is stopped; starting it ...")
    try:
        await in_thread(functools.partial(api.start_workspace, workspace["id"]))
    except errors.ApiError as error:
        raise errors.build_failed(target.name, str(error)) from error
    while True:
        found = await in_thread(functools.partial(workspaces.find, api, target))
        build = found["latest_build"]
        if build["transition"] == "start" and build.get("status") == "running":
            return found
        if build.get("status") in {"failed", "canceled"}:
            problem = (build.get("job") or {}).get("error") or "its build failed"
            raise errors.build_failed(target.name, str(problem))
        await asyncio.sleep(PACE)


async def until_gone(api: "Api", target: workspaces.Target, build: str) -> CoderError:
    """Return why the workspace is not what we are connected to any more, once it is not."""
    while True:
        await asyncio.sleep(BUILD_PACE)
        try:
            why = await gone(api, target, build)
        except CoderError:
            continue  # outages are told elsewhere
        if why is not None:
            return why


async def gone(api: "Api", target: workspaces.Target, build: str) -> CoderError | None:
    """Return why the workspace is not what we are connected to any more, if that is so. Raises CoderError."""
    found = await in_thread(functools.partial(workspaces.find, api, target))
    latest = found["latest_build"]
    if latest["transition"] != "start":
        return errors.workspace_stopped(target.name)
    if build and latest.get("id") and latest["id"] != build:
        return errors.workspace_rebuilt(target.name)
    return None
