"""Relays reached through WebSockets only, as behind proxies that know no other upgrade."""

import pytest

from e2e.deployment import Deployment, sign_in, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    made = Deployment(tmp_path_factory.mktemp("websockets"))
    try:
        made.start_server("", "--derp-force-websockets")
        sign_in(made)
        made.ok("create", "dev", "--output-token-file", str(made.place / "token"))
        made.start_agent()
        wait_until("the agent", lambda: made.agent_status() == "connected")
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("direction", ["down", "up"])
def test_data_moves_through_the_relay(deployment, direction):
    result = deployment.json("--disable-direct-connections", "speedtest", "dev", "-t", "1s", "--direction", direction)
    assert result["path"]["kind"] == "relay"
    assert result["overall"]["throughput_mbits"] > 0


def test_a_direct_path_is_found_through_it(deployment):
    assert deployment.json("speedtest", "dev", "-t", "1s", "--direct")["path"]["kind"] == "direct"
