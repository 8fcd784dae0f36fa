"""The default route, as Linux tells it."""

from ipaddress import IPv4Address

import pytest

from coder.peering.gateways import default_network, route_changes
from coder.tailnet.portmap.values import Network

HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
LOOPBACK = "lo\t00000000\t0100007F\t0003\t0\t0\t{metric}\t00000000\t0\t0\t0\n"
OTHER = "lo\t00000000\t0200007F\t0003\t0\t0\t{metric}\t00000000\t0\t0\t0\n"
LAN = "lo\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
TUNNEL = "lo\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n"
DOWN = "lo\t00000000\t0100007F\t0002\t0\t0\t0\t00000000\t0\t0\t0\n"
HALF = "lo\t00000000\t0300007F\t0003\t0\t0\t0\t00000080\t0\t0\t0\n"
ONE, TWO = IPv4Address("127.0.0.1"), IPv4Address("127.0.0.2")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((LAN, LOOPBACK.format(metric=100)), ONE),
        ((LOOPBACK.format(metric=600), OTHER.format(metric=100)), TWO),
        ((HALF, DOWN, TUNNEL, "garbage\n", "lo\tzz\n", OTHER.format(metric=1)), TWO),
        ((LAN, TUNNEL, DOWN, HALF), None),
        ((), None),
    ],
)
def test_the_route_with_the_least_metric_counts(tmp_path, lines, expected):
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "proc/net/route").write_text(HEAD + "".join(lines))
    assert default_network(tmp_path) == (Network(expected, ONE) if expected is not None else None)


def test_a_system_without_such_a_table_has_no_gateway(tmp_path):
    assert default_network(tmp_path) is None


def test_changes_are_told_without_privileges():
    watch = route_changes()
    assert watch is not None
    watch.close()
