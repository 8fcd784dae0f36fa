"""Any two kinds of place: connected at once, direct wherever disco's rules allow it, byte for byte."""

import pytest

from lab.deployment import Lab
from lab.figures import ALLOWED, DIRECT, FIRST_BYTE, GUESS, HANG
from lab.kinds import KINDS, expected
from lab.topology import EASY, HAIRPIN

pytestmark = pytest.mark.lab

STANDING_FOR_ALL = {
    *(("none", "none"), ("none", "hard"), ("easy", "easy"), ("easy", "hard"), ("address", "hard"), ("hard", "address")),
    *(
        ("hard", "hard"),
        ("hard", "easy"),
        ("double", "easy"),
        ("cgn", "double"),
        ("blocked", "none"),
        ("easy", "blocked"),
    ),
    *(("v6", "both"), ("v6", "no-v4"), ("no-v4", "no-v6"), ("easy", "v6"), ("dead-ends", "dead-ends")),
    *(("mtu-1280", "none"), ("none", "mtu-1280"), ("no-v6", "both"), ("far", "easy"), ("hard", "far")),
}
"""Every kind on either side and every rule once."""


@pytest.fixture
def settle(pytestconfig):
    """Seconds a relayed stream is watched: those that becoming direct may take, or what it takes as a rule."""
    return DIRECT if pytestconfig.getoption("--whole", default=False) else 1.0


def measure(lab: Lab, workspace: str, client, cell, settle: float) -> None:
    """Open a stream and fill in the cell. A relayed one gets the time in which it would have become direct."""
    with lab.probe(workspace, client) as probe:
        probe.until("first_byte", FIRST_BYTE * HANG)
        cell.first_byte = probe.seconds("first_byte")
        cell.first_packet = probe.seconds("introduced")
        if cell.expected == "direct":
            probe.until("path", DIRECT * HANG, kind="direct")
        elif cell.expected == "guess":
            probe.hopes("path", GUESS, kind="direct")
        else:
            probe.listen(settle)
        cell.stall = probe.finish()["longest"]
        cell.seen = probe.path
        if (direct := probe.seconds("path", kind="direct")) is not None:
            cell.direct = round(max(direct - cell.first_packet, 0.0), 3)
    assert cell.seen in ALLOWED[cell.expected]


def pairs():
    for client in KINDS:
        for agent in KINDS:
            marks = [] if (client, agent) in STANDING_FOR_ALL else [pytest.mark.whole]
            yield pytest.param(client, agent, marks=marks, id=f"{client}-to-{agent}")


@pytest.mark.parametrize(("client", "agent"), list(pairs()))
def test_pair(world, figures, client, agent, settle):
    client, agent = KINDS[client], KINDS[agent]
    cell = figures.cell(client.name, agent.name, expected(client, agent))
    measure(world.lab, world.agent(agent), world.client(client), cell, settle)


@pytest.mark.parametrize(
    ("name", "nat", "verdict"),
    [("lan", EASY, "direct"), ("hairpin", HAIRPIN, "direct"), ("no-hairpin", EASY, "relay")],
)
def test_both_behind_the_same_nat(world, figures, name, nat, verdict, settle):  # noqa: PLR0917 - pytest calls it by name
    """On one LAN the inside addresses do; hosts kept apart need the router to send back what they send outside."""
    router, isolated = world.net.router(name, nat), name != "lan"
    world.lab.agent(name, router.host("bob", isolated=isolated))
    cell = figures.cell(f"same {name}", name, verdict)
    measure(world.lab, name, router.host("alice", isolated=isolated), cell, settle)
