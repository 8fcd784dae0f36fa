"""Both implementations at our relay through WebSockets only."""

import pytest
from e2e.deployment import running, wait_until

from interop.real import Real
from interop.test_real import RELAYED, mbits, pongs

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def forced(real_binary, tmp_path_factory):
    with running(tmp_path_factory.mktemp("forced"), "--derp-force-websockets", agent=False) as made:
        yield made


@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_both_commands_reach_the_agent_through_the_relay(forced, real_binary, whose):
    real = Real(real_binary, forced)
    (forced if whose == "ours" else real).start_agent()
    wait_until("the agent", lambda: forced.agent_status() == "connected")
    real.sign_in()
    for command in (forced, real):
        assert set(pongs(command.ok("ping", "dev", "-n", "2", **RELAYED))) == {"relay"}
        for direction in ("down", "up"):
            output = command.ok("speedtest", "dev", "-t", "1s", "--direction", direction, **RELAYED)
            assert mbits(output) > 0
    assert forced.stop("agent" if whose == "ours" else "real-agent") == 0
    wait_until("the agent's end", lambda: forced.agent_status() == "disconnected")
