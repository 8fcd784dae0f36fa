"""Asks the router for a port of its own that leads to a node's UDP port: sockets and timers around `tailnet.portmap`.

    mapping = PortMapping(node, clock=clock)
    mapping.start()          once the node is up; nothing waits for it
    mapping.look()           whenever the node says something new of itself: its port may have changed
    mapping.report()         for the diagnosis
    await mapping.close()    undoes the mapping, within `GOODBYE` seconds

Only the router of the default route is talked to, and only what comes from its address is listened to.
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, assert_never

from coder.clock import Clock
from coder.errors import CoderError
from coder.peering import gateways
from coder.tailnet.portmap.machine import PortMap
from coder.tailnet.portmap.report import PortMapReport
from coder.tailnet.portmap.values import Http, Mapped, Network, Output, ToGateway, ToSsdp
from coder.wire import natpmp, ssdp

if TYPE_CHECKING:
    from coder.dataplane.engine import Node

GOODBYE = 0.2
"""Seconds the router has to take our leave by HTTP; datagrams are only sent."""
SETTLE = 0.3
"""Seconds between a first sign of a changed network and our look at it: such signs come in swarms."""

ANNOUNCEMENTS = 5350
"""UDP port on which routers tell all hosts that they have restarted (RFC 6886, 3.2.1; RFC 6887, 14.1)."""

_BATCH = 32  # datagrams of one socket taken in before others get their turn
_FLOOD = 256  # datagrams of one socket within `_PAUSE` beyond which it is left alone for as long
_PAUSE = 1.0
_SSDP_TTL = 2  # hops, as the UPnP Device Architecture recommends
_MAX_DATAGRAM = 4096 + 1


@dataclass(frozen=True, slots=True)
class Ports:
    """UDP ports of the router, and the one it announces to; 0 listens to no announcements."""

    gateway: int = natpmp.PORT
    search: int = ssdp.PORT
    announcements: int = ANNOUNCEMENTS
    group: str = ssdp.GROUP


class PortMapping:
    """Keeps a node's IPv4 UDP port mapped at the router. Made and used in a running loop."""

    def __init__(
        self,
        node: "Node",
        *,
        clock: Clock,
        on_change: Callable[[PortMapReport], None] = lambda _report: None,
        network: Callable[[], Network | None] = gateways.default_network,
        ports: Ports = Ports(),
        randbytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._node = node
        self._clock = clock
        self._on_change = on_change
        self._find = network
        self._ports = ports
        self._machine = PortMap(randbytes)
        self._network: Network | None = None
        self._sockets: list[Reader] = []
        self._to_gateway: socket.socket | None = None
        self._to_ssdp: socket.socket | None = None
        self._changes: Reader | None = None
        self._settling: asyncio.TimerHandle | None = None
        self._requests: asyncio.Queue[Http] = asyncio.Queue()
        self._asking: asyncio.Task[None] | None = None
        self._timer: asyncio.Task[None] | None = None
        self._running = False

    def report(self) -> PortMapReport:
        """Tell how it stands."""
        return self._machine.report() if self._running else PortMapReport(error="port mapping is off")

    def start(self) -> None:
        """Begin, unless it runs already."""
        if self._running:
            return
        self._running = True
        changes = gateways.route_changes()
        if changes is not None:
            self._changes = Reader(changes, lambda _data, _source: self._stirred(), self._clock)
        self._network = None
        self.look()

    def look(self) -> None:
        """See which network we are in and which port the node has; begin anew if that changed."""
        if not self._running:
            return
        now = self._clock.monotonic()
        network = self._find()
        if network != self._network:
            self._enter(network)
            self._machine.set_network(now, network)
        self._machine.set_port(now, self._node.udp_ports()[0])
        self._obey()

    async def close(self) -> None:
        """Give the mapping back and end. Takes `GOODBYE` seconds at most."""
        if self._running:
            self._running = False
            self._machine.release()
            self._obey()
            if self._requests.qsize():  # what is under way besides is of no more interest
                over = asyncio.ensure_future(self._requests.join())
                await asyncio.wait({over}, timeout=GOODBYE)
                over.cancel()
            self._stop()

    def abandon(self) -> None:
        """Give the mapping back as far as that needs no waiting, and end."""
        if self._running:
            self._running = False
            self._machine.release()
            self._obey()
        self._stop()

    def _stop(self) -> None:
        self._leave()
        if self._changes is not None:
            self._changes.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._settling is not None:
            self._settling.cancel()
        self._timer = self._settling = self._changes = None

    # The network

    def _stirred(self) -> None:
        if self._settling is None:
            self._settling = asyncio.get_running_loop().call_later(SETTLE, self._settled)

    def _settled(self) -> None:
        self._settling = None
        self.look()

    def _enter(self, network: Network | None) -> None:
        """Open the sockets towards a router."""
        self._leave()
        self._network = network
        if network is None:
            return
        self._asking = asyncio.ensure_future(self._ask(self._requests, str(network.local)))
        gateway, local = str(network.gateway), str(network.local)
        try:
            self._to_gateway = _udp(local)
            self._to_gateway.connect((gateway, self._ports.gateway))
            self._listen(self._to_gateway, self._machine.gateway_datagram)
            self._to_ssdp = _udp(local)
            self._to_ssdp.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, network.local.packed)
            self._to_ssdp.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, struct.pack("B", _SSDP_TTL))
            self._listen(self._to_ssdp, self._machine.found)
        except OSError:
            return  # the network is going away already; the next change brings us here again
        if self._ports.announcements:
            with contextlib.suppress(OSError):  # another program has it: the periodic check must do
                self._listen(_udp("", self._ports.announcements), self._machine.gateway_datagram)

    def _leave(self) -> None:
        for reader in self._sockets:
            reader.close()
        self._sockets, self._to_gateway, self._to_ssdp = [], None, None
        self._requests = asyncio.Queue()
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None

    def _listen(self, source: socket.socket, take: Callable[[float, bytes], None]) -> None:
        network = self._network

        def heard(data: bytes | None, sender: IPv4Address | None) -> None:
            now = self._clock.monotonic()
            if data is None:
                if source is self._to_gateway:
                    self._machine.gateway_silent(now)
            elif network is not None and sender == network.gateway:
                take(now, data)
            self._obey()

        self._sockets.append(Reader(source, heard, self._clock))

    # The machine

    def _obey(self) -> None:
        """Do what the machine asks for, and wake it when it wants to."""
        while (output := self._machine.poll()) is not None:
            self._do(output)
        at = self._machine.next_timeout() if self._running else None
        if self._timer is not None and self._timer is not asyncio.current_task():
            self._timer.cancel()
        self._timer = None if at is None else asyncio.ensure_future(self._tick(at))

    def _do(self, output: Output) -> None:
        match output:
            case ToGateway(data):
                _send(self._to_gateway, data, None)
            case ToSsdp(data, multicast):
                host = self._ports.group if multicast or self._network is None else str(self._network.gateway)
                _send(self._to_ssdp, data, (host, self._ports.search))
            case Http():
                self._requests.put_nowait(output)
            case Mapped(endpoints):
                self._node.set_mapped(endpoints)
                self._on_change(self._machine.report())
            case _:
                assert_never(output)

    async def _tick(self, at: float) -> None:
        await self._clock.sleep(at - self._clock.monotonic())
        self._machine.handle_timeout(self._clock.monotonic())
        self._obey()

    async def _ask(self, requests: asyncio.Queue[Http], local: str) -> None:
        """Make the machine's requests, one after the other: a mapping must not be overtaken by its end."""
        from coder.peering.routerhttp import exchange  # noqa: PLC0415 - most routers need none of it

        while True:
            request = await requests.get()
            try:
                body = await exchange(request, local)
                self._machine.answered(self._clock.monotonic(), request.number, body)
            except CoderError as error:
                self._machine.failed(self._clock.monotonic(), request.number, str(error))
            self._obey()
            requests.task_done()


class Reader:
    """Hands on what arrives at a socket, with the sender's address; None for an error that a router's "no" causes.

    A flood costs no more than `_FLOOD` datagrams a second; what is beyond stays with the kernel, which drops it.
    """

    def __init__(
        self, source: socket.socket, heard: Callable[[bytes | None, IPv4Address | None], None], clock: Clock
    ) -> None:
        self._source = source
        self._heard = heard
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._since = clock.monotonic()
        self._count = 0
        self._pause: asyncio.Task[None] | None = None
        self._loop.add_reader(source, self._read)

    def close(self) -> None:
        """Stop, and close the socket."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._source)
        self._source.close()

    def _read(self) -> None:
        for _ in range(_BATCH):
            if self._source.fileno() < 0 or self._flooded():
                return
            try:
                data, sender = self._source.recvfrom(_MAX_DATAGRAM)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._heard(None, None)
                continue
            self._heard(data, _address(sender))

    def _flooded(self) -> bool:
        now = self._clock.monotonic()
        if now - self._since >= _PAUSE:
            self._since, self._count = now, 0
        self._count += 1
        if self._count <= _FLOOD:
            return False
        self._loop.remove_reader(self._source)
        self._pause = asyncio.ensure_future(self._resume())
        return True

    async def _resume(self) -> None:
        await self._clock.sleep(_PAUSE)
        self._loop.add_reader(self._source, self._read)


def _address(sender: object) -> IPv4Address | None:
    return IPv4Address(sender[0]) if isinstance(sender, tuple) and isinstance(sender[0], str) else None


def _udp(address: str, port: int = 0) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1 if port else 0)
        made.bind((address, port))
    except OSError:
        made.close()
        raise
    return made


def _send(to: socket.socket | None, data: bytes, address: tuple[str, int] | None) -> None:
    """Send, as far as the network will: what is lost is sent again by those who need it."""
    if to is None:
        return
    for _ in range(2):  # the first attempt may tell of an earlier datagram that was refused
        with contextlib.suppress(OSError):
            if address is None:
                to.send(data)
            else:
                to.sendto(data, address)
            return
