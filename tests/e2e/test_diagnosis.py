"""What users are told about a connection, from a real server, agent and command."""

import json

import pytest

from e2e.deployment import running, wait_until

pytestmark = pytest.mark.e2e

RELAY_ONLY = "--disable-direct-connections"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    with running(tmp_path_factory.mktemp("diagnosis")) as made:
        made.ok("create", "empty", "--output-token-file", str(made.place / "other"))
        yield made


def examine(deployment, *arguments):
    done = deployment.run(*arguments, "-o", "json")
    return done.returncode, json.loads(done.stdout)


def test_a_direct_connection(deployment):
    status, found = examine(deployment, "doctor", "dev")
    assert (status, found["status"]) == (0, "direct")
    assert {stage["status"] for stage in found["stages"]} == {"ok"}
    assert found["diagnosis"]["verdict"]["code"] == "direct"
    assert found["diagnosis"]["client"]["nat"] == found["diagnosis"]["agent"]["nat"] == "none"
    assert found["diagnosis"]["path_mtu"] >= 1338


def test_a_relayed_connection(deployment):
    status, found = examine(deployment, RELAY_ONLY, "doctor", "dev")
    assert (status, found["status"]) == (3, "relayed")
    assert found["diagnosis"]["verdict"]["code"] == "blocked_by_client"


def test_a_workspace_without_an_agent(deployment):
    status, found = examine(deployment, "doctor", "empty")
    assert (status, found["status"]) == (1, "not_connected")
    [failed] = [stage for stage in found["stages"] if stage["status"] == "fail"]
    assert failed["name"] == "agent"


def test_the_way_to_the_relays(deployment):
    status, found = examine(deployment, "doctor")
    assert (status, found["status"]) == (0, "ok")
    report = json.loads(deployment.ok("netcheck"))["derp"]
    [node] = report["regions"]["999"]["node_reports"]
    assert report["healthy"]
    assert node["can_exchange_messages"]
    assert node["stun"]["CanSTUN"]


def test_ping_tells_both_networks(deployment):
    done = deployment.run("ping", "dev", "-n", "1")
    assert done.returncode == 0, done.stderr
    assert "    this machine  UDP works, no NAT, IPv4\n    workspace     UDP works, no NAT, IPv4\n" in done.stderr


def test_relay_and_direct_path_compared(deployment):
    found = deployment.json("speedtest", "dev", "-t", "1s", "--direction", "up", "--compare")
    assert {way: one["path"]["kind"] for way, one in found.items()} == {"relay": "relay", "direct": "direct"}
    assert all(one["overall"]["throughput_mbits"] > 0 and one["retransmits"] >= 0 for one in found.values())


def test_an_agent_that_wants_no_direct_connections(deployment):
    deployment.stop("agent")
    token = str(deployment.place / "token")
    deployment.start("agent", RELAY_ONLY, "agent", CODER_AGENT_URL=deployment.url, CODER_AGENT_TOKEN_FILE=token)
    wait_until("the agent", lambda: deployment.log("agent").count("agent.connected") == 2)
    wait_until("its state", lambda: deployment.agent_status() == "connected")
    status, found = examine(deployment, "doctor", "dev")
    assert (status, found["diagnosis"]["verdict"]["code"]) == (3, "blocked_by_agent")
    deployment.stop("agent")
    deployment.start_agent()
    wait_until("the agent", lambda: deployment.log("agent").count("agent.connected") == 3)
