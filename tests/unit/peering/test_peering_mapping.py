"""When a peering asks the router for a port, and when it gives it back."""

import asyncio
import random
from ipaddress import IPv6Address
from uuid import UUID

import pytest
from fakes.engine import FakeEngine

from coder.clock import FakeClock
from coder.dataplane.engine import NodeSettings
from coder.peering import Client, Host, Peering, PortMapped
from coder.peering import peering as module
from coder.tailnet.portmap.report import PortMapReport, Protocol

AGENT = UUID(int=7)
GRANTED = PortMapReport(pcp=True, gateway="192.168.1.1", external="5.9.0.1:7", via=Protocol.PCP)


class Mapping:
    made: list["Mapping"]

    def __init__(self, node, *, clock, on_change) -> None:
        self.on_change = on_change
        self.calls: list[str] = []
        self.made.append(self)

    def start(self):
        self.calls.append("start")

    def look(self):
        self.calls.append("look")

    def abandon(self):
        self.calls.append("abandon")

    async def close(self):
        self.calls.append("close")

    def report(self):
        return GRANTED


class Setting:
    def __init__(self, role, *, map_ports=True, block=False) -> None:
        self.clock, self.engine, self.events = FakeClock(), FakeEngine(), []
        settings = NodeSettings(
            addresses=(str(IPv6Address("fd7a::1")),),
            ports={},
            default="refuse",
            block_direct=block,
        )
        self.peering = Peering(
            self.engine, settings, role, url="http://x", on_event=self.events.append, map_ports=map_ports,
            clock=self.clock, rng=random.Random(1),
        )  # fmt: skip
        self.node = self.engine.nodes[0]

    async def mapping(self) -> Mapping:
        while not Mapping.made:  # noqa: ASYNC110 - a thread loads it
            await asyncio.sleep(0)
        return Mapping.made[-1]


@pytest.fixture(autouse=True)
def loaded(monkeypatch):
    Mapping.made = []
    monkeypatch.setattr(module, "_port_mapping", lambda: Mapping)


async def test_an_agent_asks_once_it_has_a_home_and_looks_again_at_each_news():
    here = Setting(Host(AGENT))
    await here.clock.advance(10)
    assert Mapping.made == []
    here.node.settle()
    mapping = await here.mapping()
    here.node.settle(endpoints=("10.0.0.3:1",))
    assert mapping.calls == ["start", "look"]
    here.peering.close()
    assert mapping.calls[-1] == "abandon"


async def test_a_client_asks_a_moment_after_its_introduction():
    here = Setting(Client(AGENT))
    here.node.settle()
    await here.clock.advance(10)
    here.peering.introduced.set()
    await here.clock.advance(module.AFTERWARDS / 2)
    assert Mapping.made == []
    await here.clock.advance(module.AFTERWARDS)
    assert (await here.mapping()).calls == ["start"]
    here.peering.close()


@pytest.mark.parametrize("options", [{"map_ports": False}, {"block": True}])
async def test_nothing_is_asked_for_that_nobody_could_use(options):
    here = Setting(Host(AGENT), **options)
    here.node.settle()
    await here.clock.advance(10)
    assert here.peering._mapper is None
    assert here.peering.state().port_mapping == PortMapReport()
    here.peering.close()


async def test_what_came_of_it_is_told():
    here = Setting(Host(AGENT))
    here.node.settle()
    mapping = await here.mapping()
    mapping.on_change(GRANTED)
    assert here.events[-1] == PortMapped(GRANTED)
    assert here.peering.state().port_mapping == GRANTED
    here.peering.close()


async def test_blocking_direct_connections_gives_the_port_back_and_allowing_them_asks_anew():
    here = Setting(Host(AGENT))
    here.node.settle()
    first = await here.mapping()
    here.peering.set_block_direct(block=True)
    await here.clock.advance(0)
    assert first.calls == ["start", "close"]
    assert here.peering.state().port_mapping == PortMapReport()
    Mapping.made = []
    here.peering.set_block_direct(block=False)
    assert (await here.mapping()).calls == ["start"]
    here.peering.close()


async def test_leaving_gives_it_back_in_time():
    here = Setting(Host(AGENT))
    here.node.settle()
    mapping = await here.mapping()
    await here.peering.leave()
    await here.peering.unmap()
    here.peering.close()
    assert mapping.calls == ["start", "close"]
