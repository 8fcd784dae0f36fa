"""Port mapping over real sockets, with a router on loopback."""

import asyncio
import random
import socket
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Address

import pytest
from fakes.router import FakeRouter

from coder.clock import FakeClock, SystemClock
from coder.peering import portmapping
from coder.peering.portmapping import PortMapping, Ports
from coder.tailnet.portmap.report import Protocol
from coder.tailnet.portmap.values import Network
from coder.wire import ssdp, upnp

LOOPBACK = IPv4Address("127.0.0.1")
PORT = 41641
ONLY = {
    Protocol.PCP: {"pmp": False, "upnp": False},
    Protocol.PMP: {"pcp": False, "upnp": False},
    Protocol.UPNP: {"pcp": False, "pmp": False},
}


async def until(true) -> None:
    while not true():  # noqa: ASYNC110 - what is waited for tells nobody
        await asyncio.sleep(0)


class Node:
    """What a mapping needs of a node."""

    def __init__(self) -> None:
        self.ports = (PORT, 0)
        self.mapped: list[tuple[str, ...]] = []
        self.changed = asyncio.Event()

    def udp_ports(self):
        return self.ports

    def set_mapped(self, endpoints):
        self.mapped.append(tuple(endpoints))
        self.changed.set()

    async def until(self, *endpoints: str) -> None:
        while not self.mapped or self.mapped[-1] != endpoints:
            self.changed.clear()
            await self.changed.wait()


class Endpoint(asyncio.DatagramProtocol):
    def __init__(self, answer) -> None:
        self.answer = answer
        self.askers: list[tuple[str, int]] = []
        self.asked = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.askers.append(addr)
        self.asked.set()
        answer = self.answer(data)
        if answer is not None:
            self.transport.sendto(answer, addr)


class House:
    """A router at loopback addresses, and a mapping that asks it."""

    def __init__(self, router: FakeRouter, status: str) -> None:
        self.router = router
        self.status = status
        self.ignored: set[str] = set()
        """SOAP actions that get no answer."""
        self.clock = SystemClock()
        self.start = self.clock.monotonic()
        self.node = Node()
        self.paths: list[str] = []
        self.serving = set()

    def now(self) -> float:
        return self.clock.monotonic() - self.start

    async def http(self, reader, writer):
        self.serving.add(asyncio.current_task())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:-2])
        path = head.split(" ")[1]
        self.paths.append(path)
        body = await reader.readexactly(int(fields.get("content-length", 0)))
        action = next((line[12:] for line in head.split("\r\n") if line.startswith("SOAPAction: ")), "")
        if action not in self.ignored:
            answer = self.router.http(self.now(), path, action, body)
            writer.write(f"HTTP/1.1 {self.status}\r\nContent-Length: {len(answer)}\r\n\r\n".encode() + answer)
        else:
            await reader.read()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@asynccontextmanager
async def house(router: FakeRouter, *, search=None, clock=None, status="200 OK"):
    """Run a router and a started mapping."""
    made = House(router, status)
    loop = asyncio.get_running_loop()
    router.address = LOOPBACK
    server = await asyncio.start_server(made.http, str(LOOPBACK), 0)
    router.http_port = server.sockets[0].getsockname()[1]
    gateway, made.gateway = await loop.create_datagram_endpoint(
        lambda: Endpoint(lambda data: router.datagram(made.now(), data)), local_addr=(str(LOOPBACK), 0)
    )
    searched, made.searched = await loop.create_datagram_endpoint(
        lambda: Endpoint(search or router.search), local_addr=(str(LOOPBACK), 0)
    )
    ports = Ports(
        gateway=gateway.get_extra_info("sockname")[1],
        search=searched.get_extra_info("sockname")[1],
        announcements=0,
        group=str(LOOPBACK),
    )
    if not router.pcp and not router.pmp:
        gateway.close()
        await asyncio.sleep(0)
    made.network = Network(LOOPBACK, LOOPBACK)
    made.changes = []
    made.mapping = PortMapping(
        made.node,
        clock=clock or made.clock,
        on_change=made.changes.append,
        network=lambda: made.network,
        ports=ports,
        randbytes=random.Random(3).randbytes,
    )
    made.mapping.start()
    try:
        yield made
    finally:
        await made.mapping.close()
        gateway.close()
        searched.close()
        server.close()
        await server.wait_closed()
        await asyncio.gather(*made.serving, return_exceptions=True)


@pytest.mark.parametrize("protocol", Protocol)
async def test_a_port_is_mapped_and_given_back(protocol):
    async with house(FakeRouter(**ONLY[protocol])) as home:
        await home.node.until(f"5.9.0.1:{PORT}")
        report = home.mapping.report()
        assert report.via is protocol
        assert report.gateway == "127.0.0.1"
        assert home.changes[-1] == report
        assert home.router.table
        await home.mapping.close()
        await until(lambda: not home.router.table)
        assert home.node.mapped[-1] == ()
        assert home.mapping.report().external is None


@pytest.mark.parametrize("protocol", [Protocol.PCP, Protocol.PMP])
async def test_an_end_without_waiting_gives_it_back_as_well(protocol):
    async with house(FakeRouter(**ONLY[protocol])) as home:
        await home.node.until(f"5.9.0.1:{PORT}")
        home.mapping.abandon()
        await until(lambda: not home.router.table)


async def test_a_router_that_does_not_hear_the_end_does_not_hold_it_up(monkeypatch):
    monkeypatch.setattr(portmapping, "GOODBYE", 0.01)

    async with house(FakeRouter(**ONLY[Protocol.UPNP])) as home:
        await home.node.until(f"5.9.0.1:{PORT}")
        home.ignored.add(f'"{upnp.IP_1}#DeletePortMapping"')
        await home.mapping.close()
        assert home.router.table


async def test_a_question_that_is_of_no_more_interest_does_not_hold_up_the_end(monkeypatch):
    monkeypatch.setattr(portmapping, "GOODBYE", 1e6)
    async with house(FakeRouter(**ONLY[Protocol.UPNP])) as home:
        home.ignored.add(f'"{upnp.IP_1}#GetStatusInfo"')
        await until(lambda: "/ctl/IPConn" in home.paths)
        await home.mapping.close()


async def test_another_port_of_the_node_is_followed():
    async with house(FakeRouter()) as home:
        await home.node.until(f"5.9.0.1:{PORT}")
        home.node.ports = (5000, 0)
        home.mapping.look()
        await home.node.until("5.9.0.1:5000")
        assert [entry.internal for entry in home.router.table.values()] == [5000]


async def test_leaving_the_network_and_coming_back():
    async with house(FakeRouter()) as home:
        await home.node.until(f"5.9.0.1:{PORT}")
        there, home.network = home.network, None
        home.mapping.look()
        assert home.node.mapped[-1] == ()
        assert home.mapping.report().error == "there is no default route"
        home.network = there
        home.mapping.look()
        await home.node.until(f"5.9.0.1:{PORT}")


async def test_a_changed_network_is_looked_at_once_it_has_settled(monkeypatch):
    monkeypatch.setattr(portmapping, "SETTLE", 0.0)
    async with house(FakeRouter()) as home:
        await home.node.until(f"5.9.0.1:{PORT}")
        home.network = None
        home.mapping._stirred()
        home.mapping._stirred()
        await home.node.until()


async def test_only_the_router_is_listened_to():
    """An answer from another address is dropped, and one of the router that points elsewhere is refused."""
    async with house(FakeRouter(**ONLY[Protocol.UPNP]), search=lambda _data: None) as home:
        await home.searched.asked.wait()
        asker = home.searched.askers[0]
        url = f"http://127.0.0.1:{home.router.http_port}/rootDesc.xml"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.0.2", 0))
            stranger.sendto(ssdp.encode_found(ssdp.Found(target=upnp.GATEWAY_1, usn="u", location=url)), asker)
        for location in ("http://127.0.0.2/", "http://169.254.169.254/latest/", "https://127.0.0.1/"):
            found = ssdp.Found(target=upnp.GATEWAY_1, usn="u", location=location)
            home.searched.transport.sendto(ssdp.encode_found(found), asker)
        await until(lambda: home.mapping._machine.refused == 3)
        assert home.paths == []
        assert home.mapping.report().upnp is None


async def test_a_redirect_is_not_followed():
    async with house(FakeRouter(**ONLY[Protocol.UPNP]), status="302 Found\r\nLocation: /elsewhere") as home:
        await until(lambda: home.mapping.report().error)
        assert home.mapping.report().error == "UPnP: it answered with the HTTP status 302"
        assert home.paths == ["/rootDesc.xml"]


async def test_a_flood_is_not_listened_to_for_long():
    clock = FakeClock()
    async with house(FakeRouter(pcp=False, pmp=True, upnp=False), clock=clock) as home:
        await home.node.until(f"5.9.0.1:{PORT}")
        machine, asker = home.mapping._machine, home.gateway.askers[0]
        for _ in range(60):
            for _ in range(20):
                home.gateway.transport.sendto(b"nonsense", asker)
            for _ in range(5):
                await asyncio.sleep(0)
        refused = machine.refused
        assert 200 < refused <= portmapping._FLOOD
        await clock.advance(portmapping._PAUSE)
        await until(lambda: machine.refused > refused)


async def test_before_the_start_and_after_the_end_it_is_off():
    node = Node()
    mapping = PortMapping(node, clock=FakeClock(), network=lambda: None)
    assert mapping.report().error == "port mapping is off"
    mapping.look()
    await mapping.close()
    mapping.start()
    assert mapping.report().error == "there is no default route"
    mapping.abandon()
    assert mapping.report().error == "port mapping is off"
    assert node.mapped == []
