"""The engine as asyncio sees it: requests are awaitables, cancelling one cancels it in Rust, events arrive as calls.

Rust names each request with a number and reports its outcome through one descriptor that is readable while something
waits; this module keeps the future of each number. Nothing here touches a byte of traffic.
"""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from coder.dataplane.values import (
    DatagramStats,
    EndpointFacts,
    Incoming,
    Interval,
    NetworkChanged,
    NetworkReport,
    NodeEvent,
    NodeSettings,
    NodeStats,
    Path,
    PathChanged,
    Peer,
    PeerPaths,
    Pong,
    PortUse,
    RelayProblem,
    SelfChanged,
    SpeedtestResult,
)
from coder.dataplane.way_out import way_out
from coder.errors import (
    Closed,
    CoderError,
    Malformed,
    Misuse,
    NotFound,
    PeerMisbehaved,
    StreamReset,
    TimedOut,
    Unreachable,
)

if TYPE_CHECKING:
    from coder.dataplane import _native

__all__ = [
    "DatagramStats",
    "EndpointFacts",
    "Engine",
    "Incoming",
    "Interval",
    "NetworkChanged",
    "NetworkReport",
    "Node",
    "NodeEvent",
    "NodeSettings",
    "NodeStats",
    "Path",
    "PathChanged",
    "Peer",
    "PeerPaths",
    "Pong",
    "PortUse",
    "RelayProblem",
    "SelfChanged",
    "SpeedtestResult",
]

SPEEDTEST_PORT = 3

_FAILURES: dict[str, type[CoderError]] = {
    "no_peer": NotFound,
    "timeout": TimedOut,
    "refused": Unreachable,
    "reset": StreamReset,
    "protocol": PeerMisbehaved,
    "system": Unreachable,
    "closed": Closed,
}


class Engine:
    """One process's data plane: one data thread, any number of nodes. Made and used in a running event loop.

    Raises:
        OSError: the system has no descriptor or thread to give.

    """

    def __init__(self) -> None:
        from coder.dataplane import _native  # noqa: PLC0415 - loading the library is most of what importing this costs

        self._native = _native.Engine()
        self._loop = asyncio.get_running_loop()
        self._nodes: dict[int, Node] = {}
        self._waiting: dict[int, asyncio.Future[_native.Done]] = {}
        self._progress: dict[int, Callable[[Interval], None]] = {}
        self._failed: str | None = None
        self._loop.add_reader(self._native.fileno(), self._drain)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def node(self, settings: NodeSettings, on_event: Callable[[NodeEvent], None]) -> "Node":
        """Make a node with fresh keys; `on_event` is called in the loop's thread.

        Raises:
            OSError: the configured UDP port is taken.

        """
        self._check()
        number, key, disco = self._native.add_node(
            addresses=settings.addresses,
            ports=dict(settings.ports),
            default=settings.default,
            listen_port=settings.listen_port,
            block_direct=settings.block_direct,
            force_websockets=settings.force_websockets,
            headers=list(settings.headers.items()),
            **way_out(settings.outbound),
        )
        node = self._nodes[number] = Node(self, number, key, disco, on_event)
        return node

    @property
    def failed(self) -> bool:
        """Whether its thread has stopped, so that another engine is needed."""
        return self._failed is not None

    def close(self) -> None:
        """End the data thread and wait for it; everything that waits fails with `Closed`."""
        self._loop.remove_reader(self._native.fileno())
        self._native.close()
        self._drain()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Closed("the data plane is closed"))
        self._waiting.clear()
        self._nodes.clear()

    def _check(self) -> None:
        if self._failed is not None:
            raise Misuse(f"the data plane has stopped: {self._failed}")

    async def _request(self, node: int, request: int) -> "_native.Done":
        """Wait for a request's outcome; being cancelled cancels it."""
        self._check()
        future: asyncio.Future[_native.Done] = self._loop.create_future()
        self._waiting[request] = future
        try:
            done = await future
        except asyncio.CancelledError:
            self._native.cancel(node, request)
            if future.done() and not future.cancelled() and future.exception() is None:
                _close(future.result().fd)
            raise
        finally:
            self._waiting.pop(request, None)
            self._progress.pop(request, None)
        if done.kind in _FAILURES:
            raise _FAILURES[done.kind](done.text)
        return done

    def _drain(self) -> None:
        for event in self._native.events():
            self._take(event)

    def _take(self, event: object) -> None:
        from coder.dataplane import _native as native  # noqa: PLC0415 - loaded by now

        if isinstance(event, native.Done):
            future = self._waiting.get(event.request)
            if future is not None and not future.done():
                future.set_result(event)
            else:
                _close(event.fd)
        elif isinstance(event, native.Progress):
            self._progressed(event)
        elif isinstance(event, native.Failed):
            self._fail(event.text)
        elif isinstance(
            event,
            native.SelfChanged
            | native.PathChanged
            | native.Incoming
            | native.RelayProblem
            | native.ForcedWebsocket
            | native.NetworkChanged
            | native.Report,
        ):
            node = self._nodes.get(event.node)
            if node is not None:
                node._take(event)  # noqa: SLF001 - the two are one
            elif isinstance(event, native.Incoming):
                _close(event.fd)

    def _progressed(self, event: "_native.Progress") -> None:
        """Tell who asked; what goes wrong with that is the request's error, and no reason to miss other events."""
        report, future = self._progress.get(event.request), self._waiting.get(event.request)
        if report is None or future is None or future.done():
            return
        try:
            report(_interval(event.interval))
        except Exception as error:  # noqa: BLE001 - raised again where the request is awaited
            self._native.cancel(event.node, event.request)
            future.set_exception(error)

    def _fail(self, text: str) -> None:
        self._failed = text
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Closed(f"the data plane has stopped: {text}"))


class Node:
    """One end of tunnels. Made by `Engine.node`."""

    def __init__(
        self, engine: Engine, number: int, key: str, disco: str, on_event: Callable[[NodeEvent], None]
    ) -> None:
        self._engine = engine
        self._native = engine._native  # noqa: SLF001 - the two are one
        self._number = number
        self._on_event = on_event
        self._forced: dict[int, str] = {}
        self._latest: SelfChanged | None = None
        self.key = key
        """`nodekey:<hex>`"""
        self.disco = disco
        """`discokey:<hex>`"""
        self.report: NetworkReport | None = None
        """What the last check of the network found."""

    @property
    def handle(self) -> "tuple[_native.Engine, int]":
        """What the edge needs to open streams without Python."""
        return self._native, self._number

    def set_map(self, derp_map_json: str) -> None:
        """Replace the DERP map, given as JSON with the field names of the map's specification.

        Raises:
            Malformed: it is not such a map, or has numbers out of their range; the old one stays.

        """
        try:
            self._native.set_map(self._number, derp_map_json)
        except ValueError as error:
            raise Malformed(str(error), where="DERP map") from None

    def set_peers(self, peers: Sequence[Peer]) -> None:
        """Replace the set of peers; unchanged ones keep their sessions.

        Raises:
            ValueError: a key or an address is not one.

        """
        from coder.dataplane import _native as native  # noqa: PLC0415 - loaded by now

        made = [
            native.Peer(
                key=peer.key,
                disco=peer.disco,
                home=peer.home,
                endpoints=peer.endpoints,
                addresses=peer.addresses,
                keepalive=peer.keepalive,
            )
            for peer in peers
        ]
        self._native.set_peers(self._number, made)

    def set_block_direct(self, block: bool) -> None:
        """Relay only, or not."""
        self._native.set_block_direct(self._number, block)

    def set_force_websockets(self, force: bool) -> None:
        """Reach relays by WebSocket from their next connection on, or not."""
        self._native.set_force_websockets(self._number, force)

    def set_mapped(self, endpoints: Sequence[str]) -> None:
        """Replace the `ip:port` endpoints routers granted on request; they are advertised before all others.

        Raises:
            ValueError: one is no endpoint.

        """
        self._native.set_mapped(self._number, list(endpoints))

    def udp_ports(self) -> tuple[int, int]:
        """Ports of the IPv4 and the IPv6 socket; 0 where there is none."""
        return self._native.udp_ports(self._number)

    def peer_paths(self, peer: str) -> PeerPaths | None:
        """Tell what is known of the way to the peer of that node key; None if there is no such peer."""
        text = self._native.peer_paths(self._number, peer)
        if text is None:
            return None
        facts = json.loads(text)
        endpoints = tuple(EndpointFacts(**endpoint) for endpoint in facts.pop("endpoints"))
        return PeerPaths(endpoints=endpoints, **facts)

    async def netcheck(self, timeout: float = 10.0) -> NetworkReport:  # noqa: ASYNC109 - a check has its own meaning of late
        """Check the network now, in full: the report, also kept as `report`.

        Raises:
            TimedOut: no result within `timeout` seconds.

        """
        try:
            async with asyncio.timeout(timeout):
                await self._wait(self._native.check(self._number))
        except TimeoutError as error:
            raise TimedOut("the network could not be checked in time") from error
        if self.report is None:
            raise Misuse("a check of the network ended without a report")
        return self.report

    async def ping(self, address: str) -> Pong:
        """One disco ping to the peer that has the address: the round trip and the way it went.

        Raises:
            TimedOut: no answer within five seconds.
            NotFound: no peer has the address.

        """
        done = await self._wait(self._native.ping(self._number, address))
        return Pong(latency=done.latency, path=_path(done.endpoint, done.region))

    async def reach(self, address: str) -> float:
        """Ping inside the tunnel (TSMP), more and more seldom, until there is an answer: the round trip in seconds."""
        return (await self._wait(self._native.reach(self._number, address))).latency

    async def echo(self, address: str) -> float:
        """One ICMPv6 echo: the round trip in seconds.

        Raises:
            TimedOut: no answer within ten seconds.

        """
        return (await self._wait(self._native.echo(self._number, address))).latency

    async def connect(self, address: str, port: int) -> socket.socket:
        """Open a TCP stream: a non-blocking socket whose end is the stream's end. The caller closes it.

        Raises:
            Unreachable: the peer refused.
            TimedOut: the peer did not answer.

        """
        done = await self._wait(self._native.connect(self._number, address, port))
        return _socket(done.fd)

    async def splice(self, local: socket.socket, address: str, port: int) -> None:
        """Join a connected socket to a TCP stream until both directions have finished. Takes the socket over.

        Raises:
            Unreachable: the peer refused.
            StreamReset: the peer cut the stream off.

        """
        local.setblocking(False)
        await self._wait(self._native.splice(self._number, local.detach(), address, port))

    async def forward_datagrams(
        self,
        local: socket.socket,
        address: str,
        port: int,
        on_start: Callable[[Callable[[], DatagramStats | None]], None],
    ) -> None:
        """Send what comes to a UDP socket to this port, and answers to who asked, until cancelled.

        Takes the socket over. `on_start` is given a function for the counters; it returns None once this is over.

        Raises:
            Unreachable: the system said no.
            Closed: the node was closed.

        """
        local.setblocking(False)
        request = self._native.datagrams(self._number, local.detach(), address, port)

        def counters() -> DatagramStats | None:
            counts = self._native.datagram_counts(self._number, request)
            return None if counts is None else DatagramStats(*counts)

        on_start(counters)
        await self._wait(request)

    async def speedtest(
        self,
        address: str,
        *,
        duration: float,
        download: bool,
        on_interval: Callable[[Interval], None] = lambda _interval: None,
    ) -> SpeedtestResult:
        """Measure against the peer's speed test server; `on_interval` hears of each second as it ends.

        Raises:
            Unreachable: the peer has no such server.
            PeerMisbehaved: it said no, or what it said made no sense.
            StreamReset, TimedOut: the stream broke.

        """
        request = self._native.speedtest(self._number, address, SPEEDTEST_PORT, duration, download)
        self._engine._progress[request] = on_interval  # noqa: SLF001 - the two are one
        done = await self._wait(request)
        return SpeedtestResult(
            intervals=tuple(_interval(item) for item in done.intervals),
            total=_interval(done.total),
            retransmits=None if download else done.retransmits,
        )

    def last_handshake(self, peer: str) -> float | None:
        """Seconds since the last handshake with the peer of that node key; None if there was none."""
        return self._native.last_handshake(self._number, peer)

    def stats(self) -> NodeStats:
        """Counters since the node was made; zeros once it is closed."""
        rx_bytes, tx_bytes, rx_packets, tx_packets, refused, streams = self._native.stats(self._number) or (0,) * 6
        return NodeStats(
            rx_bytes=rx_bytes,
            tx_bytes=tx_bytes,
            rx_packets=rx_packets,
            tx_packets=tx_packets,
            refused=refused,
            streams=streams,
        )

    def close(self) -> None:
        """Close the node: its streams are reset, its requests fail."""
        self._engine._nodes.pop(self._number, None)  # noqa: SLF001 - the two are one
        self._native.remove_node(self._number)

    async def _wait(self, request: int) -> "_native.Done":
        return await self._engine._request(self._number, request)  # noqa: SLF001 - the two are one

    def _take(
        self,
        event: "_native.SelfChanged | _native.PathChanged | _native.Incoming | _native.RelayProblem"
        " | _native.ForcedWebsocket | _native.NetworkChanged | _native.Report",
    ) -> None:
        from coder.dataplane import _native as native  # noqa: PLC0415 - loaded by now

        if isinstance(event, native.SelfChanged):
            self._tell_self(
                SelfChanged(
                    home=event.home,
                    latencies=event.latencies,
                    endpoints=tuple(event.endpoints),
                    forced_websocket=dict(self._forced),
                )
            )
        elif isinstance(event, native.PathChanged):
            self._on_event(PathChanged(peer=event.peer, path=_path(event.endpoint, event.region)))
        elif isinstance(event, native.Incoming):
            self._on_event(Incoming(port=event.port, stream=_socket(event.fd), source=event.source))
        elif isinstance(event, native.RelayProblem):
            self._on_event(RelayProblem(region=event.region, text=event.text))
        elif isinstance(event, native.NetworkChanged):
            self._on_event(NetworkChanged())
        elif isinstance(event, native.Report):
            self.report = _report(event.json)
            self._on_event(self.report)
        else:
            self._forced[event.region] = event.reason
            if self._latest is not None:
                self._tell_self(
                    SelfChanged(
                        home=self._latest.home,
                        latencies=self._latest.latencies,
                        endpoints=self._latest.endpoints,
                        forced_websocket=dict(self._forced),
                    )
                )

    def _tell_self(self, event: SelfChanged) -> None:
        self._latest = event
        self._on_event(event)


def _report(text: str) -> NetworkReport:
    facts = json.loads(text)
    for table in ("region_latency", "region_v4_latency", "region_v6_latency"):
        facts[table] = {int(region): seconds for region, seconds in facts[table].items()}
    return NetworkReport(**facts)


def _path(endpoint: str | None, region: int | None) -> Path:
    return Path(kind="direct" if endpoint is not None else "relay", endpoint=endpoint, region=region)


def _interval(span: tuple[float, float, int]) -> Interval:
    start, end, moved = span
    return Interval(start=start, end=end, bytes=moved)


def _socket(fd: int) -> socket.socket:
    made = socket.socket(fileno=fd)
    made.setblocking(False)
    return made


def _close(fd: int) -> None:
    """Close a descriptor nobody waits for any more."""
    if fd >= 0:
        with contextlib.suppress(OSError):
            os.close(fd)
