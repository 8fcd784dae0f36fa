"""What a stranger, or a user gone bad, tries on a running server, while others use it."""

import contextlib
import urllib.error
import urllib.request

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from e2e.deployment import Deployment, running

pytestmark = pytest.mark.e2e

LIMIT = 25


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    with running(tmp_path_factory.mktemp("hostile")) as made:
        made.ok("create", "other", "--output-token-file", str(made.place / "foreign"))
        yield made
        assert made.json("speedtest", "dev", "-t", "1s")["overall"]["throughput_mbits"] > 0


@pytest.fixture(scope="module")
def tight(tmp_path_factory):
    """A server that takes few requests, behind no proxy."""
    made = Deployment(tmp_path_factory.mktemp("tight"))
    try:
        made.start_server("", "--api-rate-limit", str(LIMIT))
        yield made
    finally:
        made.close()


def socket(deployment: Deployment, path: str, token: str):
    url = f"ws://{deployment.address}/api/v2{path}"
    return connect(url, additional_headers={"Coder-Session-Token": token}, compression=None, max_size=None)


def secrets(deployment: Deployment) -> tuple[str, str, str]:
    session = (deployment.place / "config" / "session").read_text().strip()
    return session, (deployment.place / "foreign").read_text().strip(), (deployment.place / "token").read_text().strip()


GARBAGE = {
    "noise": [b"\xff" * 4096],
    "text": ["hello"],
    "a window update of nothing": [bytes.fromhex("00 01 0000 00000001 ffffffff")],
    "data longer than the window": [bytes.fromhex("00 01 0001 00000001 00000000 00 00 0000 00000001 7fffffff")],
    "a call that is no frame": [bytes.fromhex("00 00 0001 00000001 00000010") + b"\xff" * 16],
    "a frame of 4 GiB": [bytes.fromhex("00 00 0001 00000001 0000000a 03 01 01 ffffffff 0f 000000")],
    "a manifest asked with garbage": [
        bytes.fromhex("00 00 0001 00000001 0000003a 03 01 01 22") + b"/coder.agent.v2.Agent/GetManifest!" + b"\x05" * 20
    ],
    "streams of the wrong side": [bytes.fromhex("00 01 0001 00000002 00000000")] * 300,
    "pings without end": [bytes.fromhex("00 02 0001 00000000 00000007")] * 3000,
    "more streams than one may open": [
        bytes.fromhex("00 01 0001") + (2 * number + 1).to_bytes(4, "big") + bytes(4) for number in range(2000)
    ],
}


@pytest.mark.parametrize("kind", GARBAGE)
@pytest.mark.parametrize("where", ["agent", "client", "user"])
def test_garbage_on_a_call_socket_harms_only_who_sends_it(deployment, where, kind):
    session, foreign, _ = secrets(deployment)
    other = deployment.json("show", "other")["latest_build"]["resources"][0]["agents"][0]["id"]
    path, token = {
        "agent": ("/workspaceagents/me/rpc?version=2.6", foreign),
        "client": (f"/workspaceagents/{other}/coordinate?version=2.0", session),
        "user": ("/tailnet?version=2.3", session),
    }[where]
    with socket(deployment, path, token) as attacker, contextlib.suppress(ConnectionClosed):
        for message in GARBAGE[kind]:
            attacker.send(message)
    assert deployment.agent_status() == "connected"
    assert '"level": "error"' not in deployment.log("server")
    assert "Traceback" not in deployment.log("server")


@pytest.mark.parametrize(
    ("path", "holder"),
    [
        ("/workspaceagents/me/rpc?version=2.6", "user"),
        ("/workspaceagents/{agent}/coordinate?version=2.0", "agent"),
        ("/tailnet?version=2.3", "agent"),
        ("/derp-map", "agent"),
    ],
)
def test_no_token_opens_a_socket_of_the_other_kind(deployment, path, holder):
    session, _, own = secrets(deployment)
    agent = deployment.json("show", "dev")["latest_build"]["resources"][0]["agents"][0]["id"]
    with pytest.raises(InvalidStatus) as refused:
        socket(deployment, path.format(agent=agent), session if holder == "user" else own)
    assert refused.value.response.status_code == 401


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Real-Ip", "Forwarded", "True-Client-Ip", "Cf-Connecting-Ip"])
def test_nobody_gets_a_new_share_of_requests_by_claiming_another_address(tight, header):
    statuses = []
    for number in range(LIMIT + 5):
        claim = f"198.51.100.{number}"
        request = urllib.request.Request(
            f"http://{tight.address}/api/v2/buildinfo",
            headers={header: f"for={claim}" if header == "Forwarded" else claim},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                statuses.append(answer.status)
        except urllib.error.HTTPError as refusal:
            statuses.append(refusal.code)
    assert 429 in statuses
