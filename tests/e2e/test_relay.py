"""`coder relay`: regions beside the server's, with certificates of their own; and a relay for known clients only."""

import json
import re
import threading
import urllib.request

import pytest

from coder.dataplane.edge import certificate_pin
from e2e.connect_proxy import ConnectProxy
from e2e.deployment import Deployment, sign_in, wait_until

pytestmark = pytest.mark.e2e


def start_relay(made: Deployment, name: str, *flags: str) -> dict[str, str]:
    """Start a relay, and return what it announces by the words in front."""
    address = () if "--tls-address" in flags else ("--tls-address", "127.0.0.1:0")
    made.start(
        name,
        *("relay", *address, "--tls-self-signed", str(made.place / "tls"), "--stun-port", "0"),
        *("--metrics-address", "127.0.0.1:0", *flags),
    )
    wait_until(f"{name}'s pin", lambda: "Pin " in made.log(name))
    return dict(line.split(maxsplit=1) for line in made.log(name).splitlines()[:5])


def node(name: str, announced: dict[str, str]) -> dict[str, object]:
    return {
        "Name": name,
        "RegionID": 900,
        "HostName": "127.0.0.1",
        "IPv6": "none",
        "DERPPort": int(announced["Relay"].rpartition(":")[2]),
        "STUNPort": int(announced["STUN"].split()[-1]),
        "CertName": re.search(r"sha256-raw:\w+", announced["Pin"])[0],
    }


def metric(announced: dict[str, str], name: str) -> int:
    with urllib.request.urlopen(announced["Metrics"], timeout=10) as answer:
        return int(re.search(rf"^coder_edge_{name}(?:_total)? (\d+)$", answer.read().decode(), re.MULTILINE)[1])


@pytest.fixture(scope="module")
def region(tmp_path_factory):
    """Two meshed relays of one region, a server that is none itself, and an agent."""
    made = Deployment(tmp_path_factory.mktemp("region"))
    (made.place / "mesh").write_text("0123456789abcdef" * 4 + "\n")
    mesh = ("--mesh-key-file", str(made.place / "mesh"))
    try:
        one = start_relay(made, "one", *mesh)
        pin = node("900a", one)["CertName"]
        two = start_relay(made, "two", *mesh, "--mesh-with", f"https://{one['Relay']}", "--mesh-cert-name", str(pin))
        region = {"RegionID": 900, "RegionCode": "own", "RegionName": "Our own"}
        document = {"Regions": {"900": region | {"Nodes": [node("900a", one), node("900b", two)]}}}
        path = made.place / "map.json"
        path.write_text("// Our own relays.\n" + json.dumps(document))
        made.ok("derpmap", "validate", str(path))
        made.start_server("", "--derp-server-enable=false", "--derp-config-path", str(path))
        sign_in(made)
        made.ok("create", "dev", "--output-token-file", str(made.place / "token"))
        made.start_agent()
        wait_until("the agent", lambda: made.agent_status() == "connected")
        yield made, one, two
    finally:
        made.close()


def test_data_moves_through_a_relay_that_is_known_by_its_pin(region):
    made, one, _ = region
    before = metric(one, "relay_packets")
    result = made.json("--disable-direct-connections", "speedtest", "dev", "-t", "1s")
    assert result["path"]["kind"] == "relay"
    assert metric(one, "relay_packets") > before + 100


def test_relays_of_a_region_are_linked(region):
    _, _, two = region
    wait_until("the link", lambda: metric(two, "relay_links") == 1)


def test_the_pin_stays_and_is_that_of_the_file(region):
    made, one, two = region
    pin = certificate_pin((made.place / "tls" / "relay-cert.pem").read_bytes())
    assert pin in one["Pin"]
    assert pin in two["Pin"]


@pytest.fixture
def proxy():
    with ConnectProxy() as proxy:
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        yield proxy
        proxy.shutdown()
        thread.join()


def test_relays_are_reached_through_the_proxy_unless_they_are_spared(region, proxy):
    made, one, _ = region
    relay = ("--disable-direct-connections", "speedtest", "dev", "-t", "1s", "-o", "json")
    made.ok(*relay, HTTPS_PROXY=proxy.url, NO_PROXY="127.0.0.1")
    assert proxy.tunnels == []
    made.ok(*relay, HTTPS_PROXY=proxy.url)
    assert set(proxy.tunnels) >= {one["Relay"]}
    assert proxy.refused == 0


def test_clients_move_to_the_next_relay_and_are_reached_there_through_the_first_when_it_is_back(region):
    made, one, two = region
    wait_until("the agent somewhere", lambda: metric(one, "relay_at_home") + metric(two, "relay_at_home") > 0)
    assert made.stop("one") == 0
    wait_until("the agent at the second relay", lambda: metric(two, "relay_at_home") > 0)
    relayed = ("--disable-direct-connections", "speedtest", "dev", "-t", "1s")
    assert made.json(*relayed)["path"]["kind"] == "relay"
    # It comes back at the same address, and knows of the other's clients.
    mesh = ("--mesh-key-file", str(made.place / "mesh"), "--mesh-with", f"https://{two['Relay']}")
    name = node("", one)["CertName"]
    back = start_relay(made, "one again", "--tls-address", one["Relay"], *mesh, "--mesh-cert-name", str(name))
    made.processes["one"] = made.processes.pop("one again")
    one.update(back)
    wait_until("the link", lambda: metric(one, "relay_links") == 1)
    before = metric(one, "relay_forwarded")
    assert made.json(*relayed)["path"]["kind"] == "relay"
    assert metric(one, "relay_forwarded") > before + 100


def test_a_relay_that_wants_to_know_its_clients_serves_those_of_the_coordinator(tmp_path):
    made = Deployment(tmp_path)
    try:
        made.start_server("", "--derp-verify-clients")
        sign_in(made)
        made.ok("create", "dev", "--output-token-file", str(made.place / "token"))
        made.start_agent()
        wait_until("the agent", lambda: made.agent_status() == "connected")
        # 200 packets per second and more: a trickle would not do.
        result = made.json("--disable-direct-connections", "speedtest", "dev", "-t", "2s")
        assert result["overall"]["throughput_mbits"] > 10
    finally:
        made.close()


def test_an_authority_of_ones_own_is_trusted_by_the_usual_variable(tmp_path, monkeypatch):
    made = Deployment(tmp_path)
    try:
        announced = start_relay(made, "relay", "--hostname", "127.0.0.1")
        entry = {key: value for key, value in node("900a", announced).items() if key != "CertName"}
        region = {"RegionID": 900, "RegionCode": "own", "RegionName": "Our own", "Nodes": [entry]}
        (tmp_path / "map.json").write_text(json.dumps({"Regions": {"900": region}}))
        made.start_server("", "--derp-server-enable=false", "--derp-config-path", str(tmp_path / "map.json"))
        sign_in(made)
        made.ok("create", "dev", "--output-token-file", str(tmp_path / "token"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "tls" / "relay-cert.pem"))
        made.start_agent()
        wait_until("the agent", lambda: made.agent_status() == "connected")
        result = made.json("--disable-direct-connections", "speedtest", "dev", "-t", "1s")
        assert result["path"]["kind"] == "relay"
    finally:
        made.close()
