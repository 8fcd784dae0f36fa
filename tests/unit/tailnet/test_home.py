"""Which region is home, and why."""

import pytest

from coder.tailnet import home
from coder.wire.derpmap import DerpMap, Region, RelayNode


def region(number: int, code: str, *, stun_only: bool = False) -> Region:
    node = RelayNode(name=f"{number}a", region_id=number, host=f"{code}.example", stun_only=stun_only)
    return Region(id=number, code=code, name=code.upper(), nodes=(node,))


THREE = DerpMap().with_regions(
    [(1, region(1, "nyc")), (2, region(2, "fra")), (1000, region(1000, "stun", stun_only=True))]
)
ONE = DerpMap().with_regions([(1, region(1, "nyc")), (1000, region(1000, "stun", stun_only=True))])


WEIGHED = home.pinned(THREE, "nyc")


@pytest.mark.parametrize(("wanted", "found"), [("2", 2), ("fra", 2), (" FRA ", 2), ("1000", None), ("ams", None)])
def test_a_region_goes_by_id_code_and_name_and_has_a_relay(wanted: str, found: int | None):
    region = home.find(THREE, wanted)
    assert (region and region.id) == found
    assert home.pinned(THREE, wanted).home_scores == ({} if found is None else {found: home.PIN})


def test_without_a_wish_the_map_stays_the_same():
    assert home.pinned(THREE, None) is THREE


def test_the_better_family_counts():
    assert home.by_region({"1-v4": 0.03, "1-v6": 0.02, "2-v4": 0.1, "x": 1.0, "9" * 5000: 1.0}) == {1: 0.02, 2: 0.1}


@pytest.mark.parametrize(
    ("derp_map", "at", "latencies", "wanted", "words"),
    [
        (THREE, 0, {}, None, "no region: no relay answers"),
        (THREE, 9, {}, None, "region 9, which the map has no more"),
        (THREE, 2, {1: 0.002, 2: 0.08}, "fra", "region 2 (fra), 80 ms: it was asked for"),
        (THREE, 1, {1: 0.002}, "fra", "region 1 (nyc), 2.0 ms: 'fra' was asked for, but has not answered"),
        (THREE, 1, {1: 0.002}, "ams", "region 1 (nyc), 2.0 ms: 'ams' was asked for, but is not in the map"),
        (ONE, 1, {1: 0.02}, None, "region 1 (nyc), 20 ms: the only one with a relay"),
        (THREE, 1, {}, None, "region 1 (nyc): its relay was the first to answer"),
        (THREE, 1, {1: 0.02}, None, "region 1 (nyc), 20 ms: no other one answers"),
        (THREE, 1, {1: 0.02, 2: 0.08}, None, "region 1 (nyc), 20 ms: the nearest; next is region 2 (fra), 80 ms"),
        (
            THREE,
            1,
            {1: 0.03, 2: 0.02},
            None,
            "region 1 (nyc), 30 ms: region 2 (fra), 20 ms is nearer, but not by enough",
        ),
        (
            WEIGHED,
            1,
            {1: 0.03, 2: 0.02},
            None,
            "region 1 (nyc), 30 ms: as the map weighs them; region 2 (fra), 20 ms is nearer",
        ),
    ],
)
def test_the_reason_is_told(derp_map: DerpMap, at: int, latencies: dict[int, float], wanted: str | None, words: str):
    assert home.why(derp_map, at, latencies, wanted) == words
