"""The main job end to end: a user and a workspace, encrypted, direct and relayed, through real processes."""

import re
import socket
from pathlib import Path

import pytest

from e2e.deployment import Deployment, sign_in, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    made = Deployment(tmp_path_factory.mktemp("deployment"))
    try:
        made.start_server()
        sign_in(made)
        made.ok("create", "dev", "--output-token-file", str(made.place / "token"))
        made.start_agent()
        wait_until("the agent", lambda: made.agent_status() == "connected")
        yield made
    finally:
        made.close()


def test_ping_says_over_which_path_each_pong_came(deployment):
    done = deployment.run("ping", "dev", "-n", "3")
    pongs = re.findall(
        r"^pong from dev (p2p via \S+:\d+|proxied via DERP\(Coder Embedded Relay\)) in", done.stdout, re.MULTILINE
    )
    assert done.returncode == 0, done.stderr
    assert len(pongs) == 3


@pytest.mark.parametrize("direction", ["down", "up"])
def test_a_direct_speed_test_moves_bytes_and_names_its_path(deployment, direction):
    result = deployment.json("speedtest", "dev", "-t", "1s", "--direct", "--direction", direction)
    assert result["path"]["kind"] == "direct"
    assert result["overall"]["throughput_mbits"] > 0


@pytest.mark.parametrize("direction", ["down", "up"])
def test_a_relayed_speed_test_stays_on_the_relay(deployment, direction):
    result = deployment.json("--disable-direct-connections", "speedtest", "dev", "-t", "1s", "--direction", direction)
    assert result["path"]["kind"] == "relay"
    assert result["overall"]["throughput_mbits"] > 0


def test_the_table_has_a_row_a_second_a_rule_and_a_total(deployment):
    lines = deployment.ok("speedtest", "dev", "-t", "1s").splitlines()
    assert lines[0].split() == ["INTERVAL", "TRANSFER", "BANDWIDTH"]
    assert set(lines[-2]) == {"-"}
    assert re.fullmatch(r"0\.00-\d+\.\d\d sec +\d+\.\d{4} MBits +\d+\.\d{4} Mbits/sec", lines[-1])


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (("ping", "nowhere", "-n", "1"), {}, "nowhere"),
        (("list",), {"CODER_SESSION_TOKEN": "aaaaaaaaaa-bbbbbbbbbbbbbbbbbbbbbb"}, "coder login"),
    ],
)
def test_a_failure_is_one_clear_line_and_exit_1(deployment, arguments, environment, expected):
    done = deployment.run(*arguments, **environment)
    assert done.returncode == 1, done.stderr
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_is_not_there_is_said_so(deployment):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        done = deployment.run("list", CODER_URL=f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_garbage_at_the_relay_and_the_api_disturbs_nobody(deployment):
    host, port = deployment.address.split(":")
    upgrade = b"GET /derp HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: DERP\r\n\r\n"
    for garbage in (
        b"\x00" * 4096,
        upgrade + b"\x04\xff\xff\xff\xff" + b"x" * 5000,
        upgrade + b"\x02\x00",
        b"GET / HT",
    ):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(garbage)
    result = deployment.json("--disable-direct-connections", "speedtest", "dev", "-t", "1s")
    assert result["overall"]["throughput_mbits"] > 0


def test_no_secret_is_in_a_log_or_a_command_line(deployment):
    token = (deployment.place / "token").read_text().strip()
    session = (deployment.place / "config" / "session").read_text().strip()
    written = deployment.log("server") + deployment.log("agent")
    agent = Path(f"/proc/{deployment.processes['agent'].pid}/cmdline").read_text()
    for secret in (token, session):
        assert secret not in written
        assert secret not in agent


def test_the_agent_and_the_client_find_each_other_after_the_server_restarts(deployment):
    assert deployment.stop("server") == 0
    deployment.start_server()
    wait_until("the agent", lambda: deployment.agent_status() == "connected")
    result = deployment.json("speedtest", "dev", "-t", "1s")
    assert result["overall"]["throughput_mbits"] > 0
