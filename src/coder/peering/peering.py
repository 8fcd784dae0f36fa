"""One data-plane node and its introduction to others.

    peering = Peering(engine, settings, Client(agent_id), url=url)
    await peering.follow(dial)          # a client: dials for ever
    await peering.introduce(rpc)        # an agent: one session of a connection it shares with other calls

Node, peers and established tunnels live as long as the `Peering`; sessions come and go above them.
"""

import asyncio
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, assert_never
from uuid import UUID

from coder.clock import Clock, SystemClock
from coder.dataplane.engine import NetworkChanged, NodeSettings, Peer, RelayProblem, SelfChanged
from coder.errors import CoderError
from coder.ids import DiscoKey, NodeKey
from coder.peering.backoff import Backoff
from coder.peering.dialing import Dial, is_permanent, refuses_resume_token, takes_right_away
from coder.peering.moves import Moves
from coder.peering.resume import ResumeToken
from coder.peering.tasks import until_one_ends
from coder.rpc.client import RpcClient, RpcStream
from coder.tailnet import derpmap, home
from coder.tailnet.addresses import node_id
from coder.tailnet.peers import Action, PeerConfig, Peers, SendReady, SetPeers, Wake
from coder.tailnet.portmap.report import PortMapReport
from coder.tailnet.selfnode import build_node
from coder.wire import derpmap_json
from coder.wire.derpmap import DerpMap, from_proto
from coder.wire.proto import tailnet_pb2 as pb

if TYPE_CHECKING:
    from coder.dataplane.engine import Engine, Node
    from coder.peering.portmapping import PortMapping

SERVICE = "/coder.tailnet.v2.Tailnet/"

_MOST_READY = 64
"""Peers that one request calls ready; coordinators refuse more."""

FIRST_RETRY, LAST_RETRY = 0.05, 10.0
"""Seconds between two dials of a client, at first and at most."""

AFTERWARDS = 0.5
"""Seconds after a client's introduction before the router is asked for a port: the first packets have the machine to
themselves, and a short command needs no router at all."""

HANG_UP = 1.0
"""Seconds the server has to end the call after our disconnect."""


@dataclass(frozen=True, slots=True)
class Client:
    """The role of a user's node: it opens a tunnel to one agent."""

    agent: UUID


@dataclass(frozen=True, slots=True)
class Host:
    """The role of an agent: whoever may reach it is introduced by the coordinator."""

    agent: UUID


@dataclass(frozen=True, slots=True)
class Hub:
    """The role of the server's node: it opens and ends tunnels to many agents while it lives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """How far the introduction has come."""

    home: int
    """Region at which we can be reached; 0 while none has been chosen."""
    latencies: Mapping[str, float]
    """Seconds by `<region>-v4` or `-v6`."""
    endpoints: tuple[str, ...]
    told: bool
    """Whether the coordinator has our record."""
    peers: tuple[PeerConfig, ...]
    derp_map: DerpMap
    port_mapping: PortMapReport
    """What came of asking the router for a port."""


class Peering:
    """Owns a node; make it in a running loop and `close` it at the end."""

    def __init__(
        self,
        engine: "Engine",
        settings: NodeSettings,
        role: Client | Host | Hub,
        *,
        url: str,
        on_event: Callable[[object], None] | None = None,
        map_ports: bool = False,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._role = role
        self._url = url
        self._clock = clock or SystemClock()
        self._rng = rng or random.SystemRandom()
        self._on_event = on_event
        self._addresses = tuple(map(IPv6Address, settings.addresses))
        self._number = node_id(role.agent) if isinstance(role, Host) else self._rng.getrandbits(63)
        self._block_direct = settings.block_direct
        self._prefer_region = settings.prefer_region
        self._map = DerpMap()
        self._self = SelfChanged(home=0, latencies={}, endpoints=(), forced_websocket={})
        self._record: pb.Node | None = None
        self._configured: tuple[PeerConfig, ...] = ()
        self._resume = ResumeToken(self._clock)
        self._outbox: asyncio.Queue[pb.CoordinateRequest] | None = None
        self._over = asyncio.Event()
        self._told = False
        self._heard = False
        self._timer: asyncio.Task[None] | None = None
        self._map_ports = map_ports
        self._homed = asyncio.Event()
        self._mapper: asyncio.Task[None] | None = None
        self._mapping: PortMapping | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self.moves = Moves(self._clock)
        """What a caller that dials itself does so with."""
        self._troubled: set[int] = set()
        """Regions whose relay was told to be away."""
        self.introduced = asyncio.Event()
        """Set once there was a peer to talk to."""
        self.node: Node = engine.node(settings, self._event)
        self._peers = Peers(
            acknowledge=isinstance(role, Host),
            handshake_age=self.node.last_handshake,
            strict=isinstance(role, Hub),
        )
        self._destinations: set[UUID] = set()
        if isinstance(role, Client):
            self.add_destination(role.agent)
        self._map_port()

    def state(self) -> State:
        """Tell how far the introduction has come."""
        return State(
            home=self._self.home,
            latencies=self._self.latencies,
            endpoints=self._self.endpoints,
            told=self._told,
            peers=self._configured,
            derp_map=self._map,
            port_mapping=self._mapping.report() if self._mapping is not None else PortMapReport(),
        )

    def why_home(self) -> str:
        """Say which region is home and why, in one line."""
        return home.why(self._map, self._self.home, home.by_region(self._self.latencies), self._prefer_region)

    def add_destination(self, agent: UUID) -> None:
        """Ask for a tunnel to an agent, in this session and those to come."""
        if agent not in self._destinations:
            self._destinations.add(agent)
            self._peers.add_destination(agent)
            if self._outbox is not None:
                self._outbox.put_nowait(pb.CoordinateRequest(add_tunnel=pb.CoordinateRequest.Tunnel(id=agent.bytes)))

    def remove_destination(self, agent: UUID) -> None:
        """End the tunnel to an agent."""
        if agent in self._destinations:
            self._destinations.discard(agent)
            if self._outbox is not None:
                gone = pb.CoordinateRequest.Tunnel(id=agent.bytes)
                self._outbox.put_nowait(pb.CoordinateRequest(remove_tunnel=gone))
            self._act(self._peers.remove_destination(self._clock.monotonic(), agent))

    def present(self, agent: UUID) -> bool:
        """Tell whether the coordinator introduced us to this agent and it is still there."""
        return self._peers.present(agent)

    def set_map(self, derp_map: DerpMap) -> None:
        """Use other relays. The embedded ones are looked for where the server itself is. Raises Malformed."""
        moved = home.pinned(derpmap.rewrite_embedded(derp_map, self._url), self._prefer_region)
        if not derpmap.same(moved, self._map):
            self.node.set_map(json.dumps(derpmap_json.dump(moved)))
            self._map = moved

    def set_block_direct(self, block: bool) -> None:
        """Allow direct paths, or forbid them from now on."""
        if block != self._block_direct:
            self._block_direct = block
            self.node.set_block_direct(block)
            self._announce()
            if not block:
                self._map_port()
            elif (mapping := self._take_mapping()) is not None:
                ending = asyncio.ensure_future(mapping.close())
                self._ending.add(ending)
                ending.add_done_callback(self._ending.discard)

    def close(self) -> None:
        """End the node and with it all its streams."""
        if self._timer is not None:
            self._timer.cancel()
        for ending in self._ending:
            ending.cancel()
        if (mapping := self._take_mapping()) is not None:
            mapping.abandon()
        self.node.close()

    # The router

    def _map_port(self) -> None:
        """Ask the router for a port that leads to us, unless nobody could use it."""
        if self._map_ports and not self._block_direct:
            self._mapper = asyncio.ensure_future(self._start_mapping())

    async def _start_mapping(self) -> None:
        """Wait until that is in nobody's way, then begin."""
        await self._homed.wait()
        if isinstance(self._role, Client):
            await self.introduced.wait()
            await self._clock.sleep(AFTERWARDS)
        make = await asyncio.to_thread(_port_mapping)
        self._mapping = make(self.node, clock=self._clock, on_change=self._port_changed)
        self._mapping.start()

    async def unmap(self) -> None:
        """Give the router its port back. Takes a fifth of a second at most."""
        if (mapping := self._take_mapping()) is not None:
            await mapping.close()

    def _take_mapping(self) -> "PortMapping | None":
        mapping, self._mapping = self._mapping, None
        if self._mapper is not None:
            self._mapper.cancel()
        return mapping

    def _port_changed(self, report: PortMapReport) -> None:
        if self._on_event is not None:
            self._on_event(PortMapped(report))

    # Sessions

    async def follow(self, dial: Dial) -> None:
        """Be introduced, and again whenever the connection ends; returns only by an error or by being cancelled.

        Raises what the first dial came to if trying again would not help. Once there was a success, all is retried but
        the server's own word that we may not be here any more.
        """
        backoff = Backoff(FIRST_RETRY, LAST_RETRY, self._rng)
        reached = False
        while True:
            self._heard = False
            try:
                channel = await self.moves.dial(dial, self._resume.get())
                reached = True
                async with RpcClient(channel, clock=self._clock) as rpc:
                    await until_one_ends(self.introduce(rpc), self._keep_token_fresh(rpc), _ended(rpc))
            except CoderError as error:
                if refuses_resume_token(error) and self._resume.get() is not None:
                    self._resume.forget()
                    continue
                if takes_right_away(error) if reached else is_permanent(error):
                    self.drop_peers()
                    raise
            if self._heard:
                backoff.reset()
            await self.moves.pause(backoff.delay())

    async def introduce(self, rpc: RpcClient) -> None:
        """Hold one coordination session, until it ends. Raises CoderError when it ends badly.

        The peers stay configured afterwards; they count as lost until the next session tells of them again.
        """
        outbox = self._outbox = asyncio.Queue()
        self._over.clear()
        self._told = False
        for agent in sorted(self._destinations):
            outbox.put_nowait(pb.CoordinateRequest(add_tunnel=pb.CoordinateRequest.Tunnel(id=agent.bytes)))
        self._announce()
        try:
            async with (
                rpc.stream(SERVICE + "Coordinate", None, pb.CoordinateResponse) as call,
                rpc.stream(SERVICE + "StreamDERPMaps", pb.StreamDERPMapsRequest(), pb.DERPMap) as maps,
            ):
                self._act(self._peers.coordination_begun(self._clock.monotonic()))
                await until_one_ends(
                    self._write(call, outbox), self._read(call), self._follow_maps(maps), self.moves.watch(rpc)
                )
        finally:
            self._outbox = None
            self._over.set()
            self._act(self._peers.coordination_lost(self._clock.monotonic()))

    def drop_peers(self) -> None:
        """End all tunnels: the server refuses us, so nobody may use them any more."""
        self._act(self._peers.drop_all(self._clock.monotonic()))

    async def leave(self) -> None:
        """Give the router its port back, and say goodbye in the running session, if any."""
        mapping = self._take_mapping()
        ending = asyncio.ensure_future(mapping.close()) if mapping is not None else None
        await self._say_goodbye()
        if ending is not None:
            await ending

    async def _say_goodbye(self) -> None:
        """Take our leave and give the server a moment to hang up."""
        if self._outbox is None:
            return
        self._outbox.put_nowait(pb.CoordinateRequest(disconnect=pb.CoordinateRequest.Disconnect()))
        over, patience = asyncio.ensure_future(self._over.wait()), asyncio.ensure_future(self._clock.sleep(HANG_UP))
        try:
            await asyncio.wait({over, patience}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            patience.cancel()

    async def _write(self, call: RpcStream[pb.CoordinateResponse], outbox: asyncio.Queue[pb.CoordinateRequest]) -> None:
        while True:
            request = await outbox.get()
            await call.send(request)
            self._told = self._told or request.HasField("update_self")

    async def _read(self, call: RpcStream[pb.CoordinateResponse]) -> None:
        async for response in call:
            self._act(self._peers.handle(self._clock.monotonic(), response.peer_updates))
            if response.error and self._on_event is not None:
                self._on_event(CoordinatorError(response.error))

    async def _follow_maps(self, maps: RpcStream[pb.DERPMap]) -> None:
        async for message in maps:
            self._heard = True
            self.set_map(from_proto(message))

    async def _keep_token_fresh(self, rpc: RpcClient) -> None:
        await self._resume.keep_fresh(rpc)
        await asyncio.Event().wait()  # a server without tokens is no reason to end the session

    # What the node and the decisions say

    def _event(self, event: object) -> None:
        if isinstance(event, NetworkChanged):
            self.moves.note()
        elif isinstance(event, RelayProblem):
            self._note_relay(event)
        elif isinstance(event, SelfChanged):
            self._self = event
            self._announce()
            if event.home:
                self._homed.set()
            if self._mapping is not None:
                self._mapping.look()
        if self._on_event is not None:
            self._on_event(event)

    def _note_relay(self, event: RelayProblem) -> None:
        """Try the server again as soon as a relay is back: it may be the server's own, or the network is."""
        if event.text:
            self._troubled.add(event.region)
        elif event.region in self._troubled:
            self._troubled.discard(event.region)
            self.moves.hurry()

    def _announce(self) -> None:
        """Tell the coordinator who we are, once there is a home at which we can be reached."""
        if self._outbox is None or self._self.home == 0:
            return
        record = build_node(
            number=self._number,
            as_of=self._clock.now(),
            key=NodeKey.parse(self.node.key),
            disco=DiscoKey.parse(self.node.disco),
            home=self._self.home,
            latencies=self._self.latencies,
            addresses=self._addresses,
            endpoints=() if self._block_direct else self._self.endpoints,
            forced_websocket=self._self.forced_websocket,
        )
        self._outbox.put_nowait(pb.CoordinateRequest(update_self=pb.CoordinateRequest.UpdateSelf(node=record)))

    def _act(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case SetPeers(peers):
                    self._configured = peers
                    self.node.set_peers([_peer(one) for one in peers])
                    if peers:
                        self.introduced.set()
                    if self._on_event is not None:
                        self._on_event(PeersChanged(peers))
                case SendReady(ids):
                    self._say_ready(ids)
                case Wake(at):
                    self._arm(at)
                case _:
                    assert_never(action)

    def _say_ready(self, ids: Sequence[UUID]) -> None:
        if self._outbox is None:
            return
        ready = [pb.CoordinateRequest.ReadyForHandshake(id=one.bytes) for one in ids]
        for first in range(0, len(ready), _MOST_READY):
            self._outbox.put_nowait(pb.CoordinateRequest(ready_for_handshake=ready[first : first + _MOST_READY]))

    def _arm(self, at: float | None) -> None:
        if self._timer is not None and self._timer is not asyncio.current_task():
            self._timer.cancel()
        self._timer = None if at is None else asyncio.ensure_future(self._tick(at))

    async def _tick(self, at: float) -> None:
        await self._clock.sleep(at - self._clock.monotonic())
        self._act(self._peers.tick(self._clock.monotonic()))


@dataclass(frozen=True, slots=True)
class CoordinatorError:
    """An event: the coordinator complains, for instance about who may talk to whom."""

    text: str


@dataclass(frozen=True, slots=True)
class PeersChanged:
    """An event: other peers are configured, or the same ones differently."""

    peers: tuple[PeerConfig, ...]


@dataclass(frozen=True, slots=True)
class PortMapped:
    """An event: the router forwards a port to us, or no longer does."""

    report: PortMapReport


def _port_mapping() -> "type[PortMapping]":
    """Load what asks routers, which takes too long for the loop's thread."""
    from coder.peering.portmapping import PortMapping  # noqa: PLC0415 - as said

    return PortMapping


async def _ended(rpc: RpcClient) -> None:
    fault = await rpc.wait_closed()
    if fault is not None:
        raise fault


def _peer(config: PeerConfig) -> Peer:
    return Peer(
        key=config.key,
        disco=config.disco,
        home=config.home,
        endpoints=config.endpoints,
        addresses=tuple(address.partition("/")[0] for address in config.addresses),
        keepalive=config.keepalive,
    )
