import json
from dataclasses import replace

import pytest
from fakes.engine import REPORT
from fakes.network import AGENT, BY_NAME, DIRECT_PONG, PATHS, PEER_KEY, RELAY_PONG, netcheck, paths, with_node
from fakes.server import AGENT_ID, MAP, SESSION, agent, workspace

from coder.dataplane.engine import RelayProblem
from coder.errors import TimedOut
from coder.peering.derp_report import go_duration
from coder.tailnet.portmap.report import PortMapReport, Protocol

STAGES = ["server", "sign-in", "version", "agent", "relay", "coordination", "disco", "wireguard", "direct"]
ALONE = ["server", "sign-in", "version", "relay", "udp"]
ME = "GET /api/v2/users/me"
FAR = {"RegionID": 7, "RegionCode": "far", "RegionName": "Far"}
FAR_NODE = {"Name": "7a", "RegionID": 7, "HostName": "far.test", "STUNPort": -1}
TWO = {"Regions": MAP["Regions"] | {"7": FAR | {"Nodes": [FAR_NODE]}}}
NO_STUN = json.loads(json.dumps(MAP).replace("3478", "-1"))


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    """Look for a direct path as often as it goes, and not for long."""
    monkeypatch.setattr("coder.cli.checkup.PING_EVERY", 0.0)
    monkeypatch.setattr("coder.cli.checkup.SETTLED", 0.0)
    monkeypatch.setattr("coder.cli.checkup.PING_PATIENCE", 0.05)
    monkeypatch.setattr("coder.tailnet.diagnosis.SETTLED", 0.0)
    monkeypatch.setattr("coder.peering.gateways.default_network", lambda: None)


def examine(coder, *args):
    run = coder("doctor", *args, "-o", "json")
    return run.code, json.loads(run.out)


def stage(found, name):
    [one] = [stage for stage in found["stages"] if stage["name"] == name]
    return one


def failed_at(found):
    [name] = [stage["name"] for stage in found["stages"] if stage["status"] == "fail"]
    names = [stage["name"] for stage in found["stages"]]
    after = found["stages"][names.index(name) + 1 :]
    assert all(stage["status"] == "skipped" and stage["duration_ms"] is None for stage in after)
    return name


def direct(node):
    node.pongs = [RELAY_PONG, RELAY_PONG, DIRECT_PONG]
    node.paths = {PEER_KEY: paths(heard=True, direct=True)}


def test_a_direct_connection_is_0(coder, network):
    with_node(network, direct)
    code, found = examine(coder, "dev")
    assert code == 0
    assert (found["schema"], found["workspace"], found["status"]) == (1, "dev", "direct")
    assert [stage["name"] for stage in found["stages"]] == STAGES
    assert {stage["status"] for stage in found["stages"]} == {"ok"}
    assert all(stage["duration_ms"] >= 0 for stage in found["stages"])
    assert found["path"] == {"kind": "direct", "endpoint": "10.0.0.7:41641", "latency_ms": 0.264}
    assert found["diagnosis"]["verdict"]["code"] == "direct"
    assert found["diagnosis"]["direct_after_seconds"] == 0.8
    assert found["diagnosis"]["path_mtu"] == 1338
    assert stage(found, "relay")["text"] == "Coder Embedded Relay works by HTTP upgrade, 29ms there and back"
    assert stage(found, "direct")["text"] == "10.0.0.7:41641 in 0.26ms, found after 800ms"


def test_a_relayed_one_is_3_and_says_what_to_change(coder, network):
    code, found = examine(coder, "dev")
    assert code == 3
    assert found["status"] == "relayed"
    assert found["path"] == {"kind": "relay", "region": "coder", "latency_ms": 29.0}
    assert found["diagnosis"]["client"]["nat"] == "easy"
    assert found["diagnosis"]["agent"]["nat"] == "hard"
    assert found["diagnosis"]["verdict"]["code"] == "hard_nat_agent"
    assert stage(found, "direct")["status"] == "warn"


def test_for_people(coder, network):
    run = coder("doctor", "dev")
    lines = run.out.splitlines()
    assert lines[3].startswith("✔ agent          main is connected to the server (")
    assert lines[8].startswith("! direct         no, through Coder Embedded Relay (")
    assert lines[9:12] == [
        "",
        "  this machine   UDP works, easy NAT, IPv4",
        "  workspace      UDP works, hard NAT (another port for each destination), IPv4",
    ]
    assert lines[13].startswith("Relayed: the workspace's NAT uses another port for each destination")
    assert lines[14].startswith("What to change: Enable port mapping")
    assert run.err == ""
    assert SESSION not in run.out


# Every stage fails


def test_no_server_known(coder):
    code, found = examine(coder, "dev")
    assert (code, failed_at(found)) == (1, "server")
    assert stage(found, "server")["text"] == "you are not signed in"


def test_server_away(coder, network):
    code, found = examine(lambda *args: coder("--url", "http://127.0.0.1:1", *args), "dev")
    assert (code, failed_at(found), found["status"]) == (1, "server", "not_connected")
    assert "nothing listens there" in stage(found, "server")["text"]
    assert "Check the address" in stage(found, "server")["remedy"]


def test_session_expired(coder, network):
    network.answers[ME] = (401, {"message": "expired"})
    code, found = examine(coder, "dev")
    assert (code, failed_at(found)) == (1, "sign-in")
    assert "Sign in again" in stage(found, "sign-in")["remedy"]


def test_a_version_that_does_not_fit_is_a_warning(coder, network):
    network.answers["GET /api/v2/buildinfo"] = (200, {"version": "v2.26.0+py9.9.9"})
    code, found = examine(coder, "dev")
    assert code == 3
    assert stage(found, "version")["status"] == "warn"
    assert "version mismatch" in stage(found, "version")["text"]
    assert stage(found, "version")["remedy"]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ((200, workspace(agent(status="connecting", first_connected_at=None))), "has never connected"),
        ((200, workspace(agent(status="disconnected", disconnected_at="2020-01-01T00:00:00Z"))), "was last there"),
        ((404, {"message": "no"}), "there is no workspace 'dev'"),
        ((200, workspace()), "has no agents"),
        ((200, workspace(agent(name="a"), agent(name="b"))), "has several agents: a, b"),
    ],
)
def test_agent_not_there(coder, network, answer, text):
    network.answers[BY_NAME] = answer
    code, found = examine(coder, "dev")
    assert (code, failed_at(found)) == (1, "agent")
    assert text in stage(found, "agent")["text"]
    assert stage(found, "agent")["remedy"]


def test_no_relay(coder, network):
    def lost(node):
        node.on_event(RelayProblem(region=999, text="certificate has expired"))

    network.prepare = lost
    code, found = examine(coder, "dev", "-t", "50ms")
    assert (code, failed_at(found)) == (1, "relay")
    assert stage(found, "relay")["text"] == ("no relay could be reached (relay of region 999: certificate has expired)")
    assert found["diagnosis"] is None


def test_a_relay_that_passes_nothing_on_is_a_warning_where_direct_paths_do_without(coder, network):
    def only_direct(node):
        if nodes(network):  # those that try the relay
            node.pongs = [TimedOut("no")]
        else:
            node.pongs = [DIRECT_PONG]
            node.paths = {PEER_KEY: paths(heard=True, direct=True)}

    with_node(network, only_direct)
    code, found = examine(coder, "dev", "-t", "200ms")
    assert (code, found["status"]) == (0, "direct")
    assert stage(found, "relay")["status"] == "warn"
    assert stage(found, "relay")["text"] == "Coder Embedded Relay does not work (no answer)"
    assert stage(found, "relay")["remedy"]


def test_a_server_that_does_not_say_how_to_connect(coder, network):
    network.answers["GET /api/v2/workspaceagents/connection"] = (200, {"derp_map": None})
    code, found = examine(coder, "dev")
    assert (code, failed_at(found)) == (1, "relay")


@pytest.mark.parametrize("status", [404, 401])
def test_coordination_refused(coder, network, status):
    network.answers[f"{AGENT}/coordinate"] = (status, {"message": "No."})
    code, found = examine(coder, "dev")
    assert code == 1
    assert failed_at(found) in {"relay", "coordination"}
    assert f"answered {status}" in json.dumps(found["stages"])


def test_coordinator_knows_no_agent(coder, network):
    async def silent(ctx, incoming, send):
        async for request in incoming:
            network.requests.append(request)

    handler = network.handlers["/coder.tailnet.v2.Tailnet/Coordinate"]
    network.handlers["/coder.tailnet.v2.Tailnet/Coordinate"] = replace(handler, call=silent)
    code, found = examine(coder, "dev", "-t", "200ms")
    assert (code, failed_at(found)) == (1, "coordination")
    assert "'coder show dev'" in stage(found, "coordination")["remedy"]
    assert found["diagnosis"]["agent"] is None
    assert found["diagnosis"]["client"]["nat"] == "easy"
    assert found["diagnosis"]["verdict"]["code"] == "not_connected"


def test_no_answer_to_disco(coder, network):
    with_node(network, lambda node: setattr(node, "pongs", [None]))
    code, found = examine(coder, "dev", "-t", "200ms")
    assert (code, failed_at(found)) == (1, "disco")
    assert "did not answer within 0.2s" in stage(found, "disco")["text"]


def test_no_handshake(coder, network):
    with_node(network, lambda node: node.reachable.clear())
    code, found = examine(coder, "dev", "-t", "200ms")
    assert (code, failed_at(found)) == (1, "wireguard")


# Why it is not direct


def agents(node, *, info=None, more=None, mtu=1500):
    node.served = {"/api/v0/netcheck": netcheck(mtu=mtu, **(info or {})), "/api/v0/paths": PATHS | (more or {})}


def reports(node, **changes):
    node.next_report = replace(REPORT, **changes)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda node: (agents(node), reports(node, mapping_varies_by_dest_ip=True)), "hard_nat_client"),
        (
            lambda node: (
                agents(node, info={"MappingVariesByDestIP": True}), reports(node, mapping_varies_by_dest_ip=True)
            ),
            "hard_nat_both",
        ),
        (lambda node: reports(node, udp=False, ipv4=False), "udp_blocked_client"),
        (lambda node: agents(node, info={"WorkingUDP": False}), "udp_blocked_agent"),
        (lambda node: agents(node, more={"direct_blocked": True}), "blocked_by_agent"),
        (lambda node: agents(node, mtu=1280), "path_mtu"),
        (lambda node: (agents(node), node.paths.update({PEER_KEY: paths(mtu=600)})), "path_mtu"),
        (lambda node: (agents(node), node.paths.update({PEER_KEY: paths(heard=True)})), "firewall_agent"),
        (lambda node: agents(node, more={"heard_directly": True}), "firewall_client"),
        (agents, "firewall"),
        (lambda node: agents(node, info={"MappingVariesByDestIP": None}), "nat_unknown"),
        (
            lambda node: agents(
                node,
                info={"MappingVariesByDestIP": True},
                more={"port_mapping": {"protocol": "upnp", "external": "203.0.113.9:5"}},
            ),
            "firewall",
        ),
        (lambda node: setattr(node, "served", {}), "agent_silent"),
        (lambda node: setattr(node, "served", None), "agent_silent"),
        (lambda node: setattr(node, "served", {"/api/v0/netcheck": netcheck()}), "firewall"),
        (lambda node: setattr(node, "served", {"/api/v0/netcheck": [], "/api/v0/paths": "?"}), "nat_unknown"),
    ],
)  # fmt: skip
def test_each_reason_reaches_the_verdict(coder, network, change, code):
    with_node(network, change)
    exit_code, found = examine(coder, "dev")
    assert exit_code == 3
    assert found["diagnosis"]["verdict"]["code"] == code


def test_a_foreign_agent_without_our_extras_still_gives_a_diagnosis(coder, network):
    with_node(network, lambda node: setattr(node, "served", {"/api/v0/netcheck": netcheck(MappingVariesByDestIP=True)}))
    _, found = examine(coder, "dev")
    assert found["diagnosis"]["verdict"]["code"] == "hard_nat_agent"
    assert found["diagnosis"]["agent_problem"] == ""


def test_an_agent_that_is_too_old(coder, network):
    with_node(network, lambda node: setattr(node, "served", {}))
    run = coder("doctor", "dev")
    assert "  workspace      the agent is too old to tell about its network" in run.out.splitlines()


def test_switched_off_here_is_said_without_waiting(coder, network):
    with_node(network, lambda node: setattr(node, "pongs", [RELAY_PONG, AssertionError("asked twice")]))
    run = coder("--disable-direct-connections", "doctor", "dev")
    assert run.code == 3
    assert run.out.splitlines()[-1].startswith("What to change: Leave out --disable-direct-connections")


def test_switched_off_by_the_server(coder, network):
    network.answers["GET /api/v2/workspaceagents/connection"] = (
        200, {"derp_map": MAP, "disable_direct_connections": True, "derp_force_websockets": True},
    )  # fmt: skip
    _, found = examine(coder, "dev")
    assert found["diagnosis"]["verdict"]["code"] == "blocked_by_server"
    assert "works by WebSocket (the server wants it)" in stage(found, "relay")["text"]


# Without a workspace


def test_the_way_to_the_relays(coder, network):
    code, found = examine(coder)
    assert code == 0
    assert (found["workspace"], found["status"]) == (None, "ok")
    assert [stage["name"] for stage in found["stages"]] == ALONE
    assert stage(found, "relay")["text"] == "Coder Embedded Relay works by HTTP upgrade, 29ms there and back"
    assert stage(found, "udp")["text"] == "UDP works, easy NAT, IPv4"
    assert network.asked(f"/api/v2/workspaceagents/{AGENT_ID}") == []
    assert len(network.engines[0].nodes) == 3, "two that exchange a message, and one that looks at the network"
    assert all(node.closed and '"HostName": "127.0.0.1"' in node.maps[0] for node in network.engines[0].nodes)


@pytest.mark.parametrize(
    ("report", "relays", "text"),
    [
        ({"udp": False, "ipv4": False}, MAP, "UDP blocked"),
        ({"mapping_varies_by_dest_ip": True}, MAP, "UDP works, hard NAT (another port for each destination), IPv4"),
        ({}, NO_STUN, "not tested: no STUN server is configured, so connections are relayed"),
    ],
)
def test_a_network_without_direct_connections_is_a_warning(coder, network, report, relays, text):
    network.answers["GET /api/v2/workspaceagents/connection"] = (200, {"derp_map": relays})
    with_node(network, lambda node: reports(node, **report))
    code, found = examine(coder)
    assert code == 0
    assert stage(found, "udp")["status"] == "warn"
    assert stage(found, "udp")["text"] == text


def test_no_relay_answers(coder, network):
    def deaf(node):
        node.on_event(RelayProblem(region=999, text="refused"))

    network.prepare = deaf
    code, found = examine(coder, "-t", "100ms")
    assert (code, failed_at(found), found["status"]) == (1, "relay", "failed")
    assert stage(found, "relay")["text"] == "no relay could be reached (refused)"


def test_one_of_two_relays_is_a_warning(coder, network):
    both = json.loads(json.dumps(MAP))
    both["Regions"]["7"] = {
        "RegionID": 7, "RegionCode": "eu", "RegionName": "Far", "Nodes": [
            {"Name": "7a", "RegionID": 7, "HostName": "far.example"}
        ],
    }  # fmt: skip
    network.answers["GET /api/v2/workspaceagents/connection"] = (200, {"derp_map": both})
    with_node(
        network, lambda node: setattr(node, "pongs", [TimedOut("no")] if len(nodes(network)) < 2 else [RELAY_PONG])
    )
    code, found = examine(coder, "-t", "100ms")
    assert code == 0
    assert stage(found, "relay")["status"] == "warn"
    assert stage(found, "relay")["text"].count("does not work (no answer)") == 1


def nodes(network):
    return network.engines[0].nodes if network.engines else []


def test_a_region_that_is_not_there_cannot_be_asked_for(coder, network):
    run = coder("--prefer-region", "fra", "ping", "dev", "-n", "1")
    assert (run.code, run.err) == (1, "error: there is no relay region 'fra'. For --prefer-region there are: coder.\n")


def test_netcheck_has_the_protocols_shape(coder, network):
    run = coder("netcheck")
    assert run.code == 0, run.err
    why = "region 999 (coder), 1.0 ms: the only one with a relay"
    assert run.err == f"Gathering a network report. This may take a few seconds...\nHome: {why}.\n"
    found = json.loads(run.out)
    derp = found["derp"]
    assert found["home"] == why
    assert (derp["severity"], derp["healthy"], derp["warnings"]) == ("ok", True, [])
    assert derp["netcheck"]["RegionLatency"] == {"999": 1_000_000}
    assert derp["netcheck"]["GlobalV4"] == "203.0.113.7:41641"
    [node] = derp["regions"]["999"]["node_reports"]
    assert node["node"]["HostName"] == "127.0.0.1"
    assert (node["can_exchange_messages"], node["round_trip_ping"], node["round_trip_ping_ms"]) == (True, "29ms", 29)
    assert node["stun"] == {"Enabled": True, "CanSTUN": True, "Error": None}
    assert found["interfaces"]["interfaces"]


def test_netcheck_where_nothing_works(coder, network, monkeypatch):
    monkeypatch.setattr("coder.cli.commands.netcheck.PATIENCE", 0.1)
    with_node(network, lambda node: (setattr(node, "pongs", [None]), reports(node, udp=False)))
    network.answers["GET /api/v2/workspaceagents/connection"] = (
        200, {"derp_map": MAP, "derp_force_websockets": True},
    )  # fmt: skip
    derp = json.loads(coder("netcheck").out)["derp"]
    assert (derp["severity"], derp["healthy"]) == ("error", False)
    [node] = derp["regions"]["999"]["node_reports"]
    assert (node["healthy"], node["can_exchange_messages"], node["uses_websocket"]) == (False, False, True)
    assert [warning["code"] for warning in node["warnings"]] == ["EDERP01"]
    assert node["stun"] == {"Enabled": True, "CanSTUN": False, "Error": "no answer"}


@pytest.mark.parametrize(
    ("relays", "report", "codes"),
    [(NO_STUN, {}, ["ESTUN01"]), (MAP, {"mapping_varies_by_dest_ip": True}, ["ESTUN02"])],
)
def test_netcheck_warns_of_a_network_without_direct_connections(coder, network, relays, report, codes):
    network.answers["GET /api/v2/workspaceagents/connection"] = (200, {"derp_map": relays})
    with_node(network, lambda node: reports(node, **report))
    derp = json.loads(coder("netcheck").out)["derp"]
    assert [warning["code"] for warning in derp["warnings"]] == codes
    assert (derp["severity"], derp["healthy"]) == ("warning", True)


def test_netcheck_in_words(coder, network, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://user:hunter2@proxy.test:3128")
    with_node(network, lambda node: reports(node, captive_portal=False, hair_pinning=False))
    network.answers["GET /api/v2/workspaceagents/connection"] = (200, {"derp_map": TWO, "derp_force_websockets": True})
    text = coder("--prefer-region", "coder", "netcheck", "-o", "table").out
    for line in (
        "UDP             works",
        "IPv4            works, seen as 203.0.113.7:41641",
        "NAT             easy or none: the same port for every destination; no hairpin",
        "Port mapping    none: there is no default route",
        "Captive portal  none",
        "Proxy           proxy.test:3128",
        "Home            region 999 (coder), 1.0 ms: it was asked for",
        "999 *   coder  Coder Embedded Relay  1.0ms    by WebSocket, 29ms  answers",
        "7       far    Far                   -        by WebSocket, 29ms  -",
        "! Region 7 (far), 7a: Reached by WebSocket: the server wants it.",
    ):
        assert line in text.splitlines(), text


def test_netcheck_in_words_where_nothing_works(coder, network, monkeypatch):
    monkeypatch.setattr("coder.cli.commands.netcheck.PATIENCE", 0.1)
    with_node(network, lambda node: (setattr(node, "pongs", [None]), reports(node, udp=False, ipv4=False)))
    text = coder("--disable-port-mapping", "netcheck", "-o", "table").out
    assert "UDP             blocked: no STUN server answers" in text
    assert "IPv4            no answer" in text
    assert "Port mapping    none: port mapping is off" in text
    assert "does not work" in text
    assert "! relay region 999, node 999b: no message came through." in text


@pytest.mark.parametrize(
    ("router", "words"),
    [
        (PortMapReport(gateway="10.0.0.1", external="1.2.3.4:5", via=Protocol.PCP, pcp=True), "PCP by 10.0.0.1 gives"),
        (PortMapReport(gateway="10.0.0.1", pmp=True, error="refused"), "speaks NAT-PMP, but gives no port: refused"),
    ],
)
def test_netcheck_tells_of_the_router(coder, network, monkeypatch, router, words):
    async def asked(*_):
        return router

    monkeypatch.setattr("coder.peering.relaycheck.router", asked)
    assert words in coder("netcheck", "-o", "table").out
    found = json.loads(coder("netcheck").out)
    assert found["port_mapping"]["external"] == router.external
    assert found["derp"]["netcheck"]["PMP"] is router.pmp


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.000397541, "397.541µs"), (0.0012, "1.2ms"), (0, "0s"), (2.5, "2.5s"), (5e-9, "5ns"), (0.029, "29ms")],
)
def test_durations_as_go_writes_them(seconds, text):
    assert go_duration(seconds) == text


def test_usage(coder):
    assert coder("doctor", "a/b/c").code == 1
    assert coder("doctor", "--bogus").code == 2
    text = " ".join(coder("doctor", "--help").out.split())
    assert "0 when the connection is direct" in text
    assert "3 when it is relayed" in text
