"""The DERP map a server builds, against recorded ones where both mean the same."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from coder.errors import CoderError, Conflict, Malformed
from coder.tailnet import derpmap
from coder.tailnet.derpmap import EmbeddedRegion
from coder.wire import derpmap_json
from coder.wire.derpmap import DerpMap, Region, RelayNode

VECTORS = json.loads((Path(__file__).parents[3] / "vectors/derpmap.json").read_text())
CASES = [case for case in VECTORS["new_derp_map"] if "access_url" in case]
URL = "https://coder.example.com"
RELAY = RelayNode(name="1a", region_id=1, host="h")


def build(case):
    text = case.get("config_file")
    return derpmap.build(
        embedded=EmbeddedRegion(access_url=case["access_url"]) if case["embedded"] else None,
        stun_addresses=case["stun_addresses"] or (),
        base=None if text is None else derpmap_json.loads(text),
        block_direct=case["block_direct"],
    )


def document(case):
    value = json.loads(json.dumps(case["derp_map"]))
    value["Regions"] = {key: region for key, region in value["Regions"].items() if region["Nodes"]}
    return value


@pytest.mark.parametrize("case", [c for c in CASES if "derp_map" in c], ids=lambda c: c["name"])
def test_maps_are_built_as_recorded(case):
    assert derpmap_json.dump(build(case)) == document(case)


@pytest.mark.parametrize("case", [c for c in CASES if "error" in c], ids=lambda c: c["name"])
def test_what_is_refused_or_crashes_there_is_refused_in_one_line_here(case):
    with pytest.raises(CoderError) as caught:
        build(case)
    assert isinstance(caught.value, Malformed | Conflict)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", VECTORS["rewrite_default_relay"], ids=lambda c: c["access_url"])
def test_the_embedded_region_moves_to_the_url_in_use(case):
    base = next(c for c in CASES if c["name"] == "config file plus embedded")
    moved = derpmap_json.dump(derpmap.rewrite_embedded(build(base), case["access_url"]))["Regions"]
    assert moved == {name.removeprefix("region_"): case[name] for name in case if name.startswith("region_")}


def test_the_servers_own_stun_ports_come_first():
    built = derpmap.build(
        embedded=EmbeddedRegion(access_url=URL, stun_ports=(3478, 3479)), stun_addresses=["stun.example.com:19302"]
    )
    assert {
        key: (region.code, region.embedded, [(n.name, n.host, n.stun_port, n.stun_only) for n in region.nodes])
        for key, region in built.regions.items()
    } == {
        999: ("coder", True, [("999b", "coder.example.com", 3478, False)]),
        1000: ("coder_stun_1000", False, [("1000stun0", "coder.example.com", 3479, True)]),
        1001: ("coder_stun_1001", False, [("1001stun0", "stun.example.com", 19302, True)]),
    }


def test_blocking_direct_paths_leaves_no_stun_of_our_own():
    built = derpmap.build(embedded=EmbeddedRegion(access_url=URL, stun_ports=(3478, 3479)), block_direct=True)
    assert [(key, region.nodes[0].stun_port) for key, region in built.regions.items()] == [(999, -1)]


def test_regions_without_nodes_are_dropped():
    base = DerpMap(regions={1: Region(id=1, nodes=(RELAY,)), 2: Region(id=2)}, home_scores={1: 2.0})
    built = derpmap.build(embedded=None, base=base)
    assert list(built.regions) == [1]
    assert built.home_scores == {1: 2.0}


@pytest.mark.parametrize("number", [0, -1, 65536])
def test_region_ids_fit_a_port_number(number):
    with pytest.raises(Malformed, match="1 to 65535"):
        derpmap.build(embedded=None, base=DerpMap(regions={number: Region(id=number, nodes=(RELAY,))}))


@pytest.mark.parametrize("url", ["", "coder.example.com", "ftp://h", "http://", "http://h:99999", "http://[::1"])
def test_urls_that_are_none(url):
    with pytest.raises(Malformed, match="access URL"):
        derpmap.rewrite_embedded(DerpMap(), url)


@pytest.mark.parametrize("text", ["h", ":1", "h:", "h:0", "h:65536", "h:x", "::1:3478", "h:-1"])
def test_stun_addresses_that_are_none(text):
    with pytest.raises(Malformed, match="STUN addresses"):
        derpmap.build(embedded=EmbeddedRegion(access_url=URL), stun_addresses=[text])


def test_order_of_nodes_and_port_80_make_no_difference():
    other = replace(RELAY, name="1b")
    one = DerpMap(regions={1: Region(id=1, nodes=(RELAY, other))})
    same = DerpMap(regions={1: Region(id=1, nodes=(replace(other, can_port_80=True), RELAY))})
    assert derpmap.same(one, same)


@pytest.mark.parametrize(
    "changed",
    [
        DerpMap(),
        DerpMap(regions={1: Region(id=1, nodes=(RELAY,))}, omit_default_regions=True),
        DerpMap(regions={1: Region(id=1, nodes=(RELAY,))}, home_scores={1: 2.0}),
        DerpMap(regions={1: Region(id=1, name="x", nodes=(RELAY,))}),
        DerpMap(regions={1: Region(id=1, nodes=(replace(RELAY, derp_port=1),))}),
        DerpMap(regions={1: Region(id=1, nodes=(RELAY, RELAY))}),
        DerpMap(regions={2: Region(id=1, nodes=(RELAY,))}),
    ],
)
def test_everything_else_does(changed):
    assert not derpmap.same(DerpMap(regions={1: Region(id=1, nodes=(RELAY,))}), changed)
