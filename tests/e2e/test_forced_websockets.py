"""Relays reached through WebSockets only, as behind proxies that know no other upgrade."""

import pytest

from e2e.deployment import running

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    with running(tmp_path_factory.mktemp("websockets"), "--derp-force-websockets") as made:
        yield made


@pytest.mark.parametrize("direction", ["down", "up"])
def test_data_moves_through_the_relay(deployment, direction):
    result = deployment.json("--disable-direct-connections", "speedtest", "dev", "-t", "1s", "--direction", direction)
    assert result["path"]["kind"] == "relay"
    assert result["overall"]["throughput_mbits"] > 0


def test_a_direct_path_is_found_through_it(deployment):
    assert deployment.json("speedtest", "dev", "-t", "1s", "--direct")["path"]["kind"] == "direct"
