"""A server whose relay shares a region with a `coder relay`: nodes meet though they are connected to different ones."""

import json
import socket

import pytest

from e2e.deployment import Deployment, sign_in, wait_until
from e2e.test_relay import metric, node, start_relay

pytestmark = pytest.mark.e2e

RELAYED = ("--prefer-region", "own", "--disable-direct-connections", "speedtest", "dev", "-t", "1s")


def test_nodes_at_both_relays_meet_by_the_link_and_at_the_other_when_one_dies(tmp_path):
    made = Deployment(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        made.address = f"127.0.0.1:{chosen.getsockname()[1]}"
    (tmp_path / "mesh").write_text("0123456789abcdef" * 4 + "\n")
    try:
        # Its address and certificate are needed; the agent is to find it down, and so to stay at the server.
        relay = start_relay(made, "relay")
        first = node("900a", relay)
        made.stop("relay")
        port = int(made.address.rpartition(":")[2])
        second = {"Name": "900b", "RegionID": 900, "HostName": "127.0.0.1", "IPv6": "none", "STUNPort": -1}
        second |= {"DERPPort": port, "ForceHTTP": True}
        region = {"RegionID": 900, "RegionCode": "own", "RegionName": "Our own", "Nodes": [first, second]}
        (tmp_path / "map.json").write_text(json.dumps({"Regions": {"900": region}}))
        made.start_server(
            "",
            *("--derp-config-path", str(tmp_path / "map.json"), "--derp-server-mesh-key-file", str(tmp_path / "mesh")),
            *("--derp-server-mesh-with", f"https://{relay['Relay']}"),
            *("--derp-server-mesh-cert-name", str(first["CertName"])),
        )
        sign_in(made)
        made.ok("create", "dev", "--output-token-file", str(tmp_path / "token"))
        made.settings["CODER_PREFER_REGION"] = "own"
        made.start_agent()
        wait_until("the agent's home", lambda: "region 900 (own)" in made.log("agent"))
        wait_until("the agent", lambda: made.agent_status() == "connected")
        mesh = ("--mesh-key-file", str(tmp_path / "mesh"), "--mesh-with", f"http://{made.address}")
        back = start_relay(made, "relay again", "--tls-address", relay["Relay"], *mesh)
        wait_until("the link", lambda: metric(back, "relay_links") == 1)
        assert made.json(*RELAYED)["path"]["kind"] == "relay"
        assert metric(back, "relay_forwarded") > 100
        made.stop("relay again", kill=True)
        assert made.json(*RELAYED)["path"]["kind"] == "relay"
    finally:
        made.close()
