"""The other implementation's command and agent against ours, in every pairing, through our server and our relay."""

import json
import os
import re
import subprocess

import pytest
from e2e import manifest
from e2e.deployment import running, wait_until
from e2e.services import ask_udp, datagram_service, free_ports

from interop.real import Real

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


def test_their_command_manages_tokens_and_users(agent, real):
    made = real.ok("tokens", "create", "--name", "ci").strip()
    assert re.search(rf"^{made.partition('-')[0]} +ci ", real.ok("tokens", "ls"), re.MULTILINE)
    real.ok("tokens", "rm", "ci")
    assert real.run("tokens", "rm", "ci").returncode == 1
    account = ("-u", "bob", "-e", "bob@example.com", "-p", "Correct7horse7battery", "--login-type", "password")
    real.ok("users", "create", *account)
    assert re.search(r"^bob +bob@example.com .* active", real.ok("users", "list"), re.MULTILINE)
    assert re.search(r"Username: +bob", real.ok("users", "show", "bob"))
    real.ok("users", "delete", "bob")
    assert "admin" in real.ok("whoami")


def test_their_command_creates_stops_and_deletes_a_workspace(agent, real):
    real.ok("create", "other", "--template", "machine", "--yes")
    assert re.search(r"^ *admin/other +machine +Started", real.ok("list"), re.MULTILINE)
    real.ok("stop", "other", "--yes")
    real.ok("start", "other", "--yes")
    real.ok("delete", "other", "--yes")
    assert "admin/other" not in real.ok("list")
    assert re.search(r"^process +coder", real.ok("templates", "list"), re.MULTILINE)


def test_their_command_writes_the_ssh_configuration(agent, real):
    told = real.ok("config-ssh", "--dry-run")
    assert "Host coder.*" in told
    assert "--hostname-suffix coder %h" in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "nope"), "There is no such resource"),
        (("ssh", "nope"), "There is no such resource"),
        (("ping", "dev.nope"), "available agents: [main]"),
        (("open", "app", "dev", "nope"), "app not found"),
    ],
)
def test_their_command_tells_what_our_server_refuses(agent, real, words, said):
    done = real.run(*words)
    assert done.returncode == 1
    assert said in done.stderr


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


def test_their_command_forwards_nothing_it_was_not_told(agent, real):
    done = real.run("ssh", "--stdio", "dev")
    assert done.stdout.startswith("SSH-2.0-")


def test_an_editor_reaches_the_workspace_as_it_configures_ssh(agent, real, tmp_path):
    """The configuration that VS Code's extension writes, with their command as its proxy."""
    figures = tmp_path / "net"
    figures.mkdir()
    proxy = f"{real.binary} --global-config {real.home / 'config'} ssh --disable-autostart --stdio --usage-app=vscode"
    (tmp_path / "config").write_text(
        "Host coder-vscode.test--*\n"
        "  ConnectTimeout 0\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n"
        "  SetEnv CODER_SSH_SESSION_TYPE=vscode\n"
        f"  ProxyCommand {proxy} --network-info-dir {figures} --ssh-host-prefix coder-vscode.test-- %h\n"
    )
    wait = f"until ls {figures}/*.json; do sleep 0.1; done >/dev/null 2>&1"
    done = subprocess.run(
        ["ssh", "-F", tmp_path / "config", "coder-vscode.test--admin--dev.main", f"{wait}; exit 3"],
        env=real.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stderr) == (3, "")
    [written] = figures.glob("*.json")
    assert json.loads(written.read_text())["preferred_derp"] == "Coder Embedded Relay"


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


def test_our_command_forwards_udp(agent, deployment):
    [local], name = free_ports(), f"udp-{agent}"
    with datagram_service() as remote:
        deployment.start(name, "port-forward", "dev", "--udp", f"{local}:{remote}")
        try:
            wait_until("the port", lambda: "Ready!" in deployment.log(name))
            assert ask_udp(local, b"abc") == b"cba", deployment.log(name)
        finally:
            deployment.stop(name, kill=True)


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


def test_their_agent_does_what_its_manifest_says(real_binary, tmp_path):
    with manifest.App() as app, running(tmp_path, agent=False) as made:
        manifest.equip(made, app)
        os.mkfifo(tmp_path / "go")
        Real(real_binary, made).start_agent()
        manifest.check_start(made)
        assert made.stop("real-agent") == 0
        manifest.check_stop(made)
