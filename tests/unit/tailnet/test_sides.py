import pytest

from coder.tailnet.diagnosis import Nat, Side
from coder.tailnet.sides import Extra, Interface, load_interfaces, side
from coder.wire.netinfo import NetInfo

LAN = Interface(name="eth0", mtu=1500, addresses=("192.168.7.7/24", "fe80::1/64", "nonsense"))
PUBLIC = Interface(name="eth0", mtu=1500, addresses=("198.51.100.4/24",))
WORKS = NetInfo(working_udp=True, working_ipv6=False, mapping_varies_by_dest_ip=False)
HARD = NetInfo(working_udp=True, working_ipv6=False, mapping_varies_by_dest_ip=True)


@pytest.mark.parametrize(
    ("info", "endpoints", "interfaces", "nat", "public"),
    [
        (WORKS, ("192.168.7.7:4", "203.0.113.7:4"), (LAN,), Nat.EASY, "203.0.113.7"),
        (HARD, ("192.168.7.7:4", "203.0.113.7:4"), (LAN,), Nat.HARD, "203.0.113.7"),
        (WORKS, ("198.51.100.4:4",), (PUBLIC,), Nat.NONE, ""),
        (WORKS, ("192.168.7.7:4", "10.1.1.1:4"), (LAN,), Nat.EASY, "10.1.1.1"),
        (WORKS, ("192.168.7.7:4", "203.0.113.7:4"), (), Nat.EASY, "203.0.113.7"),
        (WORKS, (), (), Nat.EASY, ""),
        (WORKS, (), (LAN,), Nat.UNKNOWN, ""),
        (NetInfo(working_udp=True), ("192.168.7.7:4", "203.0.113.7:4"), (LAN,), Nat.UNKNOWN, "203.0.113.7"),
        (NetInfo(working_udp=False, mapping_varies_by_dest_ip=True), (), (LAN,), Nat.UNKNOWN, ""),
        (NetInfo(), ("203.0.113.7:4",), (LAN,), Nat.UNKNOWN, "203.0.113.7"),
    ],
)
def test_the_nat_is_told_from_what_others_see(info, endpoints, interfaces, nat, public):
    found = side(info, endpoints=endpoints, interfaces=interfaces)
    assert (found.nat, found.public) == (nat, public)


@pytest.mark.parametrize(
    ("info", "endpoints", "extra", "families"),
    [
        (WORKS, (), Extra(), {4}),
        (NetInfo(working_udp=True, working_ipv6=True), (), Extra(), {6}),
        (NetInfo(working_udp=True, working_ipv6=True), ("203.0.113.7:4",), Extra(), {4, 6}),
        (NetInfo(working_udp=True, working_ipv6=True), (), Extra(ipv4=True), {4, 6}),
        (NetInfo(working_udp=True, working_ipv6=False), (), Extra(ipv4=False), set()),
        (NetInfo(working_udp=True), ("[2001:db8::1]:4", "192.168.7.7:4", "[fd00::1]:4"), Extra(), {6}),
        (NetInfo(), ("nonsense", ""), Extra(), set()),
    ],
)
def test_ip_versions_come_from_stun_and_from_addresses_that_mean_something_outside(info, endpoints, extra, families):
    assert side(info, endpoints=endpoints, interfaces=(LAN,), extra=extra).families == families


def test_an_ipv6_address_that_gets_no_answer_where_others_do_is_none():
    assert side(WORKS, endpoints=("[2001:db8::1]:4",), interfaces=(), stun_by_ipv6=True).families == {4}
    assert side(WORKS, endpoints=("[2001:db8::1]:4",), interfaces=()).families == {4, 6}


def test_a_side_that_offers_nothing_although_it_could_wants_no_direct_connections():
    assert side(WORKS, endpoints=(), interfaces=()).blocks
    assert not side(WORKS, endpoints=(), interfaces=(), extra=Extra(blocks=False)).blocks
    assert not side(NetInfo(working_udp=False), endpoints=(), interfaces=()).blocks
    assert side(WORKS, endpoints=("203.0.113.7:4",), interfaces=(), extra=Extra(blocks=True)).blocks


@pytest.mark.parametrize(
    ("info", "extra", "mapping", "public"),
    [
        (NetInfo(have_port_map=True, upnp=True), Extra(), "upnp", True),
        (NetInfo(have_port_map=True, upnp=False, pmp=True), Extra(), "pmp", True),
        (NetInfo(have_port_map=True), Extra(), "unknown", True),
        (NetInfo(upnp=True), Extra(), "", True),
        (NetInfo(), Extra(mapping="pcp", mapping_external="203.0.113.7:4"), "pcp", True),
        (NetInfo(), Extra(mapping="pcp", mapping_external="100.64.3.4:4"), "pcp", False),
        (NetInfo(), Extra(mapping="pcp", mapping_external="192.168.0.2:4"), "pcp", False),
        (NetInfo(), Extra(double_nat=True), "", False),
    ],
)
def test_a_mapping_counts_when_its_outside_is_the_internet(info, extra, mapping, public):
    found = side(info, endpoints=(), interfaces=(), extra=extra)
    assert (found.mapping, found.mapping_public) == (mapping, public)


def test_narrow_interfaces_are_noted():
    narrow = Interface(name="wg0", mtu=1280, addresses=())
    unknown = Interface(name="odd0", mtu=0, addresses=())
    assert side(WORKS, endpoints=(), interfaces=(LAN, narrow, unknown)).low_mtu == (("wg0", 1280),)


FULL = Extra(
    ipv4=True, mapping="upnp", mapping_external="203.0.113.7:4", double_nat=True, blocks=False, port=41641, heard=True
)


@pytest.mark.parametrize("extra", [FULL, Extra(), Extra(blocks=True, heard=False)])
def test_what_an_agent_adds_survives_the_wire(extra):
    assert Extra.load(extra.dump()) == extra


@pytest.mark.parametrize(
    "value",
    [None, [], 7, "x", {"ipv4": "yes", "udp_port": 70000, "port_mapping": [1]}, {"port_mapping": {"protocol": 7}}],
)
def test_what_does_not_fit_is_unknown(value):
    assert Extra.load(value) == Extra()


def test_a_peers_words_do_not_reach_the_terminal_raw():
    loaded = Extra.load({"port_mapping": {"protocol": "\x1b[2Jupnp" + "x" * 100}})
    assert loaded.mapping.startswith("[2Jupnp")
    assert len(loaded.mapping) == 64


def test_interfaces_are_read_and_odd_ones_left_out():
    value = {
        "interfaces": [
            {"name": "eth0", "mtu": 1500, "addresses": ["10.0.0.2/24", 7]},
            {"name": "up\n0", "mtu": 1280, "addresses": None},
            {"name": "x", "mtu": "1500"},
            {"name": "y", "mtu": 1500, "addresses": 3},
            "eth1",
        ]
    }
    assert load_interfaces(value) == (
        Interface(name="eth0", mtu=1500, addresses=("10.0.0.2/24",)),
        Interface(name="up0", mtu=1280, addresses=()),
    )
    assert load_interfaces(None) == load_interfaces({"interfaces": 4}) == ()


def test_nothing_known_at_all():
    assert side(NetInfo(), endpoints=(), interfaces=()) == Side()
