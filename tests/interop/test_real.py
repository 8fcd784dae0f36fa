"""The other implementation's command and agent against ours, in every pairing, through our server and our relay."""

import re

import pytest
from e2e.deployment import wait_until

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

RELAYED = {"CODER_DISABLE_DIRECT_CONNECTIONS": "true"}
TOTAL = re.compile(r"^-+\n *0\.00-\d\.\d\d sec +(?:\S+ MBits +)?([0-9.]+) Mbits/sec", re.MULTILINE)


def pongs(output: str) -> list[str]:
    found = re.findall(r"^pong from dev (p2p via \S+:\d+|proxied via DERP\([^)]*\)) in", output, re.MULTILINE)
    return ["direct" if pong.startswith("p2p") else "relay" for pong in found]


def mbits(output: str) -> float:
    found = TOTAL.search(output)
    assert found, output
    return float(found[1])


@pytest.fixture(scope="module", params=["ours", "theirs"])
def agent(request, deployment, real):
    """The agent of `dev`: one implementation's, then the other's."""
    name = {"ours": "agent", "theirs": "real-agent"}[request.param]
    (deployment if request.param == "ours" else real).start_agent()
    wait_until("the agent", lambda: deployment.agent_status() == "connected")
    real.sign_in()
    yield request.param
    assert deployment.stop(name) == 0
    wait_until("the agent's end", lambda: deployment.agent_status() == "disconnected")


def test_their_command_lists_and_shows(agent, real):
    assert re.search(r"^ *admin/dev +machine +Started +true", real.ok("list"), re.MULTILINE)
    shown = real.ok("show", "dev")
    assert re.search(r"main \(linux, amd64\) +⦿ connected +✔ healthy", shown)
    assert agent == "theirs" or "outdated" not in shown


def test_their_command_finds_nothing_wrong_with_the_network(agent, real):
    report = real.ok("netcheck")
    assert '"can_exchange_messages": true' in report
    assert '"CanSTUN": true' in report


@pytest.mark.parametrize("way", ["direct", "relay"])
def test_their_command_pings(agent, real, way):
    output = real.ok("ping", "dev", "-n", "3", **(RELAYED if way == "relay" else {}))
    seen = pongs(output)
    assert len(seen) == 3
    assert seen[-1] == way


def test_their_ping_gets_the_agents_report_on_its_network(agent, real):
    said = real.run("ping", "dev", "-n", "1").stderr
    assert "Wireguard handshake" in said
    assert "outdated" not in said


def test_our_doctor_knows_both_networks(agent, deployment):
    found = deployment.json("doctor", "dev")
    assert found["status"] == "direct"
    assert [stage["status"] for stage in found["stages"]] == ["ok"] * 9
    assert found["diagnosis"]["agent"]["udp"] is True


@pytest.mark.parametrize("direction", ["down", "up"])
@pytest.mark.parametrize("way", ["direct", "relay"])
def test_their_command_measures(agent, real, way, direction):
    flags = ("--direct",) if way == "direct" else ()
    output = real.ok(
        *("speedtest", "dev", "-t", "2s", "--direction", direction, *flags), **(RELAYED if way == "relay" else {})
    )
    assert mbits(output) > 0


def test_their_command_runs_a_command_over_ssh(agent, real):
    done = real.run("ssh", "dev", "echo hello; exit 3")
    assert done.stdout.split() == ["hello"]
    assert (done.returncode, "exited with status 3" in done.stderr) == (1, True)


@pytest.mark.parametrize("way", ["direct", "relay"])
def test_our_command_pings(agent, deployment, way):
    seen = pongs(deployment.ok("ping", "dev", "-n", "3", **(RELAYED if way == "relay" else {})))
    assert len(seen) == 3
    assert seen[-1] == way


@pytest.mark.parametrize("direction", ["down", "up"])
@pytest.mark.parametrize("way", ["direct", "relay"])
def test_our_command_measures(agent, deployment, way, direction):
    flags = ("--direct",) if way == "direct" else ()
    output = deployment.ok(
        *("speedtest", "dev", "-t", "2s", "--direction", direction, *flags), **(RELAYED if way == "relay" else {})
    )
    assert mbits(output) > 0


def test_their_agent_tells_its_state(agent, deployment):
    shown = deployment.json("show", "dev")
    seen = shown["latest_build"]["resources"][0]["agents"][0]
    assert (seen["status"], seen["lifecycle_state"], seen["health"]["healthy"]) == ("connected", "ready", True)
    assert seen["latency"]["Coder Embedded Relay"]["preferred"]


def test_both_commands_return_after_the_server_restarts(agent, deployment, real):
    assert deployment.stop("server") == 0
    deployment.start_server()
    wait_until("the agent", lambda: deployment.agent_status() == "connected")
    assert len(pongs(real.ok("ping", "dev", "-n", "1"))) == 1
    assert len(pongs(deployment.ok("ping", "dev", "-n", "1"))) == 1
