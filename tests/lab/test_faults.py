"""What goes wrong on purpose under an open stream: it survives, byte for byte, and goes on soon.

Each scenario has a bound, in seconds, that stands beside the measured figure; a test fails at ten times it.
"""

import signal
import time

import pytest

from lab.deployment import NAMES, Lab, Probe
from lab.figures import DIRECT, FIRST_BYTE, HANG, Fault
from lab.topology import BLOCKED, EASY, HARD, ROUTED, Host, Internet, Router

pytestmark = pytest.mark.lab

FALLBACK = 3.0
"""From a direct path going dark to the stream going on over the relay."""
TOLD = 3.0
"""From a move to the peer knowing the new endpoints, through the coordinator."""
UPGRADE = 0.5
"""The stall a stream may feel when its path becomes direct."""
RETURN = 5.0
"""From the end of an outage to the stream going on."""


def chosen(cases: list) -> list:
    """The first case stands for all of them; the others are for the whole lab."""
    return [
        cases[0],
        *(
            pytest.param(*case, marks=pytest.mark.whole)
            if isinstance(case, tuple)
            else pytest.param(case, marks=pytest.mark.whole)
            for case in cases[1:]
        ),
    ]


@pytest.fixture
def net():
    with Internet(NAMES) as made:
        yield made


@pytest.fixture
def lab(net, tmp_path):
    with Lab(net, tmp_path) as made:
        yield made


def start(probe: Probe, path: str) -> None:
    """Wait for a stream that runs over the kind of path it is to have."""
    probe.until("first_byte", FIRST_BYTE * HANG)
    if path == "direct":
        probe.until("path", DIRECT * HANG, kind="direct")
    else:
        probe.listen(0.5)
        assert probe.path == path


def goes_on(probe: Probe, since: float, bound: float) -> float:
    """Wait until what is sent now comes back; seconds since a moment of the monotonic clock."""
    return round(probe.passes(bound * HANG) - since, 3)


def knows(probe: Probe, since: float, address: str, fault: Fault) -> None:
    """Wait until the coordinator has told the client that the agent is to be found at an address."""
    starts = (f"{address}:", f"[{address}]:")
    news = probe.when(
        lambda event: event["what"] == "peer" and any(one.startswith(starts) for one in event["endpoints"]),
        TOLD * HANG,
        f"an endpoint at {address}",
    )
    fault.seconds = round(news["at"] - since, 3)


class Pair:
    """A client and an agent, with the routers before them."""

    def __init__(self, net: Internet, lab: Lab, path: str, *, v6: bool = False) -> None:
        nat = ROUTED if v6 else EASY if path == "direct" else HARD
        self.homes = [net.router(name, nat, v4=not v6, v6=v6) for name in ("home", "office")]
        self.alice, self.bob = (home.host(name) for home, name in zip(self.homes, ("alice", "bob"), strict=True))
        self.path = path
        lab.agent("dev", self.bob)


def cut(hosts: list[Host | Router]) -> None:
    """Drop whatever arrives at hosts and whatever leaves them."""
    for host in hosts:
        host.nft(
            "table inet cut {\n"
            "chain arriving { type filter hook prerouting priority -310; iifname wan drop; }\n"
            "chain leaving { type filter hook postrouting priority 310; oifname wan drop; }\n"
            "}\n"
        )


def mend(hosts: list[Host | Router]) -> None:
    for host in hosts:
        host.nft("delete table inet cut\n")


def test_becoming_direct_interrupts_nothing(net, lab, figures):
    pair = Pair(net, lab, "direct")
    stall, wait = figures.fault("upgrade: stall", UPGRADE), figures.fault("upgrade: direct once UDP passes", 30)
    pair.homes[0].swallow_udp()
    with lab.probe("dev", pair.alice) as probe:
        start(probe, "relay")
        pair.homes[0].swallow_nothing()
        open_since = time.monotonic()
        direct = probe.after(open_since, "path", 60, kind="direct")
        wait.seconds = round(direct["at"] - open_since, 3)
        probe.listen(1)
        stall.seconds = probe.longest_stall(open_since)
        probe.finish()
        assert probe.path == "direct"
    assert stall.seconds < UPGRADE * HANG


def test_a_dark_direct_path_gives_way_to_the_relay_and_comes_back(net, lab, figures):
    pair = Pair(net, lab, "direct")
    dark, back = figures.fault("dark: relayed after", FALLBACK), figures.fault("dark: direct again after", 30)
    with lab.probe("dev", pair.alice) as probe:
        start(probe, "direct")
        dark_since = time.monotonic()
        pair.homes[0].swallow_udp()
        dark.seconds = goes_on(probe, dark_since, FALLBACK)
        probe.after(dark_since, "path", FALLBACK * HANG, kind="relay")
        pair.homes[0].swallow_nothing()
        back_since = time.monotonic()
        back.seconds = round(probe.after(back_since, "path", 60, kind="direct")["at"] - back_since, 3)
        probe.finish()
        assert probe.path == "direct"


@pytest.mark.parametrize(
    ("side", "path"), chosen([("agent", "relay"), ("agent", "direct"), ("client", "relay"), ("client", "direct")])
)
def test_five_seconds_without_a_network(net, lab, figures, path, side):
    pair = Pair(net, lab, path)
    fault = figures.fault(f"outage of 5 s, {side}'s, {path}: over after", RETURN)
    cut_off = [pair.alice if side == "client" else pair.bob]
    with lab.probe("dev", pair.alice) as probe:
        start(probe, path)
        cut(cut_off)
        probe.listen(5)
        mend(cut_off)
        fault.seconds = goes_on(probe, time.monotonic(), RETURN)
        probe.finish()


@pytest.mark.parametrize(
    ("family", "side", "path"),
    chosen([(family, side, path) for family in (4, 6) for side in ("client", "agent") for path in ("relay", "direct")]),
)
def test_another_address(net, lab, figures, family, side, path):  # noqa: PLR0917 - pytest calls it by name
    """A new lease: the old address is gone, the wire is the same."""
    pair = Pair(net, lab, "direct", v6=family == 6)
    name = f"new address, {side}'s, IPv{family}, {path}"
    fault = figures.fault(f"{name}: over after", RETURN)
    told = figures.fault(f"{name}: the peer knows after", TOLD) if side == "agent" else None
    if path == "relay":
        pair.homes[0].swallow_udp()
    with lab.probe("dev", pair.alice) as probe:
        start(probe, path)
        moved = time.monotonic()
        (pair.alice if side == "client" else pair.bob).readdress()
        fault.seconds = goes_on(probe, moved, RETURN)
        if told is not None:
            knows(probe, moved, pair.bob.v6 if family == 6 else pair.bob.v4, told)
        probe.finish()


@pytest.mark.parametrize("side", chosen(["agent", "client"]))
def test_another_network(net, lab, figures, side):
    """From one router's LAN into another's, whose addresses may be the same."""
    pair = Pair(net, lab, "direct")
    fault = figures.fault(f"roaming to another network, {side}'s: over after", RETURN)
    told = figures.fault("roaming to another network, agent's: the peer knows after", TOLD) if side == "agent" else None
    elsewhere = net.router("elsewhere")
    host = pair.alice if side == "client" else pair.bob
    with lab.probe("dev", pair.alice) as probe:
        start(probe, "direct")
        moved = time.monotonic()
        host.unplug()
        elsewhere.connect(host)
        fault.seconds = goes_on(probe, moved, RETURN)
        probe.after(moved, "path", 60, kind="direct")
        if told is not None:
            knows(probe, moved, elsewhere.v4, told)
        probe.finish()


@pytest.mark.whole
@pytest.mark.parametrize("path", ["relay", "direct"])
def test_another_way_out(net, lab, figures, path):
    """A second interface takes the default route; the first stays, with its address."""
    pair = Pair(net, lab, "direct")
    fault = figures.fault(f"another interface has the default route, client's, {path}: over after", RETURN)
    dock = net.router("dock", EASY if path == "direct" else BLOCKED, lan="192.168.7")
    if path == "relay":
        pair.homes[0].swallow_udp()
    with lab.probe("dev", pair.alice) as probe:
        start(probe, path)
        moved = time.monotonic()
        dock.connect(pair.alice, device="dock")
        fault.seconds = goes_on(probe, moved, RETURN)
        probe.finish()


def test_a_line_that_loses_delays_and_reorders(net, lab, figures):
    fault = figures.fault("3 % lost in bursts, 2 % overtaken, 40 ms there and back: longest stall", 1.0)
    lab.agent("dev", net.host("bob"))
    bad = ("seed=5", "delay 20ms", "jitter 2ms", "loss 0.03", "burst 3", "reorder 0.02", "hold 8ms", "rate 50m")
    alice = net.router("home", link=bad).host("alice")
    with lab.probe("dev", alice) as probe:
        start(probe, "direct")
        probe.passes(FIRST_BYTE * HANG)
        fault.seconds = probe.finish()["longest"]


@pytest.mark.parametrize("path", chosen(["relay", "direct"]))
def test_a_suspended_agent(net, lab, figures, path, pytestconfig):
    seconds = 60 if pytestconfig.getoption("--whole", default=False) else 6
    pair = Pair(net, lab, path)
    fault = figures.fault(f"agent suspended for {seconds} s, {path}: over after", RETURN)
    with lab.probe("dev", pair.alice) as probe:
        start(probe, path)
        lab.processes["dev"].send_signal(signal.SIGSTOP)
        probe.listen(seconds)
        lab.processes["dev"].send_signal(signal.SIGCONT)
        fault.seconds = goes_on(probe, time.monotonic(), RETURN)
        probe.finish()


@pytest.mark.parametrize("kill", chosen([True, False]))
def test_a_restarted_server_under_a_relayed_stream(net, lab, figures, kill):
    pair = Pair(net, lab, "relay")
    fault = figures.fault(f"server {'killed' if kill else 'stopped'} and started, relay: over after", RETURN)
    with lab.probe("dev", pair.alice) as probe:
        start(probe, "relay")
        lab.stop("server", kill=kill)
        lab.start_server()
        fault.seconds = goes_on(probe, time.monotonic(), RETURN)
        probe.finish()


def test_a_restarted_server_is_not_felt_by_a_direct_stream(net, lab, figures):
    pair = Pair(net, lab, "direct")
    fault = figures.fault("server killed and started, direct: stall", UPGRADE)
    with lab.probe("dev", pair.alice) as probe:
        start(probe, "direct")
        killed = time.monotonic()
        lab.stop("server", kill=True)
        lab.start_server()
        probe.listen(2)
        fault.seconds = probe.longest_stall(killed)
        probe.finish()
        assert probe.path == "direct"
    assert fault.seconds < UPGRADE * HANG


@pytest.mark.whole
def test_a_path_that_stops_carrying_long_packets(net, lab, figures):
    """A PMTU black hole opens under a direct stream: it moves to the relay."""
    pair = Pair(net, lab, "direct")
    fault = figures.fault("PMTU black hole opens: relayed after", FALLBACK)
    with lab.probe("dev", pair.alice) as probe:
        start(probe, "direct")
        opened = time.monotonic()
        pair.homes[0].swallow_udp(longer_than=1280)
        fault.seconds = goes_on(probe, opened, FALLBACK)
        probe.after(opened, "path", FALLBACK * HANG, kind="relay")
        probe.finish()


@pytest.mark.whole
def test_a_path_that_never_carried_long_packets_is_not_chosen(net, lab, figures):
    pair = Pair(net, lab, "direct")
    fault = figures.fault("PMTU black hole from the start: first byte", FIRST_BYTE)
    pair.homes[0].swallow_udp(longer_than=1280)
    with lab.probe("dev", pair.alice) as probe:
        start(probe, "relay")
        fault.seconds = probe.seconds("first_byte")
        probe.listen(DIRECT)
        probe.finish()
        assert probe.path == "relay"
