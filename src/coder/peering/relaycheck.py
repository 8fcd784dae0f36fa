"""Whether a relay relays: two nodes that know nothing else ping each other through it."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from coder.clock import SystemClock
from coder.dataplane.engine import NodeSettings, Peer, RelayProblem, SelfChanged
from coder.errors import CoderError
from coder.outbound import Outbound
from coder.peering import gateways, network
from coder.peering.portmapping import PortMapping
from coder.tailnet.portmap.report import PortMapReport
from coder.wire import derpmap_json
from coder.wire.derpmap import DerpMap, Region

if TYPE_CHECKING:
    from coder.dataplane.engine import Engine, NetworkReport, Node, Pong

ADDRESSES = ("fd7a:115c:a1e0::1", "fd7a:115c:a1e0::2")

ATTEMPT = 0.1
"""Seconds for the first ping, which may be sent before the other end has reached the relay; the next get longer."""

PAUSE = 0.05
"""Seconds between two."""

ROUTER_PATIENCE = 3.0
"""Seconds for the router to answer when it is asked for a port."""


class Flags(Protocol):
    """What a command line says of the way to relays."""

    @property
    def map_ports(self) -> bool:
        """Whether the router may be asked for a port."""

    @property
    def outbound(self) -> Outbound:
        """Proxies, authorities, our certificate."""

    def headers(self, url: str) -> Mapping[str, str]:
        """Return what requests to the server carry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How this deployment reaches its relays."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    force_websockets: bool = False
    map_ports: bool = True
    """The router may be asked for a port."""
    outbound: Outbound = field(default_factory=Outbound)

    @classmethod
    def of(cls, flags: Flags, url: str, *, force_websockets: bool) -> "Rules":
        """Join what the flags say with what the server does."""
        return cls(
            headers=flags.headers(url),
            force_websockets=force_websockets,
            map_ports=flags.map_ports,
            outbound=flags.outbound,
        )


@dataclass(slots=True)
class Exchange:
    """What came of it."""

    round_trip: float | None = None
    """Seconds there and back; None when nothing came back."""
    websocket: str | None = None
    """Why the relay was reached by WebSocket; None when it was not."""
    problems: tuple[list[str], list[str]] = field(default_factory=lambda: ([], []))
    """What each of the two nodes had to complain about."""

    @property
    def problem(self) -> str:
        """The last complaint, or that there was no answer."""
        return next((each[-1].rstrip(": ") for each in self.problems if each), "no answer")


def only(derp_map: DerpMap, region: Region) -> DerpMap:
    """Return a map of that region alone."""
    return derp_map.with_regions([(region.id, region)])


async def exchange(engine: "Engine", derp_map: DerpMap, region: Region, rules: Rules, patience: float) -> Exchange:
    """Send a message from one node through the region's relay to another and back, for at most `patience` seconds."""
    found = Exchange(websocket="the server wants it" if rules.force_websockets else None)
    homes = (asyncio.Event(), asyncio.Event())
    nodes = [_node(engine, rules, address, _listen(found, i, homes[i])) for i, address in enumerate(ADDRESSES)]
    try:
        for node, other, address in ((nodes[0], nodes[1], ADDRESSES[1]), (nodes[1], nodes[0], ADDRESSES[0])):
            peer = Peer(key=other.key, disco=other.disco, home=region.id, endpoints=(), addresses=(address,))
            node.set_map(json.dumps(derpmap_json.dump(only(derp_map, region))))
            node.set_peers([peer])
        async with asyncio.timeout(patience):
            await asyncio.gather(*(home.wait() for home in homes))
            found.round_trip = (await _pong(nodes[0])).latency
    except (TimeoutError, CoderError):
        pass  # what the nodes complained about says why
    finally:
        for node in nodes:
            node.close()
    return found


async def check(engine: "Engine", derp_map: DerpMap, rules: Rules, patience: float) -> "NetworkReport | None":
    """Check the network with a node that knows that map; None when no report came in time."""
    node = _node(engine, rules, ADDRESSES[0], lambda _event: None, block_direct=False)
    try:
        node.set_map(json.dumps(derpmap_json.dump(derp_map)))
        return await network.checked(node, patience)
    finally:
        node.close()


async def router(engine: "Engine", rules: Rules) -> PortMapReport:
    """Ask the router for a port, and give it back: what it can do."""
    if not rules.map_ports:
        return PortMapReport(error="port mapping is off")

    node = _node(engine, rules, ADDRESSES[0], lambda _event: None, block_direct=False)
    mapping = PortMapping(node, clock=SystemClock(), network=gateways.default_network)
    try:
        mapping.start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ROUTER_PATIENCE):
                while _undecided(mapping.report()):  # noqa: ASYNC110 - each answer alone decides nothing
                    await asyncio.sleep(PAUSE)
        return mapping.report()
    finally:
        await mapping.close()
        node.close()


def _undecided(found: PortMapReport) -> bool:
    return found.gateway is not None and found.external is None and None in {found.upnp, found.pmp, found.pcp}


def _node(
    engine: "Engine", rules: Rules, address: str, on_event: Callable[[object], None], *, block_direct: bool = True
) -> "Node":
    settings = NodeSettings(
        addresses=(address,),
        block_direct=block_direct,
        force_websockets=rules.force_websockets,
        headers=rules.headers,
        outbound=rules.outbound,
    )
    return engine.node(settings, on_event)


def _listen(found: Exchange, number: int, home: asyncio.Event) -> Callable[[object], None]:
    def on_event(event: object) -> None:
        if isinstance(event, RelayProblem):
            found.problems[number].append(event.text)
        elif isinstance(event, SelfChanged):
            reason = next(iter(event.forced_websocket.values()), None)
            found.websocket = found.websocket or (reason and reason.rstrip(": "))
            if event.home:
                home.set()

    return on_event


async def _pong(node: "Node") -> "Pong":
    attempt = ATTEMPT
    while True:
        try:
            async with asyncio.timeout(attempt):
                return await node.ping(ADDRESSES[1])
        except (TimeoutError, CoderError):
            attempt *= 2
            await asyncio.sleep(PAUSE)
