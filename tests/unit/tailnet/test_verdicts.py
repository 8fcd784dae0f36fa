from dataclasses import replace

import pytest

from coder.tailnet.diagnosis import Code, Facts, Nat, Side, judge, possible

NONE, EASY, HARD, UNKNOWN = Nat.NONE, Nat.EASY, Nat.HARD, Nat.UNKNOWN
V4 = frozenset({4})
GOOD = Side(udp=True, families=V4, nat=EASY, public="198.51.100.1", port=40000)
OTHER = replace(GOOD, public="203.0.113.2", port=41641)
RELAYED = Facts(client=GOOD, agent=OTHER, direct=False)


def facts(client=None, agent=None, **changes):
    return replace(RELAYED, client=replace(GOOD, **(client or {})), agent=replace(OTHER, **(agent or {})), **changes)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (NONE, NONE, True),
        (NONE, EASY, True),
        (NONE, HARD, True),
        (NONE, UNKNOWN, True),
        (EASY, EASY, True),
        (EASY, HARD, False),
        (EASY, UNKNOWN, None),
        (HARD, HARD, False),
        (HARD, UNKNOWN, None),
        (UNKNOWN, UNKNOWN, None),
    ],
)
def test_which_nats_can_meet(one, other, expected):
    assert possible(one, other) is expected
    assert possible(other, one) is expected


@pytest.mark.parametrize(
    ("client", "agent", "code"),
    [
        (NONE, NONE, Code.FIREWALL),
        (NONE, EASY, Code.FIREWALL),
        (NONE, HARD, Code.FIREWALL),
        (NONE, UNKNOWN, Code.FIREWALL),
        (EASY, NONE, Code.FIREWALL),
        (EASY, EASY, Code.FIREWALL),
        (EASY, HARD, Code.HARD_AGENT),
        (EASY, UNKNOWN, Code.NAT_UNKNOWN),
        (HARD, NONE, Code.FIREWALL),
        (HARD, EASY, Code.HARD_CLIENT),
        (HARD, HARD, Code.HARD_BOTH),
        (HARD, UNKNOWN, Code.NAT_UNKNOWN),
        (UNKNOWN, EASY, Code.NAT_UNKNOWN),
        (UNKNOWN, UNKNOWN, Code.NAT_UNKNOWN),
    ],
)
def test_each_pair_of_nats_that_is_relayed_has_its_reason(client, agent, code):
    verdict = judge(facts({"nat": client}, {"nat": agent}))
    assert verdict.code is code
    assert verdict.remedy


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (facts(direct=True), Code.DIRECT),
        (facts({"nat": HARD}, {"nat": HARD}, direct=True), Code.DIRECT),
        (facts(direct=None), Code.NOT_CONNECTED),
        (facts(client_flag=True, server_blocks=True), Code.BLOCKED_BY_CLIENT),
        (facts(agent={"blocks": True}, server_blocks=True, stun=False), Code.BLOCKED_BY_SERVER),
        (facts(agent={"blocks": True, "udp": False}), Code.BLOCKED_BY_AGENT),
        (facts({"udp": False}, {"udp": False}, stun=False), Code.NO_STUN),
        (facts({"udp": False}, {"udp": False}), Code.UDP_BLOCKED_BOTH),
        (facts({"udp": False}), Code.UDP_BLOCKED_CLIENT),
        (facts({"udp": False}, {"udp": None}), Code.UDP_BLOCKED_CLIENT),
        (facts(agent={"udp": False}), Code.UDP_BLOCKED_AGENT),
        (facts({"families": frozenset({6})}), Code.NO_COMMON_FAMILY),
        (facts({"families": frozenset({6}), "udp": False}), Code.NO_COMMON_FAMILY),
        (facts({"families": frozenset({4, 6})}, {"families": frozenset({6})}), Code.FIREWALL),
        (facts({"families": frozenset()}, {"families": frozenset({6})}), Code.FIREWALL),
        (facts(small_only=True), Code.PATH_MTU),
        (facts({"public": "203.0.113.2"}), Code.SAME_NAT),
        (facts({"public": "203.0.113.2", "nat": HARD}, {"nat": HARD}), Code.SAME_NAT),
        (facts({"public": "203.0.113.2"}, seconds=1.0), Code.PENDING),
        (facts({"public": "203.0.113.2", "nat": NONE}), Code.FIREWALL),
        (facts(seconds=1.0), Code.PENDING),
        (facts({"nat": HARD}, {"nat": HARD}, seconds=1.0), Code.HARD_BOTH),
        (facts({"nat": HARD, "mapping": "upnp"}, {"nat": HARD}), Code.FIREWALL),
        (facts({"nat": HARD, "mapping": "upnp", "mapping_public": False}, {"nat": HARD}), Code.HARD_BOTH),
        (facts({"heard": True}, {"heard": False}), Code.FIREWALL_AGENT),
        (facts({"heard": False}, {"heard": True}), Code.FIREWALL_CLIENT),
        (facts({"heard": False}, {"heard": False}), Code.FIREWALL),
        (facts(agent={"udp": None, "nat": UNKNOWN}, agent_answers=False), Code.AGENT_SILENT),
        (facts({"udp": False}, {"udp": None, "nat": UNKNOWN}, agent_answers=False), Code.UDP_BLOCKED_CLIENT),
    ],
)
def test_the_first_reason_that_fits_is_told(found, code):
    verdict = judge(found)
    assert verdict.code is code
    assert verdict.text
    assert bool(verdict.remedy) is (code is not Code.DIRECT)


def test_a_common_ipv6_makes_nats_no_excuse():
    both = frozenset({4, 6})
    assert judge(facts({"nat": HARD, "families": both}, {"nat": HARD, "families": both})).code is Code.FIREWALL


def test_families_are_named():
    verdict = judge(facts({"families": frozenset({6})}))
    assert verdict.text == "this machine has only IPv6, the workspace only IPv4"
    assert verdict.remedy == "Give this machine IPv4, or the workspace IPv6."


def test_a_narrow_interface_is_named():
    verdict = judge(facts({"low_mtu": (("wg0", 1280),)}, small_only=True))
    assert verdict.text.endswith("(wg0 here carries 1280 bytes)")
    verdict = judge(facts(agent={"low_mtu": (("eth0", 1280), ("wg1", 1350))}))
    assert verdict.code is Code.PATH_MTU
    assert verdict.text == (
        "no full packet gets through directly: eth0 in the workspace carries 1280 bytes, and 1338 are needed"
    )
    assert judge(facts(agent={"low_mtu": (("wg1", 1350),)})).code is Code.FIREWALL
    verdict = judge(facts(path_mtu=1280))
    assert verdict.code is Code.PATH_MTU
    assert "a router on the way carries 1280 bytes" in verdict.text
    assert judge(facts(path_mtu=1500)).code is Code.FIREWALL


@pytest.mark.parametrize(
    ("client_inner", "agent_inner", "remedy"),
    [
        (False, False, "on either router, or forward UDP port 41641 to the workspace's machine."),
        (True, False, "on the workspace's router, or forward UDP port 41641 to the workspace's machine."),
        (False, True, "on this machine's router."),
        (True, True, "Use IPv6 on both sides"),
    ],
)
def test_a_mapping_is_asked_of_a_router_where_it_helps(client_inner, agent_inner, remedy):
    client = {"nat": HARD, "mapping": "pcp" if client_inner else "", "mapping_public": not client_inner}
    agent = {"nat": HARD, "mapping": "pcp" if agent_inner else "", "mapping_public": not agent_inner}
    assert remedy in judge(facts(client, agent)).remedy


def test_every_code_is_reached_by_some_facts():
    cases = [mark.args[1] for mark in test_the_first_reason_that_fits_is_told.pytestmark]
    seen = {judge(found).code for case in cases for found, _ in case}
    seen |= {judge(facts({"nat": one}, {"nat": other})).code for one in Nat for other in Nat}
    assert seen == set(Code)
