"""A data plane without sockets: records what it is told, and says what a test tells it to say."""

import asyncio
import functools
import json
import socket
from collections.abc import Callable, Sequence
from typing import Any, Self

from coder.agent import webapi
from coder.dataplane.engine import (
    Interval,
    NetworkReport,
    NodeSettings,
    NodeStats,
    Path,
    Peer,
    PeerPaths,
    Pong,
    SelfChanged,
    SpeedtestResult,
)
from coder.errors import Malformed

KEY = "nodekey:" + "1a" * 32
DISCO = "discokey:" + "2b" * 32
DIRECT = Path(kind="direct", endpoint="10.0.0.7:41641", region=None)
RELAYED = Path(kind="relay", endpoint=None, region=999)
REPORT = NetworkReport(
    udp=True,
    ipv4=True,
    ipv6=False,
    ipv4_can_send=True,
    ipv6_can_send=False,
    os_has_ipv6=False,
    icmpv4=False,
    mapping_varies_by_dest_ip=False,
    hair_pinning=None,
    captive_portal=None,
    preferred_derp=999,
    region_latency={999: 0.001},
    region_v4_latency={999: 0.001},
    region_v6_latency={},
    global_v4="203.0.113.7:41641",
    global_v6=None,
)


class FakeNode:
    key = KEY
    disco = DISCO

    def __init__(self, settings: NodeSettings, on_event: Callable[[Any], None]) -> None:
        self.settings = settings
        self.on_event = on_event
        self.maps: list[str] = []
        self.peers: list[tuple[Peer, ...]] = []
        self.block_direct = settings.block_direct
        self.force_websockets = settings.force_websockets
        self.handshakes: dict[str, float] = {}
        self.pongs: list[Pong | BaseException | None] = []
        """What each disco ping comes to; None: no answer. The last one is repeated."""
        self.reachable = asyncio.Event()
        self.reachable.set()
        self.result: SpeedtestResult | Exception | None = None
        self.closed = False
        self.tests: list[tuple[float, bool]] = []
        self.mapped: list[tuple[str, ...]] = []
        self.ports = (41641, 41642)
        self.paths: dict[str, PeerPaths] = {}
        self.report: NetworkReport | None = None
        self.next_report: NetworkReport = REPORT
        """What a check of the network finds."""
        self.served: dict[str, Any] | None = None
        """The JSON values of the peer's HTTP API by path; None: it hangs up."""
        self._serving: set[asyncio.Task[None]] = set()

    def set_map(self, derp_map_json: str) -> None:
        if any(int(region) >= 2**16 for region in json.loads(derp_map_json)["Regions"]):
            raise Malformed("there is no such region", where="DERP map")
        self.maps.append(derp_map_json)

    def set_peers(self, peers: Sequence[Peer]) -> None:
        self.peers.append(tuple(peers))

    def set_block_direct(self, block: bool) -> None:
        self.block_direct = block

    def set_force_websockets(self, force: bool) -> None:
        self.force_websockets = force

    def set_mapped(self, endpoints: Sequence[str]) -> None:
        self.mapped.append(tuple(endpoints))

    def udp_ports(self) -> tuple[int, int]:
        return self.ports

    def peer_paths(self, peer: str) -> PeerPaths | None:
        return self.paths.get(peer)

    async def netcheck(self, timeout: float = 10.0) -> NetworkReport:  # noqa: ASYNC109
        self.report = self.next_report
        self.on_event(self.report)
        return self.report

    def settle(self, home: int = 999, endpoints: tuple[str, ...] = ("10.0.0.2:4000",)) -> None:
        """Act as a node that has chosen its home."""
        self.on_event(SelfChanged(home=home, latencies={f"{home}-v4": 0.001}, endpoints=endpoints, forced_websocket={}))

    async def ping(self, address: str) -> Pong:
        pong = self.pongs.pop(0) if len(self.pongs) > 1 else self.pongs[0]
        if pong is None:
            await asyncio.Event().wait()
        if isinstance(pong, BaseException):
            raise pong
        assert pong is not None
        return pong

    async def reach(self, address: str) -> float:
        await self.reachable.wait()
        return 0.001

    async def connect(self, address: str, port: int) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        if self.served is None:
            theirs.close()
        else:
            routes = {path: functools.partial(_value, value) for path, value in self.served.items()}
            self._serving.add(asyncio.ensure_future(webapi.serve(theirs, routes)))
        return ours

    async def speedtest(self, address: str, *, duration: float, download: bool, on_interval: Any) -> SpeedtestResult:
        self.tests.append((duration, download))
        if isinstance(self.result, Exception):
            raise self.result
        assert self.result is not None
        for interval in self.result.intervals:
            on_interval(interval)
        return self.result

    def last_handshake(self, peer: str) -> float | None:
        return self.handshakes.get(peer)

    def stats(self) -> NodeStats:
        return NodeStats(rx_bytes=10, tx_bytes=20, rx_packets=1, tx_packets=2)

    def close(self) -> None:
        self.closed = True


async def _value(value: Any) -> Any:
    return value


class FakeEngine:
    def __init__(self, prepare: Callable[[FakeNode], None] = lambda node: None) -> None:
        self.prepare = prepare
        self.nodes: list[FakeNode] = []

    failed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    def node(self, settings: NodeSettings, on_event: Callable[[Any], None]) -> FakeNode:
        node = FakeNode(settings, on_event)
        self.prepare(node)
        self.nodes.append(node)
        return node


def result(*intervals: tuple[float, float, int]) -> SpeedtestResult:
    rows = tuple(Interval(start=start, end=end, bytes=size) for start, end, size in intervals)
    return SpeedtestResult(
        intervals=rows, total=Interval(start=0.0, end=rows[-1].end, bytes=sum(row.bytes for row in rows))
    )
