"""Clients of other makers at our relay and our STUN server; our nodes at a relay of another maker."""

import json
import re
import socket
import ssl
import subprocess
import urllib.request
from pathlib import Path

import pytest
from e2e.deployment import Deployment, sign_in, wait_until

from coder.dataplane.edge import certificate_pin, self_signed

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def relaypeer(build):
    program = build("./relaypeer", "-tags", "ts_debug_websockets")

    def run(*arguments: str) -> dict:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.mark.parametrize("transport", ["upgrade", "faststart", "websocket"])
def test_two_clients_exchange_packets_through_our_relay(relaypeer, deployment, transport):
    seen = relaypeer("derp", f"{deployment.url}/derp", transport)
    assert seen["packets"] >= 200


def test_our_stun_server_tells_a_client_its_address_on_both_ports(relaypeer, deployment):
    ports = re.search(r"STUN on UDP (\d+), (\d+)", deployment.log("server")).groups()
    for port in ports:
        assert relaypeer("stun", f"127.0.0.1:{port}")["seen"].startswith("127.0.0.1:")


def free_port(kind: int) -> int:
    with socket.socket(socket.AF_INET, kind) as chosen:
        chosen.bind(("127.0.0.1", 0))
        return chosen.getsockname()[1]


@pytest.fixture(scope="module", params=["plain", "tls"])
def outside(request, build_large, tmp_path_factory):
    """A deployment without a relay of its own: its map names one of another maker.

    Behind TLS that one tells its key with its certificate, and our nodes log in without waiting for its greeting.
    """
    program = build_large("tailscale.com/cmd/derper")
    made = Deployment(tmp_path_factory.mktemp("outside"))
    relay, stun = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_DGRAM)
    node = {"Name": "900a", "RegionID": 900, "HostName": "127.0.0.1", "IPv4": "127.0.0.1", "IPv6": "none"}
    node |= {"DERPPort": relay, "STUNPort": stun}
    flags, scheme = secured(made.place, node) if request.param == "tls" else ([], "http")
    node["ForceHTTP"] = request.param == "plain"
    region = {"RegionID": 900, "RegionCode": "out", "RegionName": "Outside", "Nodes": [node]}
    map_file = made.place / "map.json"
    map_file.write_text(json.dumps({"Regions": {"900": region}}))
    made.relay_url = f"{scheme}://127.0.0.1:{relay}"
    try:
        with (made.place / "derper.log").open("wb") as log:
            made.processes["derper"] = subprocess.Popen(
                [
                    *(program, "-a", f"127.0.0.1:{relay}", "-http-port", "-1", "-stun-port", str(stun)),
                    *("-c", str(made.place / "derper.key"), *flags),
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        wait_until("the relay", lambda: answers(f"{made.relay_url}/derp/probe"))
        made.start_server("", "--derp-server-enable=false", "--derp-config-path", str(map_file))
        sign_in(made)
        made.ok("create", "dev", "--output-token-file", str(made.place / "token"))
        made.start_agent()
        wait_until("the agent", lambda: made.agent_status() == "connected")
        yield made
    finally:
        made.close()


def secured(place: Path, node: dict[str, object]) -> tuple[list[str], str]:
    """Give a relay a certificate of its own, and its node in the map the pin."""
    certificate, key = self_signed(["127.0.0.1"])
    (place / "127.0.0.1.crt").write_text(certificate)
    (place / "127.0.0.1.key").write_text(key)
    node["CertName"] = certificate_pin(certificate.encode())
    return ["-certmode", "manual", "-certdir", str(place), "-hostname", "127.0.0.1"], "https"


ANYBODY = ssl._create_unverified_context()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5, context=ANYBODY) as answer:
            return answer.status == 200
    except OSError:
        return False


def carried(outside: Deployment) -> int:
    with urllib.request.urlopen(f"{outside.relay_url}/debug/vars", timeout=5, context=ANYBODY) as answer:
        return json.load(answer)["derp"]["bytes_received"]


@pytest.mark.parametrize("direction", ["down", "up"])
def test_our_nodes_move_data_through_a_relay_of_another_maker(outside, direction):
    before = carried(outside)
    result = outside.json("--disable-direct-connections", "speedtest", "dev", "-t", "1s", "--direction", direction)
    assert result["path"]["kind"] == "relay"
    assert carried(outside) - before > 100_000


def test_its_stun_server_helps_our_nodes_to_a_direct_path(outside):
    done = outside.run("ping", "dev", "-n", "2")
    assert done.returncode == 0, done.stderr
    assert "p2p via" in done.stdout
    relayed = outside.run("--disable-direct-connections", "ping", "dev", "-n", "1")
    assert "proxied via DERP(Outside)" in relayed.stdout


def test_our_nodes_return_to_a_relay_that_restarts(outside):
    process = outside.processes["derper"]
    command = process.args
    outside.stop("derper", kill=True)
    with (outside.place / "derper.log").open("ab") as log:
        outside.processes["derper"] = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    wait_until("the relay", lambda: answers(f"{outside.relay_url}/derp/probe"))
    result = outside.json("--disable-direct-connections", "speedtest", "dev", "-t", "1s")
    assert result["overall"]["throughput_mbits"] > 0
