import asyncio
import json
import random
import socket
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from fakes.coordinator import Coordinator, memory_channels
from fakes.engine import REPORT, FakeEngine
from fakes.network import PEER_KEY, paths
from fakes.server import AGENT_ID, map_message, node_message
from structlog.testing import capture_logs

from coder.access import tokens
from coder.agent.agent import Agent
from coder.agent.netcheck import interface_report
from coder.agent.settings import AgentSettings
from coder.clock import FakeClock
from coder.dataplane.engine import Incoming, RelayProblem
from coder.errors import RpcError, TimedOut, Unreachable, UpgradeRefused
from coder.ids import Secret
from coder.rpc.handlers import Unary
from coder.tailnet.sides import Interface
from coder.wire.proto import agent_pb2 as pb
from coder.wire.proto import tailnet_pb2 as tailnet_pb

TOKEN = "33333333-3333-4333-8333-333333333333"
State = pb.Lifecycle.State
SERVICE = "/coder.agent.v2.Agent/"


class Server:
    """What an agent dials: each connection gets a coordinator and the agent's calls."""

    def __init__(self, clock):
        self.clock = clock
        self.calls = []
        self.refusals = []
        self.coordinators = []
        self.dials = 0
        self.interval = timedelta(seconds=30)
        self.manifest = pb.Manifest(agent_id=AGENT_ID.bytes, workspace_name="dev", derp_map=map_message())
        self.fail = set()

    async def dial(self, token):
        self.dials += 1
        if self.refusals:
            raise self.refusals.pop(0)
        ours, theirs = memory_channels()
        calls = {
            "GetManifest": Unary(pb.GetManifestRequest, self._answer("GetManifest", lambda _: self.manifest)),
            "UpdateStartup": Unary(pb.UpdateStartupRequest, self._answer("UpdateStartup", lambda r: r.startup)),
            "UpdateLifecycle": Unary(pb.UpdateLifecycleRequest, self._answer("UpdateLifecycle", lambda r: r.lifecycle)),
            "ScriptCompleted": Unary(
                pb.WorkspaceAgentScriptCompletedRequest,
                self._answer("ScriptCompleted", lambda _: pb.WorkspaceAgentScriptCompletedResponse()),
            ),
            "BatchCreateLogs": Unary(
                pb.BatchCreateLogsRequest, self._answer("BatchCreateLogs", lambda _: pb.BatchCreateLogsResponse())
            ),
            "UpdateStats": Unary(pb.UpdateStatsRequest, self._answer("UpdateStats", self._stats)),
        }
        handlers = {SERVICE + name: handler for name, handler in calls.items()}
        self.coordinators.append(Coordinator(theirs, self.clock, handlers))
        return ours

    def _answer(self, name, make):
        async def call(ctx, request):
            self.calls.append((name, request))
            if name in self.fail:
                raise RpcError("no")
            return make(request)

        return call

    def _stats(self, request):
        response = pb.UpdateStatsResponse()
        response.report_interval.FromTimedelta(self.interval)
        return response

    @property
    def names(self):
        return [name for name, _ in self.calls]

    @property
    def lines(self):
        return [line.output for name, request in self.calls if name == "BatchCreateLogs" for line in request.logs]

    @property
    def states(self):
        return [State.Name(request.lifecycle.state) for name, request in self.calls if name == "UpdateLifecycle"]


class Lab:
    def __init__(self):
        self.clock = FakeClock()
        self.engine = FakeEngine()
        self.server = Server(self.clock)
        self.settings = AgentSettings(url="http://127.0.0.1:3000", token=Secret(TOKEN), version="v0.1.0", listen_port=7)
        self.make()

    def make(self):
        self.agent = Agent(self.settings, self.engine, self.server.dial, clock=self.clock, rng=random.Random(1))

    def block(self):
        """Begin anew as an agent that wants no direct connections."""
        self.settings = replace(self.settings, block_direct=True)
        self.make()

    async def until(self, condition):
        """Let time pass until it is true; what it waits for are real processes."""
        async with asyncio.timeout(20):
            while not condition():
                await self.clock.advance(0.3)

    @property
    def node(self):
        return self.engine.nodes[-1]


@asynccontextmanager
async def running(change=lambda lab: None):
    lab = Lab()
    change(lab)
    task = asyncio.ensure_future(lab.agent.run())
    try:
        await lab.clock.advance(0)
        yield lab, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for coordinator in lab.server.coordinators:
            coordinator.cancel()


async def test_starts_in_the_protocols_order():
    async with running() as (lab, _):
        assert lab.server.names[:2] == ["GetManifest", "UpdateStartup"]
        assert sorted(lab.server.names[2:]) == ["UpdateLifecycle", "UpdateLifecycle", "UpdateStats"]
        assert lab.server.states == ["STARTING", "READY"]
        startup = lab.server.calls[1][1].startup
        assert startup.version == "v0.1.0"
        assert startup.expanded_directory.startswith("/")
        [stats] = [request for name, request in lab.server.calls if name == "UpdateStats"]
        assert not stats.HasField("stats"), "the first report only asks for the interval"
        lab.node.settle()
        await lab.clock.advance(0)
        node = lab.server.coordinators[0].requests[0].update_self.node
        assert list(node.addresses) == [
            "fd7a:115c:a1e0:4e5c:9f10:123:4567:89ab/128",
            "fd60:627a:a42b:4e5c:9f10:123:4567:89ab/128",
        ]


async def test_the_node_answers_on_the_agents_ports():
    async with running() as (lab, _):
        settings = lab.node.settings
        assert settings.ports == {1: "python", 2: "python", 22: "python", 3: "speedtest", 4: "python"}
        assert settings.default == "splice"
        assert settings.listen_port == 7
        assert '"HostName": "127.0.0.1"' in lab.node.maps[0]


async def test_traffic_is_reported_as_differences_at_the_servers_pace():
    async with running() as (lab, _):
        before = len(lab.server.calls)
        await lab.clock.advance(29)
        assert len(lab.server.calls) == before
        await lab.clock.advance(2)
        [(name, request)] = lab.server.calls[before:]
        assert name == "UpdateStats"
        assert (request.stats.rx_bytes, request.stats.tx_bytes) == (0, 0)
        assert request.stats.connection_median_latency_ms == -0.001


async def test_an_eager_server_does_not_keep_an_idle_agent_awake():
    async with running(lambda lab: setattr(lab.server, "interval", timedelta(milliseconds=1))) as (lab, _):
        before = len(lab.server.calls)
        await lab.clock.advance(9)
        assert len(lab.server.calls) == before


async def test_a_lost_connection_is_dialled_again_and_the_node_stays():
    async with running() as (lab, _):
        lab.server.coordinators[0].cancel()
        await lab.clock.advance(0.2)
        assert lab.server.dials == 2
        assert len(lab.engine.nodes) == 1
        assert lab.server.states == ["STARTING", "READY"], "it has started already"
        assert lab.server.names.count("UpdateStartup") == 2


async def test_another_manifest_changes_the_rules():
    async with running() as (lab, _):
        lab.server.manifest.disable_direct_connections = True
        lab.server.manifest.derp_force_websockets = True
        lab.server.coordinators[0].cancel()
        await lab.clock.advance(0.2)
        assert lab.node.block_direct
        assert lab.node.force_websockets


async def test_another_identity_gets_another_node():
    async with running() as (lab, _):
        lab.server.manifest.agent_id = UUID("bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb").bytes
        lab.server.coordinators[0].cancel()
        await lab.clock.advance(0.2)
        old, new = lab.engine.nodes
        assert old.closed
        assert not new.closed


@pytest.mark.parametrize(("refusal", "left"), [(UpgradeRefused(401, b""), 0), (UpgradeRefused(503, b""), 1)])
async def test_only_a_refused_token_ends_the_tunnels_that_were_there(refusal, left):
    node = tailnet_pb.CoordinateResponse.PeerUpdate(id=b"c" * 16, node=node_message(), kind="NODE")
    async with running() as (lab, _):
        await lab.server.coordinators[0].say(tailnet_pb.CoordinateResponse(peer_updates=[node]))
        assert len(lab.node.peers[-1]) == 1
        lab.server.refusals = [refusal]
        lab.server.coordinators[0].cancel()
        await lab.clock.advance(0.2)
        assert len(lab.node.peers[-1]) == left


async def test_a_refused_token_is_tried_for_ever_and_told_once_a_cause():
    def refuse(lab):
        refused = UpgradeRefused(401, b'{"message":"Not authorised.","detail":"Deleted."}')
        lab.server.refusals = [refused] * 5 + [Unreachable("down")] * 2 + [refused]

    with capture_logs() as logs:
        async with running(refuse) as (lab, _):
            await lab.clock.advance(60)
            assert lab.server.dials == 9
            assert lab.server.states == ["STARTING", "READY"]
    told = [entry for entry in logs if entry["log_level"] == "warning"]
    assert [entry["reason"] for entry in told] == [
        "the server answered 401: Not authorised: Deleted",
        "down",
        "the server answered 401: Not authorised: Deleted",
    ]
    assert "CODER_AGENT_TOKEN" in told[0]["remedy"]
    assert TOKEN not in str(logs)


async def test_a_refused_token_is_tried_more_seldom_than_a_server_that_is_away():
    refused = UpgradeRefused(401, b'{"message":"Not authorised."}')
    async with running(lambda lab: setattr(lab.server, "refusals", [refused] * 10_000)) as (lab, task):
        await lab.clock.advance(600)
        early = lab.server.dials
        await lab.clock.advance(600)
        assert 8 <= lab.server.dials - early <= 13
        assert not task.done()
        lab.server.refusals.clear()
        await lab.clock.advance(75)
        assert lab.server.states == ["STARTING", "READY"], "a server that was restored knows the token again"


async def test_dials_grow_rare_but_never_stop():
    async with running(lambda lab: setattr(lab.server, "refusals", [Unreachable("down")] * 10_000)) as (lab, task):
        await lab.clock.advance(1)
        early = lab.server.dials
        assert early >= 4
        await lab.clock.advance(600)
        late = lab.server.dials - early
        assert 50 <= late <= 90
        assert not task.done()


async def test_a_refused_call_ends_the_session_which_is_begun_anew():
    async with running(lambda lab: lab.server.fail.add("UpdateLifecycle")) as (lab, task):
        await lab.clock.advance(0.5)
        assert lab.server.dials > 1
        lab.server.fail.clear()
        await lab.clock.advance(20)
        assert lab.server.states[-2:] == ["STARTING", "READY"]
        assert not task.done()


async def test_a_manifest_that_makes_no_sense_is_no_crash():
    async with running(lambda lab: setattr(lab.server.manifest, "agent_id", b"short")) as (lab, task):
        await lab.clock.advance(1)
        assert lab.server.dials > 1
        assert not task.done()


async def test_a_map_with_regions_that_cannot_be_is_no_crash():
    async with running(lambda lab: lab.server.manifest.derp_map.regions[2**16].SetInParent()) as (lab, task):
        await lab.clock.advance(1)
        assert lab.server.dials > 1
        assert not task.done()
        lab.server.manifest.derp_map.CopyFrom(map_message())
        await lab.clock.advance(20)
        assert len(lab.node.maps) == 1


async def test_stopping_takes_leave_in_order():
    async with running() as (lab, task):
        lab.agent.stop()
        await lab.clock.advance(0)
        assert task.done()
        assert task.exception() is None
        assert lab.server.states[-2:] == ["SHUTTING_DOWN", "OFF"]
        assert lab.server.coordinators[0].requests[-1].HasField("disconnect")
        assert lab.node.closed


async def test_stopping_without_a_server_is_immediate():
    async with running(lambda lab: setattr(lab.server, "refusals", [Unreachable("down")] * 9)) as (lab, task):
        lab.agent.stop()
        await lab.clock.advance(0)
        assert task.done()
        assert task.exception() is None


async def test_stopping_survives_a_server_that_refuses_the_farewell():
    async with running() as (lab, task):
        lab.server.fail.add("UpdateLifecycle")
        lab.agent.stop()
        await lab.clock.advance(2)
        assert task.done()
        assert task.exception() is None


async def ask(lab, path, source="fd7a::1"):
    """Send a request into the tunnel as the peer of that address; return head and body."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    lab.node.on_event(Incoming(port=4, stream=theirs, source=source))
    reader, writer = await asyncio.open_connection(sock=ours)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 200")
    return json.loads(body)


async def test_tells_what_its_network_is_like_in_the_protocols_words():
    async with running() as (lab, _):
        lab.node.settle(home=999)
        lab.node.next_report = replace(REPORT, mapping_varies_by_dest_ip=True)
        found = await ask(lab, "/api/v0/netcheck")
        assert {name: found[name] for name in ("severity", "warnings", "dismissed")} == {
            "severity": "ok", "warnings": None, "dismissed": False,
        }  # fmt: skip
        info = found["net_info"]
        assert (info["MappingVariesByDestIP"], info["WorkingUDP"], info["WorkingIPv6"]) == (True, True, False)
        assert (info["PreferredDERP"], info["DERPLatency"]) == (999, {"999-v4": 0.001})
        report = found["interfaces"]
        assert {"name", "mtu", "addresses"} == set(report["interfaces"][0])
        assert report["severity"] == ("warning" if report["warnings"] else "ok")


async def test_a_network_that_cannot_be_checked_is_unknown(monkeypatch):
    async with running() as (lab, _):

        async def late(_patience):
            raise TimedOut("late")

        monkeypatch.setattr(lab.node, "netcheck", late)
        info = (await ask(lab, "/api/v0/netcheck"))["net_info"]
        assert info["WorkingUDP"] is None


async def test_tells_the_asker_of_its_own_path_only():
    async with running() as (lab, _):
        client = UUID("cccccccc-cccc-4ccc-8ccc-cccccccccccc")
        update = tailnet_pb.CoordinateResponse.PeerUpdate(
            id=client.bytes, node=node_message(), kind=tailnet_pb.CoordinateResponse.PeerUpdate.NODE
        )
        await lab.server.coordinators[0].say(tailnet_pb.CoordinateResponse(peer_updates=[update]))
        await lab.clock.advance(0)
        lab.node.paths = {PEER_KEY: paths(heard=True)}
        address = node_message().addresses[0].partition("/")[0]
        mine, other = await ask(lab, "/api/v0/paths", address), await ask(lab, "/api/v0/paths", "fd7a::77")
        assert mine == {
            "ipv4": None, "port_mapping": None, "double_nat": False, "direct_blocked": False, "udp_port": 41641,
            "heard_directly": True,
        }  # fmt: skip
        assert (other["direct_blocked"], other["heard_directly"]) == (None, None)


async def test_tells_only_its_server_of_all_its_peers():
    """The path is made from what the two alone know."""
    async with running() as (lab, _):
        client = UUID("cccccccc-cccc-4ccc-8ccc-cccccccccccc")
        update = tailnet_pb.CoordinateResponse.PeerUpdate(
            id=client.bytes, node=node_message(), kind=tailnet_pb.CoordinateResponse.PeerUpdate.NODE
        )
        await lab.server.coordinators[0].say(tailnet_pb.CoordinateResponse(peer_updates=[update]))
        await lab.clock.advance(0)
        lab.node.paths = {PEER_KEY: paths(direct=True)}
        address = node_message().addresses[0].partition("/")[0]
        told = await ask(lab, tokens.peers_path(tokens.hash_agent_token(UUID(TOKEN))))
        assert told == {"peers": [{"addresses": [address], "direct": True, "latency_ms": None}]}
        with pytest.raises(AssertionError):
            await ask(lab, tokens.peers_path(b"somebody else's"))


def test_a_narrow_interface_is_a_warning():
    found = [Interface(name="wg0", mtu=1280, addresses=("10.0.0.2/24",)), Interface(name="lo", mtu=65536, addresses=())]
    report = interface_report(found)
    assert report["severity"] == "warning"
    [warning] = report["warnings"]
    assert warning["code"] == "EIF01"
    assert "wg0" in warning["message"]
    assert interface_report(found[1:])["warnings"] == []


async def test_direct_connections_can_be_switched_off_on_the_machine():
    async with running(lambda lab: lab.block()) as (lab, _):
        assert lab.node.settings.block_direct
        assert lab.node.block_direct


@pytest.mark.parametrize("path", ["/", "/api/v0/netcheck", "/api/v0/listening-ports"])
async def test_serves_its_api_on_the_streams_that_arrive(path):
    async with running() as (lab, _):
        lab.node.settle(home=999)
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        lab.node.on_event(Incoming(port=4, stream=theirs, source="fd7a::1"))
        reader, writer = await asyncio.open_connection(sock=ours)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200")
        expected = {"/": b"Hello from the agent!", "/api/v0/netcheck": b'"PreferredDERP": 999'}
        assert expected.get(path, b'"ports": [') in answer
        writer.close()


def test_settings_do_not_print_the_token():
    settings = AgentSettings(url="x", token=Secret(TOKEN), version="v1", headers={"X-Key": "quiet"})
    assert TOKEN not in repr(settings)
    assert "quiet" not in repr(settings)


async def test_a_relays_trouble_is_told_once_a_cause_and_its_return_once():
    with capture_logs() as logs:
        async with running() as (lab, _):
            for text in ("refused", "refused", "late", "late", "", ""):
                lab.node.on_event(RelayProblem(region=999, text=text))
    told = [
        (entry["event"], entry.get("reason"))
        for entry in logs
        if entry["event"].startswith("relay.") and entry["log_level"] != "debug"
    ]
    assert told == [("relay.problem", "refused"), ("relay.problem", "late"), ("relay.back", None)]


async def test_a_second_agent_with_the_same_token_tries_seldom_and_says_why():
    refused = UpgradeRefused(409, b'{"message":"Another agent is connected with this token."}')
    with capture_logs() as logs:
        async with running(lambda lab: setattr(lab.server, "refusals", [refused] * 10_000)) as (lab, _):
            await lab.clock.advance(600)
            early = lab.server.dials
            await lab.clock.advance(600)
            assert 8 <= lab.server.dials - early <= 13
    [told] = [entry for entry in logs if entry["log_level"] == "warning"]
    assert "Another agent" in told["reason"]
    assert "other agent" in told["remedy"]


def script(text, **when):
    return pb.WorkspaceAgentScript(id=b"s" * 16, log_source_id=b"l" * 16, script=text, **when)


async def test_start_scripts_end_with_the_state_they_come_to(tmp_path):
    def change(lab):
        lab.settings = replace(lab.settings, script_directory=tmp_path)
        lab.make()
        lab.server.manifest.scripts.append(script("echo hi; exit 1", run_on_start=True))
        lab.server.manifest.environment_variables["CODER_TEST"] = "x"

    async with running(change) as (lab, task):
        await lab.until(lambda: len(lab.server.states) == 2)
        assert lab.server.states == ["STARTING", "START_ERROR"]
        lab.agent.stop()
        await lab.until(task.done)
    completed = dict(lab.server.calls)["ScriptCompleted"].timing
    assert (completed.exit_code, completed.status) == (1, pb.Timing.Status.EXIT_FAILURE)
    assert lab.server.lines == ["hi", "The script failed with exit code 1."]


async def test_stop_scripts_run_before_the_leave(tmp_path):
    def change(lab):
        lab.settings = replace(lab.settings, script_directory=tmp_path)
        lab.make()
        lab.server.manifest.scripts.append(script("echo bye", run_on_stop=True))

    async with running(change) as (lab, task):
        lab.agent.stop()
        await lab.until(task.done)
    assert lab.server.states == ["STARTING", "READY", "SHUTTING_DOWN", "OFF"]
    assert lab.server.lines == ["bye"]
    assert lab.server.coordinators[0].requests[-1].HasField("disconnect")


async def test_scripts_do_not_run_again_with_the_next_connection(tmp_path):
    def change(lab):
        lab.settings = replace(lab.settings, script_directory=tmp_path)
        lab.make()
        lab.server.manifest.scripts.append(script(f"echo x >> {tmp_path}/ran", run_on_start=True))

    async with running(change) as (lab, _):
        await lab.until(lambda: len(lab.server.states) == 2)
        lab.server.coordinators[0].cancel()
        await lab.clock.advance(1)
        assert lab.server.dials == 2
    assert (tmp_path / "ran").read_text() == "x\n"
