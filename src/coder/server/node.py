"""The server's own node: tunnels to agents, for terminals and apps in the browser and for questions to agents.

Nothing exists until the first use. Then there is one engine with one node, introduced by our own coordinator through a
channel in memory and reached over the relay by way of the edge's own address. A tunnel to an agent is made when it is
wanted and ended when nobody has used it for a while. Whoever calls has decided that its user may reach the agent.
"""

import asyncio
import contextvars
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid4

import structlog

from coder.clock import Clock
from coder.dataplane.values import NodeSettings, PathChanged, RelayProblem
from coder.errors import Closed, CoderError, TimedOut, Unreachable
from coder.outbound import Outbound
from coder.peering import Hub, Peering, PeersChanged, tunnel_http
from coder.rpc import memory
from coder.rpc import server as rpc
from coder.rpc.channel import Channel
from coder.rpc.handlers import Context, Handler, Send, ServerStreaming, Streaming
from coder.server.introductions import Introductions
from coder.server.maps import DerpMaps
from coder.tailnet.addresses import agent_address, client_address
from coder.tailnet.tunnels import TrustedAuthorization
from coder.wire.derpmap import DerpMap, from_proto, to_proto
from coder.wire.proto import tailnet_pb2 as pb

if TYPE_CHECKING:
    from coder.dataplane.engine import Engine, Node, Pong, SpeedtestResult

log = structlog.get_logger(__name__)

PATIENCE: Final = 10.0
"""Seconds an agent has to answer through a new tunnel."""
AWAY_AFTER: Final = 3.0
"""Seconds after which an agent that the coordinator does not know counts as away; it may be about to come back."""
IDLE: Final = 600.0
"""Seconds without any use after which a tunnel ends."""
LOOK_EVERY: Final = 60.0
"""Seconds between looks for idle tunnels."""
MAX_ANSWER: Final = 1 << 20
"""Bytes of an agent's answer over HTTP that we are willing to hold."""

_SERVICE = "/coder.tailnet.v2.Tailnet/"


class AgentAway(Unreachable):
    """The agent is not connected to this server, so there is nobody to open a tunnel to."""

    remedy = "Start the workspace, or wait until its agent has connected."
    status = 502


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """What the node is made with."""

    url: str
    """Where this process reaches the edge: `http://127.0.0.1:<port>`, or `https` when there is nothing else."""
    pin: Callable[[], str | None] = lambda: None
    """Reads what the edge's certificate is to be known by, for an `https` URL: `sha256-raw:<hex>`."""
    block_direct: bool = False
    force_websockets: bool = False
    outbound: Outbound = field(default_factory=Outbound)


@dataclass(slots=True)
class _Tunnel:
    agent: UUID
    address: str
    last_used: float
    holders: int = 0
    waiters: int = 0
    key: str | None = None
    """The agent's key while it is configured; it changes when the agent is restarted."""
    answered: bool = False
    reaching: asyncio.Task[None] | None = None


class ServerNode:
    """One server's node. Made once, started by the first use, closed with the server."""

    def __init__(
        self,
        plan: NodePlan,
        introductions: Introductions,
        maps: DerpMaps,
        clock: Clock,
        *,
        engine: "Callable[[], Engine] | None" = None,
        on_started: "Callable[[Node], None]" = lambda _node: None,
    ) -> None:
        self._plan = plan
        self._introductions = introductions
        self._maps = maps
        self._clock = clock
        self._make_engine = engine or _engine
        self._on_started = on_started
        self._engine: Engine | None = None
        self._peering: Peering | None = None
        self._tunnels: dict[UUID, _Tunnel] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Event()
        self._closed = False
        self.id = uuid4()
        """Its id at the coordinator."""
        self.address = str(client_address(uuid4()))
        """Its address inside the tunnels: where agents see us come from."""

    @property
    def running(self) -> bool:
        """Whether anything was made yet."""
        return self._engine is not None

    @property
    def tunnels(self) -> int:
        """Number of agents there is a tunnel to, or one being made."""
        return len(self._tunnels)

    def on_started(self, hook: "Callable[[Node], None]") -> None:
        """Have the node told whenever it is made; by its `handle` other parts in Rust can dial through it."""
        self._on_started = hook

    async def ensure(self, agent_id: UUID, patience: float = PATIENCE) -> str:
        """Return the agent's address inside the tunnel, once it answers there. At once when it did before.

        Raises AgentAway, TimedOut after `patience` seconds, Closed while the server stops.
        """
        tunnel = self._tunnel(agent_id)
        if not tunnel.answered:
            await self._wait(tunnel, patience)
        tunnel.last_used = self._clock.monotonic()
        return tunnel.address

    @contextmanager
    def hold(self, agent_id: UUID) -> Iterator[None]:
        """Keep the tunnel, once made, while the block runs, however quiet it is."""
        tunnel = self._tunnel(agent_id)
        tunnel.holders += 1
        try:
            yield
        finally:
            tunnel.holders -= 1
            tunnel.last_used = self._clock.monotonic()

    async def connect(self, agent_id: UUID, port: int, patience: float = PATIENCE) -> socket.socket:
        """Open a TCP stream to a port of the agent; the caller closes it, and holds the tunnel meanwhile.

        Raises AgentAway, Unreachable when nothing listens there, TimedOut, Closed.
        """
        try:
            async with asyncio.timeout(patience):
                address = await self.ensure(agent_id, patience)
                assert self._peering is not None
                return await self._peering.node.connect(address, port)
        except (TimeoutError, TimedOut):
            self.doubt(agent_id)
            raise TimedOut("the agent does not answer", remedy="Try again; it may be reconnecting.") from None

    @asynccontextmanager
    async def stream(self, agent_id: UUID, port: int, patience: float = PATIENCE) -> AsyncIterator[socket.socket]:
        """Open a stream as `connect` does, keep its tunnel, and close it at the end of the block."""
        with self.hold(agent_id):
            stream = await self.connect(agent_id, port, patience)
            try:
                yield stream
            finally:
                stream.close()

    async def http_get(
        self, agent_id: UUID, port: int, path: str, *, limit: int = MAX_ANSWER, patience: float = PATIENCE
    ) -> tuple[int, bytes]:
        """Ask the agent's port by HTTP; return status and body. Redirects are an answer like any other.

        Raises as `connect`, and PeerMisbehaved for an answer that makes no sense or has more than `limit` bytes.
        """
        try:
            async with asyncio.timeout(patience), self.stream(agent_id, port, patience) as stream:
                return await tunnel_http.exchange(stream.dup(), str(agent_address(agent_id)), port, path, limit)
        except TimeoutError:
            raise TimedOut("the agent did not answer in time") from None

    async def ping(self, agent_id: UUID, patience: float = PATIENCE) -> "Pong":
        """Measure the way to an agent, and say which it is. Raises as `connect`."""
        try:
            async with asyncio.timeout(patience):
                address = await self.ensure(agent_id, patience)
                assert self._peering is not None
                return await self._peering.node.ping(address)
        except TimeoutError:
            self.doubt(agent_id)
            raise TimedOut("the agent does not answer") from None

    async def speedtest(self, agent_id: UUID, *, seconds: float, download: bool) -> "SpeedtestResult":
        """Measure the throughput to an agent, or from it. Raises as `connect`, and what the node's own does."""
        with self.hold(agent_id):
            address = await self.ensure(agent_id)
            assert self._peering is not None
            return await self._peering.node.speedtest(address, duration=seconds, download=download)

    async def close(self) -> None:
        """End all tunnels and the node."""
        self._closed = True
        await self._end()

    # Life

    def _tunnel(self, agent_id: UUID) -> _Tunnel:
        """Return the tunnel to an agent; begin one where there is none."""
        peering = self._start()
        tunnel = self._tunnels.get(agent_id)
        if tunnel is None:
            now = self._clock.monotonic()
            tunnel = self._tunnels[agent_id] = _Tunnel(agent_id, str(agent_address(agent_id)), now)
            peering.add_destination(agent_id)
        return tunnel

    def _start(self) -> Peering:
        if self._closed:
            raise Closed("the server is stopping")
        if self._engine is not None and self._engine.failed:
            log.error("node.failed")
            self._drop()
        if self._peering is None:
            # It outlives the request that is the first, so nothing of its context (who asks, for the log) may stay.
            return contextvars.Context().run(self._make)
        return self._peering

    def _make(self) -> Peering:
        self._engine = self._make_engine()
        settings = NodeSettings(
            addresses=(self.address,),
            block_direct=self._plan.block_direct,
            force_websockets=self._plan.force_websockets,
            outbound=self._plan.outbound,
        )
        peering = self._peering = Peering(
            self._engine, settings, Hub(), url=self._plan.url, on_event=self._hear, clock=self._clock
        )
        peering.set_map(self._adapted(self._maps.current))
        self._on_started(peering.node)
        self._spawn(self._follow(peering))
        self._spawn(self._prune(peering))
        log.info("node.started", address=self.address)
        return peering

    def _spawn(self, job: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _drop(self) -> None:
        """Forget a node and everything on it; what waits for it hears that it ended."""
        for task in list(self._tasks):
            task.cancel()
        self._tunnels.clear()
        if self._peering is not None:
            self._peering.close()
        if self._engine is not None:
            self._engine.close()
        self._peering = self._engine = None
        self._notify()

    async def _end(self) -> None:
        tasks = list(self._tasks)
        self._drop()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, peering: Peering) -> None:
        try:
            await peering.follow(self._dial)
        except CoderError as error:
            log.warning("node.not_introduced", fault=str(error))

    async def _prune(self, peering: Peering) -> None:
        while True:
            await self._clock.sleep(LOOK_EVERY)
            now = self._clock.monotonic()
            for tunnel in list(self._tunnels.values()):
                if not tunnel.holders and not tunnel.waiters and now - tunnel.last_used >= IDLE:
                    del self._tunnels[tunnel.agent]
                    peering.remove_destination(tunnel.agent)

    # Readiness

    async def _wait(self, tunnel: _Tunnel, patience: float) -> None:
        """Wait until the agent answers; several wait for one attempt."""
        tunnel.waiters += 1
        if tunnel.reaching is None:
            tunnel.reaching = asyncio.ensure_future(self._reach(tunnel))
        asked, patient = tunnel.reaching, asyncio.ensure_future(self._clock.sleep(patience))
        away = asyncio.ensure_future(self._away(tunnel))
        try:
            await asyncio.wait({asked, patient, away}, return_when=asyncio.FIRST_COMPLETED)
            if asked.done() and not asked.cancelled():
                asked.result()
            elif away.done():
                raise AgentAway("the agent is not connected")
            else:
                raise TimedOut("the agent does not answer", remedy="Try again; it may be reconnecting.")
        finally:
            patient.cancel()
            away.cancel()
            tunnel.waiters -= 1
            if not tunnel.waiters and not asked.done():
                asked.cancel()  # pings become rare with time: the next who comes begins anew
            if not tunnel.waiters:
                tunnel.reaching = None

    async def _reach(self, tunnel: _Tunnel) -> None:
        while tunnel.key is None:
            await self._next_change(tunnel)
        assert self._peering is not None
        await self._peering.node.reach(tunnel.address)
        tunnel.answered = True

    async def _away(self, tunnel: _Tunnel) -> None:
        """Return when the coordinator has not known the agent for a while."""
        await self._clock.sleep(AWAY_AFTER)
        while self._peering is not None and self._peering.present(tunnel.agent):
            await self._clock.sleep(AWAY_AFTER)

    async def _next_change(self, tunnel: _Tunnel) -> None:
        turn = self._turn
        await turn.wait()
        if self._tunnels.get(tunnel.agent) is not tunnel:
            raise Closed("the tunnel has ended")

    def _notify(self) -> None:
        turn, self._turn = self._turn, asyncio.Event()
        turn.set()

    def _hear(self, event: object) -> None:
        if isinstance(event, PeersChanged):
            keys = {peer.id: str(peer.key) for peer in event.peers}
            for tunnel in self._tunnels.values():
                key = keys.get(tunnel.agent)
                if key != tunnel.key:
                    tunnel.key, tunnel.answered = key, False
            self._notify()
        elif isinstance(event, PathChanged):
            place = event.path.endpoint or f"region {event.path.region}"
            log.debug("node.path_changed", peer=event.peer[:16], kind=event.path.kind, via=place)
        elif isinstance(event, RelayProblem) and event.text:
            log.info("node.relay_problem", region=event.region, reason=event.text)

    def doubt(self, agent_id: UUID) -> None:
        """Ask for a sign of life before the next use: somebody has found the agent silent."""
        if (tunnel := self._tunnels.get(agent_id)) is not None:
            tunnel.answered = False

    # Introduction

    async def _dial(self, _resume: str | None) -> Channel:
        ours, theirs = memory.pair()
        handlers: dict[str, Handler] = {
            _SERVICE + "Coordinate": Streaming(pb.CoordinateRequest, self._coordinate),
            _SERVICE + "StreamDERPMaps": ServerStreaming(pb.StreamDERPMapsRequest, self._stream_maps),
        }
        self._spawn(_serve(theirs, handlers, self._clock))
        return ours

    async def _coordinate(self, _context: Context, requests: AsyncIterator[pb.CoordinateRequest], send: Send) -> None:
        await self._introductions.coordinate(self.id, TrustedAuthorization(), requests, send)

    async def _stream_maps(self, _context: Context, _request: pb.StreamDERPMapsRequest, send: Send) -> None:
        async for derp_map in self._maps.each():
            await send(to_proto(self._adapted(from_proto(derp_map))))

    def _adapted(self, derp_map: DerpMap) -> DerpMap:
        """Know our own relay by its certificate: its name is of no use at an address of this machine."""
        pin = self._plan.pin()
        if pin is None:
            return derp_map
        regions = {
            number: replace(region, nodes=tuple(replace(node, cert_name=pin) for node in region.nodes))
            if region.embedded
            else region
            for number, region in derp_map.regions.items()
        }
        return derp_map.with_regions(regions.items())


async def _serve(channel: Channel, handlers: dict[str, Handler], clock: Clock) -> None:
    await rpc.serve(channel, handlers, clock=clock)


def _engine() -> "Engine":
    from coder.dataplane.engine import Engine  # noqa: PLC0415 - loads the data plane

    return Engine()
