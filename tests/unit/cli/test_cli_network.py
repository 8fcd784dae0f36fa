import json
import socket
from dataclasses import replace

import pytest
from fakes.engine import result
from fakes.network import AGENT, BY_NAME, DIRECT_PONG, RELAY_PONG, with_node
from fakes.server import AGENT_ID, MAP, SESSION, agent, workspace

from coder.dataplane.engine import RelayProblem
from coder.errors import TimedOut
from coder.peering import WebSocketDial

HARD_AGENT = (
    "the workspace's NAT uses another port for each destination, and this machine's lets in only ports it has sent to"
)
MAP_A_PORT = (
    "Enable port mapping (UPnP, NAT-PMP or PCP) on either router, or forward UDP port 41641 to the workspace's machine."
)


def test_ping_says_over_which_path_each_pong_came(coder, network):
    with_node(network, lambda node: setattr(node, "pongs", [RELAY_PONG, DIRECT_PONG]))
    run = coder("ping", "dev", "-n", "3", "--wait", "0s")
    assert run.code == 0, run.err
    lines = run.out.splitlines()
    assert lines[0] == "pong from dev proxied via DERP(Coder Embedded Relay) in 29ms"
    assert lines[1].startswith("p2p connection established in ")
    assert lines[2] == lines[3] == "pong from dev p2p via 10.0.0.7:41641 in 0.26ms"
    assert set(lines[4]) == {"-"}
    assert lines[5].split() == ["WORKSPACE", "TOTAL", "SUCCESSFUL", "MIN", "AVG", "MAX", "VARIANCE"]
    assert lines[6].split()[:6] == ["dev", "3", "3", "0.26ms", "9.8ms", "29ms"]


def test_ping_says_first_how_far_the_introduction_came(coder, network):
    run = coder("ping", "dev", "-n", "1")
    assert run.err.splitlines() == [
        "✔ preferred DERP region: 999 (Coder Embedded Relay)",
        "✔ sent local data to Coder networking coordinator",
        "✔ received remote agent data from Coder networking coordinator",
        "    preferred DERP region: 999 (Coder Embedded Relay)",
        "    endpoints: 10.0.0.7:41641",
        "✔ Wireguard handshake 0s ago",
        "",
        "    this machine  UDP works, easy NAT, IPv4",
        "    workspace     UDP works, hard NAT (another port for each destination), IPv4",
        "",
        "❗ You are connected via a DERP relay (Coder Embedded Relay), not directly (p2p)",
        f"    because {HARD_AGENT}.",
        f"    {MAP_A_PORT}",
    ]


def test_ping_introduces_itself_and_takes_leave(coder, network):
    coder("ping", "dev", "-n", "1")
    [call] = network.asked(f"/api/v2/workspaceagents/{AGENT_ID}/coordinate")
    assert call.headers["Coder-Session-Token"] == SESSION
    assert call.query == {"version": ["2.0"]}
    kinds = [field.name for request in network.requests for field, _ in request.ListFields()]
    assert kinds == ["add_tunnel", "update_self", "disconnect"]
    [node] = network.engines[0].nodes
    assert node.closed
    assert '"HostName": "127.0.0.1"' in node.maps[0]
    assert node.settings.addresses[0].startswith("fd7a:115c:a1e0:")


def test_a_server_that_tells_the_relay_map_for_single_agents_only(coder, network):
    network.answers["GET /api/v2/workspaceagents/connection"] = (404, {"message": "Route not found."})
    assert coder("ping", "dev", "-n", "1").code == 0
    assert len(network.asked(f"/api/v2/workspaceagents/{AGENT_ID}/connection")) == 1


def test_a_connection_opened_ahead_that_has_died_is_replaced(coder, network, monkeypatch):
    ours, theirs = socket.socketpair()
    theirs.close()
    taken = []
    monkeypatch.setattr("coder.cli.ahead._Opening.take", lambda _self: ours if not taken else None)
    monkeypatch.setattr("coder.cli.ahead._Opening._open", lambda _self, _url: None)
    over = WebSocketDial.over

    async def note(self, sock):
        taken.append(sock)
        return await over(self, sock)

    monkeypatch.setattr(WebSocketDial, "over", note)
    assert coder("ping", "dev", "-n", "1").code == 0
    assert taken == [ours]
    assert ours.fileno() == -1


def test_ping_for_scripts(coder, network):
    with_node(network, lambda node: setattr(node, "pongs", [RELAY_PONG, DIRECT_PONG, None]))
    run = coder("ping", "dev", "-n", "3", "--wait", "0s", "-t", "300ms", "-o", "json")
    found = json.loads(run.out)
    assert found["workspace"] == "dev"
    assert found["pings"] == [
        {"n": 1, "path": {"kind": "relay", "region": "coder", "latency_ms": 29.0}},
        {"n": 2, "path": {"kind": "direct", "endpoint": "10.0.0.7:41641", "latency_ms": 0.264}},
        {"n": 3, "error": "timed out"},
    ]
    assert found["summary"]["total"] == 3
    assert found["summary"]["successful"] == 2


@pytest.mark.parametrize("answer", [None, TimedOut("no answer")])
def test_ping_without_any_pong_fails(coder, network, answer):
    with_node(network, lambda node: setattr(node, "pongs", [answer]))
    run = coder("ping", "dev", "-n", "2", "--wait", "0s", "-t", "300ms")
    assert run.code == 1
    assert run.out.splitlines()[:2] == ['ping to "dev" timed out'] * 2
    assert run.out.splitlines()[-1].split() == ["dev", "2", "0", "-", "-", "-", "-"]


def test_ping_can_say_when(coder, network):
    run = coder("ping", "dev", "-n", "1", "--time", "--utc")
    assert run.out.startswith("[20")
    assert "Z] pong from dev" in run.out


def test_interrupting_a_ping_sums_up_and_is_130(coder, network):
    with_node(network, lambda node: setattr(node, "pongs", [RELAY_PONG, KeyboardInterrupt()]))
    run = coder("ping", "dev", "-n", "0", "--wait", "0s")
    assert run.code == 130
    assert "WORKSPACE  TOTAL" in run.out
    assert "Traceback" not in run.err


def test_no_answer_through_the_tunnel(coder, network):
    def deaf(node):
        node.reachable.clear()
        node.on_event(RelayProblem(region=999, text="connection refused"))

    with_node(network, deaf)
    run = coder("ping", "dev", "-t", "30ms")
    assert run.code == 1
    assert run.err.splitlines()[-1] == (
        "error: the agent of workspace 'dev' did not answer within 0.03s (relay of region 999: connection refused)."
        " See 'coder show dev', and give it longer with --timeout."
    )
    assert "✔ preferred DERP region" in run.err


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({"status": "connecting", "first_connected_at": None}, "has never connected"),
        (
            {"status": "disconnected", "disconnected_at": "2020-01-01T00:00:00Z"},
            "is not connected; it was last there 2",
        ),
    ],
)
@pytest.mark.parametrize("command", ["ping", "speedtest"])
def test_an_agent_that_is_not_connected(coder, network, state, text, command):
    network.answers[BY_NAME] = (200, workspace(agent(**state)))
    network.answers[AGENT] = (200, agent(**state))
    run = coder(command, "dev", "--timeout", "20ms")
    assert run.code == 1
    last = run.err.splitlines()[-1]
    assert f"error: the agent of workspace 'dev' {text}" in last
    assert "CODER_AGENT_URL=<url> CODER_AGENT_TOKEN=<token> coder agent" in last


def test_an_agent_that_connects_meanwhile(coder, network, monkeypatch):
    monkeypatch.setattr("coder.cli.connect.AGENT_POLL", 0.001)
    network.answers[BY_NAME] = (200, workspace(agent(status="connecting")))
    states = iter(["connecting", "connected"])
    network.answers[AGENT] = lambda call: (200, agent(status=next(states)))
    run = coder("ping", "dev", "-n", "1")
    assert run.code == 0, run.err
    assert run.err.startswith("The agent of dev is not connected; waiting up to 5s ...\n")


def test_several_agents(coder, network):
    both = workspace(agent(name="a"), agent(name="b"))
    network.answers[BY_NAME] = (200, both)
    run = coder("ping", "dev")
    assert run.code == 1
    assert run.err == "error: the workspace 'dev' has several agents: a, b. Name one, such as dev.a.\n"
    assert coder("ping", "dev.b", "-n", "1").code == 0


def test_a_coordinator_that_refuses_for_good(coder, network):
    network.answers[f"{AGENT}/coordinate"] = (404, {"message": "Resource not found."})
    run = coder("ping", "dev", "-n", "1")
    assert run.code == 1
    assert "the agent of 'dev' cannot be reached: the server answered 404: Resource not found." in run.err


def test_a_server_without_a_relay_map(coder, network):
    network.answers["GET /api/v2/workspaceagents/connection"] = (200, {"derp_map": None})
    run = coder("ping", "dev", "-n", "1")
    assert run.code == 1
    assert "does not answer like a Coder server" in run.err


@pytest.mark.parametrize("by", ["flag", "server"])
def test_direct_connections_can_be_disabled_by_either_side(coder, network, by):
    network.answers["GET /api/v2/workspaceagents/connection"] = (
        200, {"derp_map": MAP, "disable_direct_connections": by == "server", "derp_force_websockets": True},
    )  # fmt: skip
    flags = ["--disable-direct-connections"] if by == "flag" else []
    run = coder(*flags, "ping", "dev", "-n", "1")
    [node] = network.engines[0].nodes
    assert node.settings.block_direct
    assert node.settings.force_websockets
    assert "Direct connections are disabled" in run.err
    [record] = [request.update_self.node for request in network.requests if request.HasField("update_self")]
    assert list(record.endpoints) == []


def test_speedtest_prints_path_rows_and_total(coder, network):
    run = coder("speedtest", "dev", "-t", "2s")
    assert run.code == 0, run.err
    assert run.err.splitlines()[-2:] == ["29ms via coder", "Starting a 2s download test..."]
    assert run.out.splitlines() == [
        "INTERVAL       TRANSFER          BANDWIDTH",
        "0.00-1.00 sec  1000.0000 MBits   1000.0000 Mbits/sec",
        "1.00-2.00 sec  2000.0000 MBits   2000.0000 Mbits/sec",
        "-" * 52,
        "0.00-2.00 sec  3000.0000 MBits   1500.0000 Mbits/sec",
    ]
    assert network.engines[0].nodes[0].tests == [(2.0, True)]


def test_speedtest_in_two_columns(coder, network):
    lines = coder("speedtest", "dev", "-c", "interval,throughput", "--direction", "up").out.splitlines()
    assert lines[0] == "INTERVAL       THROUGHPUT"
    assert lines[1] == "0.00-1.00 sec  1000.0000 Mbits/sec"
    assert network.engines[0].nodes[0].tests == [(5.0, False)]


def test_speedtest_for_scripts(coder, network):
    with_node(network, lambda node: setattr(node, "pongs", [DIRECT_PONG]))
    run = coder("speedtest", "dev", "-o", "json")
    found = json.loads(run.out)
    assert found["overall"] == {"start_time_seconds": 0.0, "end_time_seconds": 2.0, "throughput_mbits": 1500.0}
    assert len(found["intervals"]) == 2
    assert found["path"] == {"kind": "direct", "endpoint": "10.0.0.7:41641", "latency_ms": 0.264}
    assert "0ms via 10.0.0.7:41641" in run.err


def test_speedtest_waits_for_a_direct_path(coder, network, monkeypatch):
    monkeypatch.setattr("coder.cli.commands.speedtest.DIRECT_POLL", 0.0)
    with_node(network, lambda node: setattr(node, "pongs", [RELAY_PONG, DIRECT_PONG]))
    run = coder("speedtest", "dev", "--direct")
    assert "Waiting for a direct connection... (29ms via coder)" in run.err
    assert "0ms via 10.0.0.7:41641" in run.err


def test_speedtest_gives_up_waiting_for_a_direct_path(coder, network):
    run = coder("speedtest", "dev", "--direct", "--timeout", "50ms")
    assert run.code == 1
    assert run.err.splitlines()[-1].startswith("error: no direct connection within 0.05s. Leave out --direct")


def test_direct_and_relay_only_exclude_each_other(coder, network):
    run = coder("--disable-direct-connections", "speedtest", "dev", "--direct")
    assert run.code == 2
    assert "--direct (-d) is incompatible with --disable-direct-connections" in run.err
    assert network.calls == []


def test_speedtest_compares_the_relay_with_the_direct_path(coder, network, monkeypatch):
    monkeypatch.setattr("coder.cli.commands.speedtest.DIRECT_POLL", 0.0)
    with_node(network, lambda node: setattr(node, "pongs", [RELAY_PONG, RELAY_PONG, DIRECT_PONG]))
    run = coder("speedtest", "dev", "--compare", "-t", "2s")
    assert run.code == 0, run.err
    assert [line.split() for line in run.out.splitlines()] == [
        ["PATH", "VIA", "ROUND", "TRIP", "BANDWIDTH"],
        ["relay", "coder", "29ms", "1500.0000", "Mbits/sec"],
        ["direct", "10.0.0.7:41641", "0.26ms", "1500.0000", "Mbits/sec"],
    ]
    [node] = network.engines[0].nodes
    assert node.settings.block_direct, "it begins without direct paths ..."
    assert not node.block_direct, "... and allows them for the second half"
    assert node.tests == [(2.0, True)] * 2
    records = [request.update_self.node for request in network.requests if request.HasField("update_self")]
    assert list(records[0].endpoints) == []
    assert "10.0.0.2:4000" in records[-1].endpoints


@pytest.mark.parametrize("args", [(), ("--compare",)])
def test_retransmits_are_told_when_they_are_known(coder, network, args):
    def count(node):
        node.pongs = [RELAY_PONG, DIRECT_PONG]
        node.result = replace(node.result, retransmits=17)

    with_node(network, count)
    assert coder("speedtest", "dev", *args).out.splitlines()[-1].split()[-1] == "17"
    found = json.loads(coder("speedtest", "dev", *args, "-o", "json").out)
    assert (found["direct"] if args else found)["retransmits"] == 17


def test_a_comparison_for_scripts(coder, network):
    with_node(network, lambda node: setattr(node, "pongs", [RELAY_PONG, DIRECT_PONG]))
    found = json.loads(coder("speedtest", "dev", "--compare", "-o", "json").out)
    assert list(found) == ["relay", "direct"]
    assert found["direct"]["path"] == {"kind": "direct", "endpoint": "10.0.0.7:41641", "latency_ms": 0.264}
    assert found["relay"]["overall"]["throughput_mbits"] == 1500.0


def test_a_comparison_without_a_direct_path_tells_the_half_it_has(coder, network):
    run = coder("speedtest", "dev", "--compare", "--timeout", "300ms")
    assert run.code == 1
    assert run.err.splitlines()[-2:] == [
        "Through the relay: 1500.0000 Mbits/sec",
        "error: no direct connection within 0.3s. 'coder doctor dev' says what would make it direct.",
    ]


def test_a_comparison_where_the_server_forbids_one_half(coder, network):
    info = {"derp_map": MAP, "disable_direct_connections": True}
    network.answers["GET /api/v2/workspaceagents/connection"] = (200, info)
    run = coder("speedtest", "dev", "--compare")
    assert run.code == 1
    assert "error: the server forbids direct connections" in run.err


@pytest.mark.parametrize(("least", "code"), [("1500", 0), ("1500.1", 3), ("0", 0)])
@pytest.mark.parametrize("form", ["table", "json"])
def test_a_speed_too_low_for_a_script_is_3(coder, network, least, code, form):
    run = coder("speedtest", "dev", "--min-mbps", least, "-o", form)
    assert run.code == code
    assert ("less than the 1500.1 asked for" in run.err) is (code == 3)
    assert "1500" in run.out


@pytest.mark.parametrize("more", [("--direct",), ("-c", "interval")])
def test_a_comparison_goes_alone(coder, network, more):
    assert coder("speedtest", "dev", "--compare", *more).code == 2
    assert coder("--disable-direct-connections", "speedtest", "dev", "--compare").code == 2
    assert network.calls == []


def test_speedtest_over_which_nothing_came(coder, network):
    with_node(network, lambda node: setattr(node, "result", result((0.0, 0.0, 0))))
    run = coder("speedtest", "dev")
    assert run.code == 1
    assert "no data arrived" in run.err


@pytest.mark.parametrize("args", [("-t", "soon"), ("-t", "0s"), ("--direction", "sideways"), ("-c", "colour")])
def test_speedtest_refuses_odd_options(coder, network, args):
    run = coder("speedtest", "dev", *args)
    assert run.code == 2
    assert network.calls == []


def test_no_secret_is_printed(coder, network):
    run = coder("-v", "--header", "X-Key=very-secret", "ping", "dev", "-n", "1")
    assert SESSION not in run.out + run.err
    assert "very-secret" not in run.out + run.err
