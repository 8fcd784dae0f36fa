"""Every kind of pair gets the verdict written down here, from real processes in real networks."""

import json

import pytest

from lab.kinds import KINDS
from lab.topology import EASY

pytestmark = pytest.mark.lab

EXIT = {"direct": 0}
RELAYED = 3

STANDING = [
    ("easy", "easy", "direct"),
    ("hard", "hard", "hard_nat_both"),
    ("blocked", "none", "udp_blocked_client"),
    ("easy", "v6", "no_common_family"),
    ("mtu-1280", "none", "path_mtu"),
]

WHOLE = [
    ("none", "none", "direct"),
    ("none", "hard", "direct"),
    ("address", "hard", "direct"),
    ("cgn", "double", "direct"),
    ("v6", "both", "direct"),
    ("no-v6", "both", "direct"),
    ("dead-ends", "dead-ends", "direct"),
    ("easy", "blocked", "udp_blocked_agent"),
    ("blocked", "blocked", "udp_blocked_both"),
    ("v6", "easy", "no_common_family"),
    ("no-v4", "no-v6", "no_common_family"),
    ("none", "mtu-1280", "path_mtu"),
    ("far", "easy", "direct"),
]


def examine(lab, workspace, place):
    """Run the command; return its status and what it printed."""
    done = lab.run("doctor", workspace, "-o", "json", place=place)
    assert not done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


def assert_verdict(lab, workspace, place, code):
    status, found = examine(lab, workspace, place)
    diagnosis = found["diagnosis"]
    assert diagnosis["verdict"]["code"] == code, found
    assert status == EXIT.get(code, RELAYED)
    assert bool(diagnosis["verdict"]["remedy"]) is (code != "direct")


@pytest.mark.parametrize(
    ("client", "agent", "code"), [*STANDING, *(pytest.param(*pair, marks=pytest.mark.whole) for pair in WHOLE)]
)
def test_verdict(world, client, agent, code):
    assert_verdict(world.lab, world.agent(KINDS[agent]), world.client(KINDS[client]), code)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("client", "agent", "code"), [("easy", "hard", "hard_nat_agent"), ("hard", "easy", "hard_nat_client")]
)
def test_a_guessed_port_may_make_it_direct(world, client, agent, code):
    """Many probes meet in most tries; where they do not, the reason is the hard NAT."""
    status, found = examine(world.lab, world.agent(KINDS[agent]), world.client(KINDS[client]))
    assert (status, found["diagnosis"]["verdict"]["code"]) in {(0, "direct"), (RELAYED, code)}


@pytest.mark.whole
def test_hosts_kept_apart_behind_one_nat(world):
    router = world.net.router("apart", EASY)
    world.lab.agent("apart", router.host("bob", isolated=True))
    assert_verdict(world.lab, "apart", router.host("alice", isolated=True), "same_nat")


@pytest.mark.whole
def test_a_firewall_that_lets_udp_out_to_the_server_only(world):
    host = world.net.host("strict")
    server = world.lab.host.v4
    rule = f"ip daddr != {server} meta l4proto udp drop"
    host.nft(f"table inet strict {{\nchain out {{\ntype filter hook output priority 0\n{rule}\n}}\n}}\n")
    assert_verdict(world.lab, world.agent(KINDS["none"]), host, "firewall_agent")


def test_every_kind_of_place_has_a_verdict():
    seen = {name for client, agent, _ in [*STANDING, *WHOLE] for name in (client, agent)}
    assert set(KINDS) <= seen
