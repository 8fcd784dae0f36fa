import pytest

from coder.wire import netinfo
from coder.wire.netinfo import NetInfo

FULL = NetInfo(
    mapping_varies_by_dest_ip=True, hair_pinning=False, working_ipv6=False, os_has_ipv6=True, working_udp=True,
    working_icmpv4=None, have_port_map=True, upnp=True, pmp=False, pcp=False, preferred_derp=999,
    derp_latency={"999-v4": 0.0012},
)  # fmt: skip
JSON = {
    "MappingVariesByDestIP": True, "HairPinning": False, "WorkingIPv6": False, "OSHasIPv6": True, "WorkingUDP": True,
    "WorkingICMPv4": None, "UPnP": True, "PMP": False, "PCP": False, "HavePortMap": True, "PreferredDERP": 999,
    "DERPLatency": {"999-v4": 0.0012},
}  # fmt: skip


def test_both_directions():
    assert netinfo.dump(FULL) == JSON
    assert netinfo.load(JSON) == FULL


def test_nothing_known():
    assert netinfo.load(netinfo.dump(NetInfo())) == NetInfo()
    assert "HavePortMap" not in netinfo.dump(NetInfo())
    assert "DERPLatency" not in netinfo.dump(NetInfo())


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "text",
        3,
        {},
        {"WorkingUDP": "yes"},
        {"PreferredDERP": True, "DERPLatency": 4},
        {"DERPLatency": {"1": "x"}},
    ],
)
def test_what_does_not_fit_is_unknown(value):
    assert netinfo.load(value) == NetInfo()
