"""The server's own node: made by the first use, tunnels that come and go, and agents that claim what is not theirs."""

import asyncio
from uuid import UUID

import pytest
import structlog
from fakes.engine import FakeEngine

from coder.clock import FakeClock
from coder.dataplane.values import RelayProblem
from coder.errors import Closed, PeerMisbehaved, TimedOut
from coder.server.introductions import Introductions
from coder.server.maps import DerpMaps
from coder.server.node import AWAY_AFTER, IDLE, LOOK_EVERY, PATIENCE, AgentAway, NodePlan, ServerNode
from coder.tailnet.addresses import agent_address, agent_addresses
from coder.tailnet.coordinator import MemoryCoordinator
from coder.wire.derpmap import DerpMap, Region, RelayNode
from coder.wire.proto import tailnet_pb2 as pb

AGENT, OTHER = UUID(int=(4 << 76) | (8 << 60) | 1), UUID(int=(4 << 76) | (8 << 60) | 2)
RELAY = RelayNode(name="999b", region_id=999, host="coder.example.com", derp_port=443)
MAP = DerpMap().with_regions([(999, Region(id=999, code="coder", name="Own", embedded=True, nodes=(RELAY,)))])


def record(agent, key=7, addresses=None):
    prefixes = [f"{each}/128" for each in (addresses or agent_addresses(agent))]
    return pb.Node(
        id=1,
        key=b"np" + bytes([key] * 32),
        disco="discokey:" + "03" * 32,
        preferred_derp=999,
        addresses=prefixes,
        allowed_ips=prefixes,
    )


class Lab:
    def __init__(self, **plan):
        self.clock, self.engine = FakeClock(), FakeEngine()
        self.coordinator = MemoryCoordinator()
        self.made = 0
        self.started = []
        self.node = ServerNode(
            NodePlan(url="http://127.0.0.1:3000", **plan),
            Introductions(self.coordinator),
            DerpMaps(MAP),
            self.clock,
            engine=self.make,
            on_started=self.started.append,
        )
        self.agents = {}

    def make(self):
        self.made += 1
        return self.engine

    def announce(self, agent, **what):
        if agent not in self.agents:
            self.agents[agent] = self.coordinator.connect(agent, lambda: None)
        self.agents[agent].handle(
            pb.CoordinateRequest(update_self=pb.CoordinateRequest.UpdateSelf(node=record(agent, **what)))
        )

    async def turn(self, seconds=0):
        await self.clock.advance(seconds)

    async def ready(self, agent):
        """Act as the agent that has configured the server."""
        await self.turn()
        told = [update for answer in self.agents[agent].take() for update in answer.peer_updates]
        assert [update.id for update in told] == [self.node.id.bytes]
        entry = pb.CoordinateRequest.ReadyForHandshake(id=self.node.id.bytes)
        self.agents[agent].handle(pb.CoordinateRequest(ready_for_handshake=[entry]))
        await self.turn()


@pytest.fixture
async def lab():
    made = Lab()
    yield made
    await made.node.close()


async def reached(lab, agent=AGENT, **what):
    lab.announce(agent, **what)
    asking = asyncio.ensure_future(lab.node.ensure(agent))
    await lab.turn()
    lab.engine.nodes[0].settle()
    await lab.ready(agent)
    return await asking


async def test_nothing_is_made_before_the_first_use(lab):
    await lab.turn()
    assert (lab.made, lab.node.running, lab.started) == (0, False, [])


async def test_an_agent_is_introduced_and_answers(lab):
    assert await reached(lab) == str(agent_address(AGENT))
    assert lab.started == lab.engine.nodes
    [peer] = lab.engine.nodes[0].peers[-1]
    assert peer.keepalive
    assert set(peer.addresses) == {str(each) for each in agent_addresses(AGENT)}
    assert await lab.node.ensure(AGENT) == str(agent_address(AGENT))
    assert lab.made == 1


async def test_nothing_of_the_first_request_stays_with_the_node(lab):
    with (
        structlog.contextvars.bound_contextvars(user="alice"),
        structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as told,
    ):
        await reached(lab)
        lab.engine.nodes[0].on_event(RelayProblem(region=999, text="refused"))
    assert [line["event"] for line in told] == ["node.started", "node.relay_problem"]
    assert "user" not in told[0]


async def test_the_relay_is_looked_for_at_the_edge_itself():
    lab = Lab(pin=lambda: "sha256-raw:" + "ab" * 32)
    await reached(lab)
    for told in lab.engine.nodes[0].maps:
        assert '"HostName": "127.0.0.1"' in told
        assert "sha256-raw:abab" in told
        assert "coder.example.com" not in told
    await lab.node.close()


async def test_an_agent_that_is_away_is_told_soon(lab):
    asking = asyncio.ensure_future(lab.node.ensure(AGENT))
    await lab.turn(AWAY_AFTER - 0.1)
    assert not asking.done()
    await lab.turn(0.2)
    with pytest.raises(AgentAway):
        await asking


async def test_an_agent_that_does_not_answer_is_waited_for(lab):
    lab.announce(AGENT)
    asking = asyncio.ensure_future(lab.node.ensure(AGENT))
    await lab.turn()
    lab.engine.nodes[0].reachable.clear()
    await lab.turn(PATIENCE - 0.1)
    assert not asking.done()
    await lab.turn(0.2)
    with pytest.raises(TimedOut):
        await asking
    lab.engine.nodes[0].reachable.set()
    assert await lab.node.ensure(AGENT)  # the next attempt is a new one


async def test_an_agent_with_a_new_key_is_waited_for_anew(lab):
    await reached(lab)
    lab.engine.nodes[0].reachable.clear()
    lab.announce(AGENT, key=8)
    await lab.turn()
    asking = asyncio.ensure_future(lab.node.ensure(AGENT))
    await lab.turn(1)
    assert not asking.done()
    lab.engine.nodes[0].reachable.set()
    await lab.turn()
    assert await asking


async def test_a_tunnel_ends_when_nobody_uses_it(lab):
    await reached(lab)
    with lab.node.hold(AGENT):
        await lab.turn(IDLE + LOOK_EVERY)
        assert lab.node.tunnels == 1
    await lab.turn(IDLE - LOOK_EVERY)
    assert lab.node.tunnels == 1
    await lab.turn(2 * LOOK_EVERY)
    assert lab.node.tunnels == 0
    assert lab.engine.nodes[0].peers[-1] == ()
    kinds = [update.kind for answer in lab.agents[AGENT].take() for update in answer.peer_updates]
    assert kinds[-1] == pb.CoordinateResponse.PeerUpdate.DISCONNECTED


async def test_no_agent_gets_the_address_of_another(lab):
    await reached(lab)
    lab.announce(OTHER, key=9, addresses=(*agent_addresses(OTHER), agent_address(AGENT)))
    asking = asyncio.ensure_future(lab.node.ensure(OTHER))
    await lab.turn(6)
    assert await asking
    by_key = {peer.key: set(peer.addresses) for peer in lab.engine.nodes[0].peers[-1]}
    assert by_key["nodekey:" + "07" * 32] == {str(each) for each in agent_addresses(AGENT)}
    assert by_key["nodekey:" + "09" * 32] == {str(each) for each in agent_addresses(OTHER)}


@pytest.mark.parametrize(
    "claim",
    [{"key": 7}, {"key": 9, "addresses": (agent_address(AGENT),)}],
    ids=["another's key", "another's addresses only"],
)
async def test_an_agent_that_claims_to_be_another_is_no_peer(lab, claim):
    await reached(lab)
    lab.announce(OTHER, **claim)
    asking = asyncio.ensure_future(lab.node.ensure(OTHER))
    await lab.turn(PATIENCE + 1)
    with pytest.raises((AgentAway, TimedOut)):
        await asking
    [peer] = lab.engine.nodes[0].peers[-1]
    assert peer.key == "nodekey:" + "07" * 32


async def test_a_question_by_http_has_its_answer(lab):
    await reached(lab)
    lab.engine.nodes[0].served = {"/api/v0/listening-ports": {"ports": []}}
    assert await lab.node.http_get(AGENT, 4, "/api/v0/listening-ports") == (200, b'{"ports": []}\n')
    with pytest.raises(PeerMisbehaved):
        await lab.node.http_get(AGENT, 4, "/api/v0/listening-ports", limit=4)


async def test_what_waits_hears_of_the_end(lab):
    asking = asyncio.ensure_future(lab.node.ensure(AGENT))
    await lab.turn()
    await lab.node.close()
    with pytest.raises(Closed):
        await asking
    with pytest.raises(Closed):
        await lab.node.ensure(AGENT)
    assert lab.engine.nodes[0].closed
