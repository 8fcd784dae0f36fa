"""A router grants a port: it leads here, is renewed, comes back, is given back, and makes hard with hard direct."""

import sys

import pytest

from lab.deployment import HERE, NAMES, SEARCHED, Lab, Probe
from lab.figures import DIRECT, FIRST_BYTE, HANG
from lab.portmapper import MISSING, PortMapper
from lab.test_doctor import examine
from lab.topology import HARD, Internet

pytestmark = [pytest.mark.lab, pytest.mark.skipif(MISSING is not None, reason=MISSING or "")]

PROTOCOLS = ["PCP", "NAT-PMP", "UPnP"]

SEND = """
import socket, sys
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"hello", (sys.argv[1], int(sys.argv[2])))
"""


@pytest.fixture
def net():
    with Internet(NAMES) as made:
        yield made


class Mapped(Probe):
    """The program `mapped` on a host."""

    def __init__(self, host, place) -> None:
        command = host.inside("env", f"PYTHONPATH={SEARCHED}", sys.executable, HERE / "mapped.py")
        super().__init__(command, None, place / "mapped.log")

    def say(self, line: str) -> None:
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def until_told(self, **facts: object) -> None:
        """Ask for the report until it says so."""
        while not any(facts.items() <= event.items() for event in self.events):
            self.say("report")
            self.next(1)

    def mapped_after(self, moment: float) -> dict:
        return self.when(
            lambda event: event["what"] == "mapped" and event["endpoints"] and event["at"] > moment, 30, "a mapping"
        )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_port_leads_here_is_renewed_and_given_back(net, tmp_path, protocol):
    home, far = net.router("home", HARD), net.host("far")
    alice = home.host("alice")
    router = PortMapper(home, tmp_path, only=protocol)
    with Mapped(alice, tmp_path) as mapped:
        first = mapped.mapped_after(0.0)
        address, port = first["endpoints"][0].split(":")
        assert address == home.v4
        assert mapped.until("report")["via"] == protocol
        assert f"dport {port} dnat" in router.mappings()

        far.run("python3", "-c", SEND, address, port)
        assert mapped.until("heard")["source"] == far.v4

        mapped.say("skip 3700")
        assert mapped.mapped_after(first["at"])["endpoints"] == first["endpoints"]
        assert f"dport {port} dnat" in router.mappings()

        mapped.say("end")
        mapped.until("over")
        assert mapped.process.wait(10) == 0
    assert not router.mappings()


def test_a_restarted_router_is_asked_again_at_once(net, tmp_path):
    home = net.router("home", HARD)
    router = PortMapper(home, tmp_path)
    with Mapped(home.host("alice"), tmp_path) as mapped:
        first = mapped.mapped_after(0.0)
        assert mapped.until("report")["via"] == "PCP"
        mapped.say("skip 60")  # it asks no more often than that
        router.restart()
        again = mapped.mapped_after(first["at"])
        assert again["endpoints"] == first["endpoints"]
        assert router.mappings()


@pytest.mark.parametrize("lan", ["10.0.0", "100.64.0"], ids=["private", "carrier"])
def test_a_router_behind_another_nat_is_said_to_be_one(net, tmp_path, lan):
    home = net.router("isp", HARD, lan=lan).router("home", HARD)
    router = PortMapper(home, tmp_path)
    with Mapped(home.host("alice"), tmp_path) as mapped:
        mapped.until_told(double_nat=True, pcp=True, pmp=True, upnp=True)
        assert not router.mappings()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with Internet(NAMES) as net, Lab(net, tmp_path_factory.mktemp("lab")) as lab:
        yield net, lab


@pytest.mark.parametrize(
    ("side", "protocol"), [*(("agent", protocol) for protocol in PROTOCOLS), ("client", "PCP"), ("client", "UPnP")]
)
def test_hard_with_hard_is_direct_when_one_router_grants_a_port(world, figures, side, protocol):
    (net, lab), name = world, f"{side}-{protocol.lower()}"
    here, there = net.router("here", HARD), net.router("there", HARD)
    PortMapper(there if side == "agent" else here, lab.place, only=protocol)
    labels = {"client": "hard", "agent": "hard"} | {side: f"hard {protocol}"}
    cell = figures.cell(labels["client"], labels["agent"], "direct")
    lab.agent(name, there.host("bob"))
    with lab.probe(name, here.host("alice")) as probe:
        probe.until("first_byte", FIRST_BYTE * HANG)
        cell.first_byte, cell.first_packet = probe.seconds("first_byte"), probe.seconds("introduced")
        probe.until("path", DIRECT * HANG, kind="direct")
        cell.direct = round(probe.seconds("path", kind="direct") - cell.first_packet, 3)
        cell.stall = probe.finish()["longest"]
        cell.seen = probe.path


@pytest.mark.parametrize(("protocol", "name"), [("PCP", "pcp"), pytest.param("UPnP", "upnp", marks=pytest.mark.whole)])
def test_doctor_sees_the_mapping(world, protocol, name):
    net, lab = world
    here, there = net.router("here", HARD), net.router("there", HARD)
    PortMapper(there, lab.place, only=protocol)
    lab.agent(f"seen-{name}", there.host("bob"))
    status, found = examine(lab, f"seen-{name}", here.host("alice"))
    assert status == 0, found
    assert found["diagnosis"]["verdict"]["code"] == "direct"
    assert found["diagnosis"]["agent"]["port_mapping"] == name
    assert found["diagnosis"]["client"]["port_mapping"] is None


def test_doctor_asks_for_no_mapping_where_it_would_not_help(world):
    """The router there is behind another one, so the remedy names the router here."""
    net, lab = world
    here = net.router("here", HARD)
    there = net.router("isp", HARD, lan="100.64.0").router("there", HARD)
    PortMapper(there, lab.place)
    lab.agent("behind", there.host("bob"))
    status, found = examine(lab, "behind", here.host("alice"))
    assert status != 0
    assert found["diagnosis"]["verdict"]["code"] == "hard_nat_both"
    assert "on this machine's router" in found["diagnosis"]["verdict"]["remedy"]


def test_hard_with_hard_stays_relayed_when_mapping_is_off(world):
    net, lab = world
    here, there = net.router("here", HARD), net.router("there", HARD)
    router = PortMapper(here, lab.place)
    lab.agent("off", there.host("bob"))
    with lab.probe("off", here.host("alice"), CODER_DISABLE_PORT_MAPPING="true") as probe:
        probe.until("first_byte", FIRST_BYTE * HANG)
        probe.listen(DIRECT)
        assert probe.path == "relay"
        assert not router.mappings()
        probe.finish()
