"""A DERP map that changes while everything runs: the server reads it again, agents follow."""

import json
import os

import pytest

from e2e.deployment import Deployment, sign_in, wait_until
from e2e.test_relay import node, start_relay

pytestmark = pytest.mark.e2e


def write(path, document) -> None:
    """Replace a file at once, as one should: a half-written map is no map."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(document))
    os.replace(fresh, path)  # noqa: PTH105 - one step, whatever is there


def test_an_agent_moves_to_the_region_it_asked_for_as_soon_as_the_map_has_it(tmp_path):
    made = Deployment(tmp_path)
    path = tmp_path / "map.json"
    write(path, {"Regions": {}})
    try:
        relay = start_relay(made, "relay")
        made.start_server("", "--derp-config-path", str(path))
        sign_in(made)
        made.ok("create", "dev", "--output-token-file", str(tmp_path / "token"))
        agent = {"CODER_AGENT_URL": made.url, "CODER_AGENT_TOKEN_FILE": str(tmp_path / "token")}
        made.start("agent", "agent", CODER_PREFER_REGION="own", **agent)
        wait_until("a home", lambda: "'own' was asked for, but is not in the map" in made.log("agent"))
        region = {"RegionID": 900, "RegionCode": "own", "RegionName": "Our own", "Nodes": [node("900a", relay)]}
        write(path, {"Regions": {"900": region}})
        wait_until("the new home", lambda: "region 900 (own)" in made.log("agent"))
        assert "derp.map_changed" in made.log("server")
        write(path, {"Regions": {"900": "nonsense"}})
        wait_until("the complaint", lambda: "derp.map_kept" in made.log("server"))
        assert "900" in made.ok("derpmap", "show")
        done = made.run("--prefer-region", "nowhere", "ping", "dev", "-n", "1")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "own" in done.stderr
    finally:
        made.close()


def test_agent_and_command_move_together_when_their_region_is_replaced(tmp_path):
    made = Deployment(tmp_path)
    path = tmp_path / "map.json"

    def put(number: int, code: str, relay: dict[str, str]) -> None:
        only = {"RegionID": number, "RegionCode": code, "RegionName": code, "Nodes": [node(f"{number}a", relay)]}
        write(path, {"Regions": {str(number): only}})

    try:
        put(901, "first", start_relay(made, "one"))
        second = start_relay(made, "two")
        made.start_server("", "--derp-config-path", str(path), "--derp-server-enable=false")
        sign_in(made)
        made.ok("create", "dev", "--output-token-file", str(tmp_path / "token"))
        made.start_agent()
        made.start("ping", "--disable-direct-connections", "ping", "dev", "-n", "100000")
        wait_until("the first relay", lambda: "proxied via DERP(first)" in made.log("ping"))
        put(902, "second", second)
        wait_until("the second relay", lambda: "proxied via DERP(second)" in made.log("ping"))
        made.stop("one")
        before = len(made.log("ping").splitlines())
        wait_until("more answers", lambda: len(made.log("ping").splitlines()) > before + 1)
        answers = [line for line in made.log("ping").splitlines() if line.startswith(("pong ", "ping "))]
        assert {line.partition(" in ")[0] for line in answers} == {
            "pong from dev proxied via DERP(first)",
            "pong from dev proxied via DERP(second)",
        }
    finally:
        made.close()
