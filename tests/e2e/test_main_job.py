"""The main job end to end: a user and a workspace, encrypted, direct and relayed, through real processes."""

import re
import socket
from pathlib import Path

import pytest

from e2e.deployment import wait_until

pytestmark = pytest.mark.e2e


def test_ping_says_over_which_path_each_pong_came(workspace):
    done = workspace.run("ping", "dev", "-n", "3")
    pongs = re.findall(
        r"^pong from dev (p2p via \S+:\d+|proxied via DERP\(Coder Embedded Relay\)) in", done.stdout, re.MULTILINE
    )
    assert done.returncode == 0, done.stderr
    assert len(pongs) == 3


@pytest.mark.parametrize("direction", ["down", "up"])
def test_a_direct_speed_test_moves_bytes_and_names_its_path(workspace, direction):
    result = workspace.json("speedtest", "dev", "-t", "1s", "--direct", "--direction", direction)
    assert result["path"]["kind"] == "direct"
    assert result["overall"]["throughput_mbits"] > 0


@pytest.mark.parametrize("direction", ["down", "up"])
def test_a_relayed_speed_test_stays_on_the_relay(workspace, direction):
    result = workspace.json("--disable-direct-connections", "speedtest", "dev", "-t", "1s", "--direction", direction)
    assert result["path"]["kind"] == "relay"
    assert result["overall"]["throughput_mbits"] > 0


def test_the_table_has_a_row_a_second_a_rule_and_a_total(workspace):
    lines = workspace.ok("speedtest", "dev", "-t", "1s").splitlines()
    assert lines[0].split() == ["INTERVAL", "TRANSFER", "BANDWIDTH"]
    assert set(lines[-2]) == {"-"}
    assert re.fullmatch(r"0\.00-\d+\.\d\d sec +\d+\.\d{4} MBits +\d+\.\d{4} Mbits/sec", lines[-1])


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (("ping", "nowhere", "-n", "1"), {}, "nowhere"),
        (("list",), {"CODER_SESSION_TOKEN": "aaaaaaaaaa-bbbbbbbbbbbbbbbbbbbbbb"}, "CODER_SESSION_TOKEN or --token"),
    ],
)
def test_a_failure_is_one_clear_line_and_exit_1(workspace, arguments, environment, expected):
    done = workspace.run(*arguments, **environment)
    assert done.returncode == 1, done.stderr
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_is_not_there_is_said_so(workspace):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        done = workspace.run("list", CODER_URL=f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_garbage_at_the_relay_and_the_api_disturbs_nobody(workspace):
    host, port = workspace.address.split(":")
    upgrade = b"GET /derp HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: DERP\r\n\r\n"
    for garbage in (
        b"\x00" * 4096,
        upgrade + b"\x04\xff\xff\xff\xff" + b"x" * 5000,
        upgrade + b"\x02\x00",
        b"GET / HT",
    ):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(garbage)
    result = workspace.json("--disable-direct-connections", "speedtest", "dev", "-t", "1s")
    assert result["overall"]["throughput_mbits"] > 0


def test_no_secret_is_in_a_log_or_a_command_line(workspace):
    token = (workspace.place / "token").read_text().strip()
    session = (workspace.place / "config" / "session").read_text().strip()
    written = workspace.log("server") + workspace.log("agent")
    agent = Path(f"/proc/{workspace.processes['agent'].pid}/cmdline").read_text()
    for secret in (token, session):
        assert secret not in written
        assert secret not in agent


def test_the_agent_and_the_client_find_each_other_after_the_server_restarts(workspace):
    assert workspace.stop("server") == 0
    workspace.start_server()
    wait_until("the agent", lambda: workspace.agent_status() == "connected")
    result = workspace.json("speedtest", "dev", "-t", "1s")
    assert result["overall"]["throughput_mbits"] > 0
