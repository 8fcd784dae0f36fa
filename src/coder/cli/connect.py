"""From a workspace's name to its agent at the other end of the tunnel: what `ping` and `speedtest` share.

Start-up overlaps: while the REST calls wait on a thread, the data plane and the codecs are imported; the coordination
socket is dialled while the connection info is fetched.
"""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from coder.cli import errors, output, times, workspaces
from coder.cli.context import Globals
from coder.cli.options import format_duration
from coder.cli.threads import in_thread
from coder.errors import Unreachable

if TYPE_CHECKING:
    from coder.cli.api import Api
    from coder.dataplane.engine import Engine, Node, Path
    from coder.peering import Peering

AGENT_POLL = 0.5
"""Seconds between two looks at an agent that is not connected yet."""


@dataclass(slots=True, kw_only=True)
class Connection:
    """A node of ours that is being introduced to a workspace's agent."""

    workspace: str
    """Its name, as the user typed it."""
    address: str
    """The agent's tunnel address."""
    node: "Node"
    peering: "Peering"
    direct_allowed: bool
    regions: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Region id -> code and name."""

    def region_name(self, region: int | None) -> str:
        """Name a relay as its administrator does."""
        return self.regions.get(region or 0, ("", f"region {region}"))[1]

    def region_code(self, region: int | None) -> str:
        """Name a relay in short."""
        return self.regions.get(region or 0, (f"region {region}", ""))[0]

    def path_json(self, path: "Path", latency: float) -> dict[str, Any]:
        """Describe a path for scripts."""
        place = {"endpoint": path.endpoint} if path.kind == "direct" else {"region": self.region_code(path.region)}
        return {"kind": path.kind, **place, "latency_ms": round(latency * 1e3, 3)}

    async def reach(self, patience: float) -> float:
        """Wait until the agent answers through the tunnel; return the round trip. Raises TimedOut."""
        attempt = asyncio.ensure_future(self.node.reach(self.address))
        broken = asyncio.ensure_future(self.peering.failed())
        try:
            done, _ = await asyncio.wait({attempt, broken}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if broken in done:
                broken.result()
            if attempt not in done:
                raise errors.no_answer(self.workspace, format_duration(patience))
            return attempt.result()
        finally:
            attempt.cancel()
            broken.cancel()


@asynccontextmanager
async def connect(
    flags: Globals, argument: str, *, patience: float, engine: "Callable[[], Engine] | None" = None
) -> AsyncIterator[Connection]:
    """Find the agent of a workspace and have our node introduced to it.

    Waits up to `patience` seconds for an agent that is not connected. Raises CoderError with what to do.
    """
    target = workspaces.Target.parse(argument)
    api = flags.api()
    asked = asyncio.ensure_future(in_thread(lambda: workspaces.find(api, target)))
    await asyncio.sleep(0)  # lets the request leave before the imports below take the interpreter
    from coder.cli.tunnel import open_tunnel

    workspace = await asked
    agent = workspaces.choose_agent(workspace, target)
    if agent["status"] != "connected":
        await _wait_for_agent(api, agent, target, patience)
    async with open_tunnel(flags, api, UUID(agent["id"]), engine=engine) as tunnel:
        yield Connection(workspace=target.name, **tunnel)


async def _wait_for_agent(api: "Api", agent: Any, target: workspaces.Target, patience: float) -> None:
    output.note(f"The agent of {target.name} is not connected; waiting up to {format_duration(patience)} ...")
    loop = asyncio.get_running_loop()
    until = loop.time() + patience
    ask = functools.partial(api.agent, agent["id"])
    while loop.time() < until:
        await asyncio.sleep(min(AGENT_POLL, max(0.0, until - loop.time())))
        agent = await in_thread(ask)
        if agent["status"] == "connected":
            return
    raise _not_connected(target, agent)


def _not_connected(target: workspaces.Target, agent: Any) -> Unreachable:
    since = times.ago(agent.get("disconnected_at") or agent.get("last_connected_at"))
    if not agent.get("first_connected_at"):
        return errors.agent_not_connected(target.name, "has never connected")
    return errors.agent_not_connected(target.name, f"is not connected (left {since or 'some time ago'})")
