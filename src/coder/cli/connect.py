"""From a workspace's name to its agent at the other end of the tunnel: what `ping` and `speedtest` share.

Start-up overlaps: while the server looks up the workspace, the relay map is fetched, a connection for the coordination
socket opened, and data plane and codecs are imported.
"""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from coder.cli import errors, output, times, waiting, workspaces
from coder.cli.ahead import Ahead
from coder.cli.context import Globals
from coder.cli.options import format_duration
from coder.cli.threads import in_thread
from coder.errors import Malformed, NotFound, TimedOut, Unreachable, UpgradeRefused

if TYPE_CHECKING:
    from coder.cli.api import Api
    from coder.cli.waiting import Wait
    from coder.dataplane.engine import Engine, Path, Pong, SelfChanged
    from coder.peering import Dial, Peering
    from coder.rpc.channel import Channel
    from coder.wire.derpmap import DerpMap

AGENT_POLL = 0.5
"""Seconds between two looks at an agent that is not connected yet."""

GOODBYE = 0.2
"""Seconds the command waits for the server to close the socket; what is left of it then ends with the process."""

REFUSAL = 2.0
"""Seconds after the loss of a stream in which the server may say that it was its doing."""

API_VERSION = "2.0"
"""Version of the coordination calls: the lowest there is, so that no server is too old."""


class Connection:
    """A node of ours that is being introduced to a workspace's agent."""

    def __init__(self, workspace: str, address: str, peering: "Peering", watch: "Watch", rules: "Rules") -> None:
        self.workspace = workspace
        """Its name, as the user typed it."""
        self.address = address
        """The agent's tunnel address."""
        self.peering = peering
        self.node = peering.node
        self.rules = rules
        self.watch = watch
        self.note_usage: Callable[[str | None], None] = lambda _app: None
        """Tell the server which app uses the workspace; blocks."""
        self.build = ""
        """The build of the workspace it leads to."""
        self.following: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._reached: float | None = None

    def seconds_since_reached(self) -> float:
        """Seconds since the agent first answered through the tunnel; 0 before."""
        return 0.0 if self._reached is None else self._loop.time() - self._reached

    def age(self) -> float:
        """Seconds since the node was made."""
        return self._loop.time() - self._since

    def region_name(self, region: int | None) -> str:
        """Name a relay as its administrator does."""
        found = self.peering.state().derp_map.regions.get(region or 0)
        return output.printable(found.name) if found is not None and found.name else f"region {region}"

    def region_code(self, region: int | None) -> str:
        """Name a relay in short."""
        found = self.peering.state().derp_map.regions.get(region or 0)
        return output.printable(found.code) if found is not None and found.code else f"region {region}"

    def path_json(self, path: "Path", latency: float) -> dict[str, Any]:
        """Describe a path for scripts."""
        place = {"endpoint": path.endpoint} if path.kind == "direct" else {"region": self.region_code(path.region)}
        return {"kind": path.kind, **place, "latency_ms": round(latency * 1e3, 3)}

    async def reach(self, patience: float) -> float:
        """Wait until the agent answers through the tunnel; return the round trip.

        Raises TimedOut after `patience` seconds, and what ended the introduction for good.
        """
        attempt = asyncio.ensure_future(self._reach())
        waited = {attempt} if self.following is None else {attempt, self.following}
        try:
            await asyncio.wait(waited, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if attempt.done():
                return attempt.result()
            if self.following is not None and self.following.done():
                self.following.result()
            raise errors.no_answer(self.workspace, format_duration(patience), self.watch.problem)
        finally:
            attempt.cancel()

    async def _reach(self) -> float:
        await self.peering.introduced.wait()  # pings before there is a peer would only make later ones rarer
        latency = await self.node.reach(self.address)
        if self._reached is None:
            self._reached = self._loop.time()
        return latency

    async def raise_refusal(self) -> None:
        """Raise what ended the introduction for good, unless the server says no such thing now."""
        if self.following is not None:
            done, _ = await asyncio.wait({self.following}, timeout=REFUSAL)
            for following in done:
                following.result()

    async def ping(self, patience: float) -> "Pong":
        """Send one disco ping. Raises TimedOut, also when the agent has left."""
        try:
            async with asyncio.timeout(patience):
                return await self.node.ping(self.address)
        except (TimeoutError, TimedOut, NotFound):
            raise errors.no_answer(self.workspace, format_duration(patience), self.watch.problem) from None


@dataclass(frozen=True, slots=True)
class Rules:
    """What was decided about connections before any network has its say."""

    client_flag: bool = False
    """The user, for this call."""
    server_blocks: bool = False
    """The server's administrator, for everybody."""
    force_websockets: bool = False
    """The server wants relays to be reached by WebSocket."""

    @property
    def direct_allowed(self) -> bool:
        """Whether nobody forbids it."""
        return not self.client_flag and not self.server_blocks


class Watch:
    """Listens to the node. Trouble is told only if it turns out to matter, or when asked for with --verbose."""

    def __init__(self, *, verbose: bool) -> None:
        self.problem = ""
        """What last kept us from a relay, or the coordinator from helping."""
        self.home = asyncio.Event()
        """Set once a relay was chosen."""
        self.forced_websocket: dict[int, str] = {}
        """Regions reached by WebSocket, with the reason."""
        self.log: Callable[[str], None] = lambda _text: None
        """Hears all of it, for a session's own log."""
        self.why_home: Callable[[], str] | None = None
        """Says why the home is what it is; set by who knows the map."""
        self._told_home = 0
        self._verbose = verbose

    def on_event(self, event: object) -> None:
        """Take an event of the node or its introduction."""
        from coder.dataplane.engine import PathChanged, RelayProblem, SelfChanged
        from coder.peering import CoordinatorError, PortMapped

        match event:
            case SelfChanged():
                self.forced_websocket = event.forced_websocket
                if event.home:
                    self.home.set()
                    self._tell_home(event)
                return
            case RelayProblem(text=""):
                self.problem = ""
                return
            case RelayProblem():
                self.problem = f"relay of region {event.region}: {event.text}"
            case CoordinatorError():
                self.problem = f"coordinator: {event.text}"
            case PathChanged():
                self._tell(f"path: {event.path.endpoint or f'relay of region {event.path.region}'}")
                return
            case PortMapped():
                self._tell(f"port mapping: {event.report.external or 'none'} {event.report.via or ''}".rstrip())
                return
            case _:
                return
        self._tell(self.problem)

    def _tell_home(self, event: "SelfChanged") -> None:
        if event.home != self._told_home and self.why_home is not None:
            self._told_home = event.home
            self._tell(f"home: {self.why_home()}")

    def _tell(self, text: str) -> None:
        self.log(text)
        if self._verbose:
            output.note(output.printable(text))


@asynccontextmanager
async def connect(
    flags: Globals,
    argument: str,
    *,
    patience: float,
    relay_only: bool = False,
    wait: "Wait" = "no",
    start: bool = False,
) -> AsyncIterator[Connection]:
    """Find the agent of a workspace and have our node introduced to it.

    Waits up to `patience` seconds for an agent that is not connected, and, if `wait` says so, for its start scripts.
    With `start`, a workspace that is stopped is started. Raises CoderError with what to do.
    """
    target = workspaces.Target.parse(argument)
    with flags.api() as api:
        asked = asyncio.ensure_future(in_thread(functools.partial(workspaces.find, api, target)))
        asked.add_done_callback(lambda done: done.cancelled() or done.exception())  # told even if nobody comes to ask
        ahead = Ahead(flags, api)
        try:
            await asyncio.sleep(0)  # lets the requests leave before the imports take the interpreter
            import coder.peering  # noqa: F401 - needed as soon as there is an answer
            from coder.dataplane.engine import Engine

            async with Engine() as engine:
                workspace = await asked
                if start and waiting.stopped(workspace):
                    workspace = await waiting.started(api, workspace, target)
                agent = await _agent(api, workspace, target, patience, wait)
                async with introduced(
                    flags, api, engine, agent, target.name, relay_only=relay_only, ahead=ahead
                ) as connection:
                    connection.build = str(workspace["latest_build"].get("id") or "")
                    connection.note_usage = functools.partial(api.note_usage, workspace["id"], str(agent))
                    yield connection
        finally:
            ahead.close()


async def _agent(api: "Api", workspace: Any, target: workspaces.Target, patience: float, wait: "Wait") -> UUID:
    """Return the id of a connected agent, waiting for it a while, and for its start scripts."""
    agent = workspaces.choose_agent(workspace, target)
    if agent["status"] != "connected":
        output.note(f"The agent of {target.name} is not connected; waiting up to {format_duration(patience)} ...")
    loop = asyncio.get_running_loop()
    until = loop.time() + patience
    ask = functools.partial(api.agent, agent["id"])
    while agent["status"] != "connected":
        left = until - loop.time()
        if left <= 0:
            raise not_connected(target, agent)
        await asyncio.sleep(min(AGENT_POLL, left))
        agent = await in_thread(ask)
    await waiting.ready(api, agent, target.name, wait)
    return UUID(agent["id"])


def not_connected(target: workspaces.Target, agent: Any) -> Unreachable:
    """Say since when an agent is away."""
    if not agent.get("first_connected_at"):
        return errors.agent_not_connected(target.name, "has never connected")
    since = times.ago(agent.get("disconnected_at") or agent.get("last_connected_at"))
    return errors.agent_not_connected(target.name, f"is not connected; it was last there {since or 'some time ago'}")


@asynccontextmanager
async def introduced(
    flags: Globals,
    api: "Api",
    engine: "Engine",
    agent: UUID,
    name: str,
    *,
    relay_only: bool = False,
    ahead: Ahead | None = None,
) -> AsyncIterator[Connection]:
    """Make the node and keep it introduced while the body runs.

    With `relay_only` it begins without direct paths, which `peering.set_block_direct` may allow later. What was begun
    `ahead` stays the caller's to close.
    """
    asked = ahead or Ahead(flags, api)
    try:
        async with _introduced(flags, api, engine, agent, name, relay_only=relay_only, asked=asked) as connection:
            yield connection
    finally:
        if ahead is None:
            asked.close()


@asynccontextmanager
async def _introduced(
    flags: Globals, api: "Api", engine: "Engine", agent: UUID, name: str, *, relay_only: bool, asked: Ahead
) -> AsyncIterator[Connection]:
    from coder.dataplane.engine import NodeSettings
    from coder.peering import Client, Peering, WebSocketDial
    from coder.tailnet.addresses import agent_address, client_address

    path = f"/api/v2/workspaceagents/{agent}/coordinate"
    dial = WebSocketDial(
        url=api.url,
        path=path,
        version=API_VERSION,
        token=flags.session(),
        headers=flags.headers(api.url),
        outbound=flags.outbound,
    )
    waiting = [asyncio.ensure_future(asked.dial(dial))]
    try:
        info = await asked.info(str(agent))
        relays = relay_map(api.url, info)
        if flags.prefer_region:
            _require_region(relays, flags.prefer_region)
    except BaseException:
        await _abandon(waiting)
        raise
    rules = Rules(
        client_flag=flags.disable_direct,
        server_blocks=bool(info.get("disable_direct_connections")),
        force_websockets=bool(info.get("derp_force_websockets")),
    )
    settings = NodeSettings(
        addresses=(str(client_address(uuid4())),),
        ports={},
        default="refuse",
        block_direct=relay_only or not rules.direct_allowed,
        force_websockets=rules.force_websockets,
        headers=flags.headers(api.url),
        outbound=flags.outbound,
        prefer_region=flags.prefer_region,
    )
    watch = Watch(verbose=flags.verbose)
    peering = Peering(engine, settings, Client(agent), url=api.url, on_event=watch.on_event, map_ports=flags.map_ports)
    watch.why_home = peering.why_home
    connection = Connection(name, str(agent_address(agent)), peering, watch, rules)
    try:
        peering.set_map(relays)
        connection.following = asyncio.ensure_future(_follow(peering, _started(waiting, dial), name))
        yield connection
    finally:
        await _end(connection, waiting)


async def _follow(peering: "Peering", dial: "Dial", name: str) -> None:
    """Keep the introduction. Raises what ended it for good, in words for users of this workspace."""
    try:
        await peering.follow(dial)
    except UpgradeRefused as error:
        from coder.peering.dialing import reason

        raise errors.introduction_refused(name, error.http_status, reason(error)) from error


async def _end(connection: Connection, waiting: "list[asyncio.Task[Channel]]") -> None:
    """Take leave of the coordinator and end the node."""
    following = connection.following
    try:
        if following is not None and not following.done():
            await connection.peering.leave()
    finally:
        if following is not None:
            following.cancel()
            await asyncio.wait({following}, timeout=GOODBYE)
        await _abandon(waiting)
        connection.peering.close()


def _require_region(relays: "DerpMap", wanted: str) -> None:
    """Raise NotFound when no relay region goes by that name."""
    from coder.tailnet import home

    if home.find(relays, wanted) is None:
        raise errors.no_such_region(wanted, [one.code or str(one.id) for one in home.relays(relays)])


def relay_map(url: str, info: Any) -> "DerpMap":
    """Read the map of a server's answer. Raises CoderError when there is none."""
    from coder.wire import derpmap_json

    if not isinstance(info, Mapping) or not info.get("derp_map"):
        raise errors.bad_answer(url)
    try:
        return derpmap_json.load(info["derp_map"])
    except Malformed as error:
        raise errors.bad_answer(url) from error


def _started(waiting: "list[asyncio.Task[Channel]]", dial: "Dial") -> "Dial":
    """Hand out the dial that is under way already, then make new ones."""

    async def redial(resume: str | None) -> "Channel":
        return await (waiting.pop() if waiting else dial(resume))

    return redial


async def _abandon(waiting: "list[asyncio.Task[Channel]]") -> None:
    """Give up a dial that nobody took, and what came of it."""
    while waiting:
        dial = waiting.pop()
        dial.cancel()
        [result] = await asyncio.gather(dial, return_exceptions=True)
        if not isinstance(result, BaseException):
            await result.close()
