import asyncio
import random
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from fakes.coordinator import Coordinator, memory_channels
from fakes.engine import FakeEngine
from fakes.server import AGENT_ID, map_message, node_message

from coder.clock import FakeClock
from coder.dataplane.engine import NetworkChanged, NodeSettings, RelayProblem
from coder.errors import Unreachable, UpgradeRefused
from coder.peering import Client, Host, Peering
from coder.rpc.client import RpcClient
from coder.tailnet.addresses import client_address
from coder.wire.proto import tailnet_pb2 as pb

URL = "http://127.0.0.1:3000"
CLIENT_ID = UUID("aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa")
AGENT_KEY = "nodekey:" + bytes(range(32)).hex()
Update = pb.CoordinateResponse.PeerUpdate


def settings(**changes):
    return NodeSettings(
        **{"addresses": ("fd7a:115c:a1e0::1",), "ports": {}, "default": "refuse", "headers": {}} | changes
    )


def node_update(peer=AGENT_ID, **changes):
    return pb.CoordinateResponse(peer_updates=[Update(id=peer.bytes, node=node_message(**changes), kind=Update.NODE)])


def update(kind, peer=AGENT_ID):
    return pb.CoordinateResponse(peer_updates=[Update(id=peer.bytes, kind=kind)])


class Lab:
    """A peering under a clock that stands still, and the coordinator it dials."""

    def __init__(self, role, **changes):
        self.clock = FakeClock()
        self.engine = FakeEngine()
        self.events = []
        self.peering = Peering(
            self.engine, settings(**changes), role, url=URL, on_event=self.events.append, clock=self.clock,
            rng=random.Random(1),
        )  # fmt: skip
        self.node = self.engine.nodes[0]
        self.refusals = []
        self.coordinators = []
        self.channels = []
        self.tokens = []

    @property
    def coordinator(self):
        return self.coordinators[-1]

    async def dial(self, token):
        self.tokens.append(token)
        if self.refusals:
            raise self.refusals.pop(0)
        ours, theirs = memory_channels()
        self.coordinators.append(Coordinator(theirs, self.clock))
        self.channels.append(ours)
        return ours

    async def turn(self):
        await self.clock.advance(0)

    def close(self):
        self.peering.close()
        for coordinator in self.coordinators:
            coordinator.cancel()


@asynccontextmanager
async def following(role=None, **changes):
    lab = Lab(role or Client(AGENT_ID), **changes)
    task = asyncio.ensure_future(lab.peering.follow(lab.dial))
    await lab.turn()
    try:
        yield lab, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        lab.close()


async def test_a_client_asks_for_its_tunnel_first_and_sends_itself_once_it_has_a_home():
    async with following() as (lab, _):
        [first] = lab.coordinator.requests
        assert first.add_tunnel.id == AGENT_ID.bytes
        lab.node.settle(home=0)
        await lab.turn()
        assert len(lab.coordinator.requests) == 1
        assert not lab.peering.state().told
        lab.node.settle(home=999)
        await lab.turn()
        node = lab.coordinator.requests[1].update_self.node
        assert node.preferred_derp == 999
        assert node.addresses == ["fd7a:115c:a1e0::1/128"] == node.allowed_ips
        assert node.endpoints == ["10.0.0.2:4000"]
        assert node.key == b"np" + b"\x1a" * 32
        assert node.id > 0
        assert lab.peering.state().told


async def test_a_client_holds_the_agent_back_until_it_is_ready():
    async with following() as (lab, _):
        await lab.coordinator.say(node_update())
        assert lab.node.peers == []
        await lab.coordinator.say(update(Update.READY_FOR_HANDSHAKE))
        [[peer]] = lab.node.peers
        assert peer.key == AGENT_KEY
        assert peer.home == 999
        assert peer.addresses == ("fd7a:115c:a1e0:4e5c:9f10:123:4567:89ab",)
        assert peer.endpoints == ("10.0.0.7:41641",)
        assert peer.keepalive


async def test_a_client_gives_up_waiting_for_ready_after_five_seconds():
    async with following() as (lab, _):
        await lab.coordinator.say(node_update())
        await lab.clock.advance(4.9)
        assert lab.node.peers == []
        await lab.clock.advance(0.2)
        assert len(lab.node.peers) == 1


async def test_an_agent_configures_a_client_before_it_says_ready():
    async with following(Host(AGENT_ID)) as (lab, _):
        lab.node.settle()
        await lab.turn()
        assert [request.HasField("add_tunnel") for request in lab.coordinator.requests] == [False]
        await lab.coordinator.say(node_update(CLIENT_ID))
        [ready] = lab.coordinator.requests[1].ready_for_handshake
        assert ready.id == CLIENT_ID.bytes
        assert len(lab.node.peers[0]) == 1


async def test_an_agent_says_of_many_clients_that_they_are_ready_in_several_requests():
    clients = [UUID(int=number, version=4) for number in range(1, 131)]
    async with following(Host(AGENT_ID)) as (lab, _):
        every = [Update(id=each.bytes, node=node_message(), kind=Update.NODE) for each in clients]
        for one in every:
            one.node.key = b"np" + one.id * 2
            one.node.addresses[0] = one.node.allowed_ips[0] = str(client_address(UUID(bytes=one.id))) + "/128"
        await lab.coordinator.say(pb.CoordinateResponse(peer_updates=every))
        told = [[each.id for each in request.ready_for_handshake] for request in lab.coordinator.requests]
        assert [len(ids) for ids in told] == [64, 64, 2]
        assert [each for ids in told for each in ids] == [each.bytes for each in clients]


async def test_a_session_that_lives_outlasts_a_move():
    async with following() as (lab, _):
        lab.node.on_event(NetworkChanged())
        await lab.clock.advance(5)
        assert len(lab.coordinators) == 1


async def test_a_session_that_is_dead_after_a_move_is_replaced_within_two_seconds():
    async with following() as (lab, _):
        lab.channels[0].lost = True
        await lab.clock.advance(5)
        assert len(lab.coordinators) == 1
        lab.node.on_event(NetworkChanged())
        await lab.clock.advance(2)
        assert len(lab.coordinators) == 2


async def test_a_move_ends_the_wait_for_the_next_dial():
    async with following() as (lab, _):
        lab.refusals = [Unreachable("no network")] * 12
        lab.coordinator.cancel()
        await lab.clock.advance(20)
        left = len(lab.refusals)
        lab.node.on_event(NetworkChanged())
        await lab.turn()
        assert len(lab.refusals) == left - 1


async def test_a_relay_that_is_back_ends_the_wait_for_the_next_dial():
    async with following() as (lab, _):
        lab.refusals = [Unreachable("the server restarts")] * 12
        lab.node.on_event(RelayProblem(region=999, text="connection refused"))
        lab.coordinator.cancel()
        await lab.clock.advance(20)
        left = len(lab.refusals)
        lab.node.on_event(RelayProblem(region=998, text=""))  # one that was never away
        await lab.turn()
        assert len(lab.refusals) == left
        lab.node.on_event(RelayProblem(region=999, text=""))
        await lab.turn()
        assert len(lab.refusals) == left - 1


async def test_a_dial_that_hangs_is_begun_again_after_a_move():
    lab = Lab(Client(AGENT_ID))
    dials = []

    async def dial(_token):
        dials.append(None)
        await asyncio.Event().wait()

    async with asyncio.timeout(5):
        task = asyncio.ensure_future(lab.peering.follow(dial))
        await lab.clock.advance(20)
        assert len(dials) == 1
        lab.node.on_event(NetworkChanged())
        await lab.turn()
        assert len(dials) == 2
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    lab.close()


async def test_an_agents_number_comes_from_its_id():
    async with following(Host(AGENT_ID)) as (lab, _):
        lab.node.settle()
        await lab.turn()
        assert lab.coordinator.requests[0].update_self.node.id == abs(
            int.from_bytes(AGENT_ID.bytes[8:], "big", signed=True)
        )


async def test_the_embedded_relay_is_looked_for_where_the_server_is():
    async with following() as (lab, _):
        await lab.coordinator.send_map(map_message())
        [text] = lab.node.maps
        assert '"HostName": "127.0.0.1"' in text
        assert '"DERPPort": 3000' in text
        assert '"ForceHTTP": true' in text
        await lab.coordinator.send_map(map_message())
        assert len(lab.node.maps) == 1, "the same map is not set again"


async def test_blocking_direct_paths_takes_the_endpoints_back():
    async with following() as (lab, _):
        lab.node.settle()
        lab.peering.set_block_direct(block=True)
        await lab.turn()
        nodes = [request.update_self.node for request in lab.coordinator.requests[1:]]
        assert [list(node.endpoints) for node in nodes] == [["10.0.0.2:4000"], []]
        assert lab.node.block_direct


async def test_after_a_lost_connection_it_dials_again_and_tells_everything_anew():
    async with following() as (lab, _):
        lab.node.settle()
        await lab.coordinator.say(node_update())
        await lab.coordinator.say(update(Update.READY_FOR_HANDSHAKE))
        lab.coordinator.cancel()
        await lab.turn()
        assert len(lab.node.peers) == 1, "the peer stays configured"
        await lab.clock.advance(0.1)
        assert len(lab.coordinators) == 2
        tunnel, itself = lab.coordinator.requests
        assert tunnel.HasField("add_tunnel")
        assert itself.update_self.node.preferred_derp == 999


async def test_a_peer_of_a_dead_connection_goes_fifteen_minutes_after_its_last_handshake():
    async with following(Host(AGENT_ID)) as (lab, _):
        await lab.coordinator.say(node_update(CLIENT_ID))
        lab.node.handshakes[AGENT_KEY] = 60.0
        lab.refusals = [Unreachable("down")] * 10_000
        lab.coordinator.cancel()
        await lab.clock.advance(14 * 60 - 1)
        assert len(lab.node.peers[-1]) == 1
        lab.node.handshakes[AGENT_KEY] = 1.0
        await lab.clock.advance(2)
        assert len(lab.node.peers[-1]) == 1, "a newer handshake gives it more time"
        lab.node.handshakes[AGENT_KEY] = 900.0
        await lab.clock.advance(15 * 60)
        assert lab.node.peers[-1] == ()


async def test_delays_between_dials_grow_to_ten_seconds_and_begin_anew_after_a_success():
    async with following() as (lab, _):
        await lab.coordinator.send_map(map_message())
        lab.refusals = [Unreachable("down")] * 40
        lab.coordinator.cancel()
        waits = []
        for _ in range(25):
            before, dials = lab.clock.monotonic(), len(lab.tokens)
            while len(lab.tokens) == dials:
                await lab.clock.advance(0.02)
            waits.append(lab.clock.monotonic() - before)
        assert 0.03 < waits[0] < 0.08
        assert 7.9 < waits[-1] < 12.1
        assert max(waits) < 12.1
        lab.refusals = []
        await lab.clock.advance(13)
        await lab.coordinator.send_map(map_message())
        dials = len(lab.tokens)
        lab.coordinator.cancel()
        await lab.clock.advance(0.1)
        assert len(lab.tokens) > dials


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 500])
async def test_a_first_refusal_that_will_not_change_is_final(status):
    lab = Lab(Client(AGENT_ID))
    lab.refusals = [UpgradeRefused(status, b"{}")]
    with pytest.raises(UpgradeRefused):
        await lab.peering.follow(lab.dial)
    lab.close()


@pytest.mark.parametrize("error", [UpgradeRefused(502, b""), Unreachable("down")])
async def test_other_first_failures_are_retried(error):
    lab = Lab(Client(AGENT_ID))
    lab.refusals = [error]
    task = asyncio.ensure_future(lab.peering.follow(lab.dial))
    await lab.clock.advance(0.1)
    assert len(lab.coordinators) == 1
    task.cancel()
    lab.close()


async def test_after_a_success_even_final_refusals_are_retried():
    async with following() as (lab, task):
        lab.refusals = [UpgradeRefused(404, b"{}")] * 3
        lab.coordinator.cancel()
        await lab.clock.advance(1)
        assert not task.done()
        assert len(lab.coordinators) == 2


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_right_that_was_taken_away_ends_the_tunnel_and_says_why(status):
    async with following() as (lab, task):
        await lab.coordinator.say(node_update())
        await lab.coordinator.say(update(Update.READY_FOR_HANDSHAKE))
        assert len(lab.node.peers[-1]) == 1
        lab.refusals = [UpgradeRefused(status, b'{"message":"You are suspended."}')]
        lab.coordinator.cancel()
        await lab.clock.advance(1)
        assert lab.node.peers[-1] == ()
        with pytest.raises(UpgradeRefused):
            await task


async def test_the_resume_token_is_presented_until_the_server_refuses_it():
    refused = UpgradeRefused(401, b'{"message":"Invalid resume token","validations":[{"field":"resume_token"}]}')
    async with following() as (lab, _):
        await lab.coordinator.give_token("T1", lab.clock)
        lab.coordinator.cancel()
        await lab.clock.advance(0.1)
        assert lab.tokens == [None, "T1"]
        lab.refusals = [refused]
        lab.coordinator.cancel()
        await lab.clock.advance(0.2)
        assert lab.tokens[-2:] == ["T1", None]


async def test_a_token_is_asked_for_again_when_due_and_not_used_after_its_end():
    async with following() as (lab, _):
        await lab.coordinator.give_token("T1", lab.clock, refresh=100, expires=50)
        await lab.clock.advance(99)
        assert lab.coordinator.token_requests == 1
        await lab.clock.advance(2)
        assert lab.coordinator.token_requests == 2
        lab.coordinator.cancel()
        await lab.clock.advance(0.1)
        assert lab.tokens[-1] is None


async def test_a_server_without_resume_tokens_keeps_the_session():
    async with following() as (lab, task):
        lab.coordinator.refuse_tokens()
        await lab.clock.advance(60)
        assert len(lab.coordinators) == 1
        assert not task.done()


async def test_leaving_says_so_and_waits_for_the_server_to_hang_up():
    async with following() as (lab, _):
        leaving = asyncio.ensure_future(lab.peering.leave())
        await lab.turn()
        assert lab.coordinator.requests[-1].HasField("disconnect")
        assert leaving.done()


async def test_leaving_waits_a_second_at_most():
    async with following() as (lab, _):
        lab.coordinator.hang_up = False
        leaving = asyncio.ensure_future(lab.peering.leave())
        await lab.clock.advance(0.9)
        assert not leaving.done()
        await lab.clock.advance(0.2)
        assert leaving.done()


async def test_leaving_without_a_session_returns_at_once():
    lab = Lab(Client(AGENT_ID))
    await lab.peering.leave()
    lab.close()
    assert lab.node.closed


async def test_what_the_coordinator_complains_of_is_an_event():
    async with following() as (lab, _):
        await lab.coordinator.say(pb.CoordinateResponse(error="authorization: no"))
        assert [event.text for event in lab.events] == ["authorization: no"]


async def test_nonsense_from_the_coordinator_changes_nothing():
    async with following() as (lab, task):
        bad = pb.CoordinateResponse(peer_updates=[Update(id=b"short", kind=Update.NODE)])
        await lab.coordinator.say(bad)
        await lab.coordinator.say(node_update())
        await lab.coordinator.say(update(Update.READY_FOR_HANDSHAKE))
        assert len(lab.node.peers) == 1
        assert not task.done()


async def test_a_session_of_a_shared_connection_leaves_the_connection_open():
    lab = Lab(Host(AGENT_ID))
    async with RpcClient(await lab.dial(None), clock=lab.clock) as rpc:
        session = asyncio.ensure_future(lab.peering.introduce(rpc))
        await lab.turn()
        await lab.coordinator.end_call()
        assert session.done()
        answer = await rpc.unary("/coder.tailnet.v2.Tailnet/PostTelemetry", pb.TelemetryRequest(), pb.TelemetryResponse)
        assert answer == pb.TelemetryResponse()
    lab.close()
