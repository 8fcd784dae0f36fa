"""The DERP map's JSON and protobuf forms."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coder.errors import Malformed
from coder.wire import derpmap, derpmap_json
from coder.wire.derpmap import DerpMap, Region, RelayNode

VECTORS = json.loads((Path(__file__).parents[3] / "vectors/derpmap.json").read_text())
MAPS = {case["name"]: case["derp_map"] for case in VECTORS["new_derp_map"] if "derp_map" in case}

FULL = DerpMap(
    regions={
        5: Region(
            id=5,
            code="five",
            name="Region Five",
            embedded=True,
            avoid=True,
            nodes=(
                RelayNode(
                    name="5a",
                    region_id=5,
                    host="h",
                    cert_name="c",
                    ipv4="192.0.2.1",
                    ipv6="none",
                    stun_port=-1,
                    derp_port=8443,
                    insecure=True,
                    force_http=True,
                    stun_test_ip="127.0.0.1",
                    can_port_80=True,
                ),
                RelayNode(name="5s", region_id=5, host="s", stun_only=True),
            ),
        )
    },
    home_scores={5: 0.5},
)


@pytest.mark.parametrize("name", MAPS)
def test_recorded_maps_survive_the_way_through_values(name):
    document = json.loads(json.dumps(MAPS[name]))
    written = derpmap_json.dump(derpmap_json.load(document))
    for region in document["Regions"].values():
        region["Nodes"] = region["Nodes"] or []
    assert written == document


@pytest.mark.parametrize("name", MAPS)
def test_recorded_maps_survive_protobuf(name):
    value = derpmap_json.load(MAPS[name])
    wire = derpmap.to_proto(value).SerializeToString()
    again = derpmap.from_proto(derpmap.DERPMap.FromString(wire))
    assert again == DerpMap(regions=value.regions, home_scores=value.home_scores)


def test_protobuf_always_has_home_params():
    message = derpmap.to_proto(DerpMap())
    assert message.HasField("home_params")
    assert message.SerializeToString() == b"\x0a\x00"


def test_everything_protobuf_carries_comes_back():
    assert derpmap.from_proto(derpmap.to_proto(FULL)) == FULL


def test_zero_fields_are_left_out_and_the_rest_has_its_spelling():
    plain = DerpMap(regions={1: Region(id=1, nodes=(RelayNode(name="1a", region_id=1, host="h"),))})
    assert derpmap_json.dump(plain) == {
        "Regions": {
            "1": {
                "EmbeddedRelay": False,
                "RegionID": 1,
                "RegionCode": "",
                "RegionName": "",
                "Nodes": [{"Name": "1a", "RegionID": 1, "HostName": "h"}],
            }
        }
    }
    node = derpmap_json.dump(FULL)["Regions"]["5"]["Nodes"][0]
    assert list(node) == [
        "Name", "RegionID", "HostName", "CertName", "IPv4", "IPv6", "STUNPort", "DERPPort", "InsecureForTests",
        "ForceHTTP", "STUNTestIP", "CanPort80",
    ]  # fmt: skip


def test_keys_are_read_in_any_letter_case_and_unknown_ones_ignored():
    text = '{"rEGIONS":{"5":{"regionid":5,"NODES":[{"hostname":"h","NAME":"n"}],"x":[1]}},"OMITDefaultRegions":true}'
    value = derpmap_json.loads(text)
    assert value.regions[5].nodes == (RelayNode(name="n", region_id=0, host="h"),)
    assert value.omit_default_regions
    assert derpmap_json.dump(value)["omitDefaultRegions"] is True


def test_a_place_only_json_carries():
    text = '{"Regions":{"1":{"RegionID":1,"Latitude":1.5,"Longitude":-2,"NoMeasureNoHome":true,"Nodes":null}}}'
    region = derpmap_json.loads(text).regions[1]
    assert (region.latitude, region.longitude, region.no_measure_no_home, region.nodes) == (1.5, -2.0, True, ())
    assert derpmap_json.loads(json.dumps(derpmap_json.dump(derpmap_json.loads(text)))) == derpmap_json.loads(text)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("null", "the DERP map"),
        ("[]", "the DERP map"),
        ('{"Regions":null}', "Regions"),
        ('{"Regions":[]}', "Regions"),
        ('{"Regions":{"one":{}}}', "Regions.one"),
        ('{"Regions":{"99999999999999999999":{}}}', "Regions.99999999999999999999"),
        ('{"Regions":{"1":null}}', "Regions.1"),
        ('{"Regions":{"1":{"RegionID":"1"}}}', "Regions.1.RegionID"),
        ('{"Regions":{"1":{"RegionID":1.5}}}', "Regions.1.RegionID"),
        ('{"Regions":{"1":{"RegionID":true}}}', "Regions.1.RegionID"),
        ('{"Regions":{"1":{"RegionID":2147483648}}}', "Regions.1.RegionID"),
        ('{"Regions":{"1":{"RegionName":"\\ud800"}}}', "Regions.1.RegionName"),
        ('{"Regions":{"1":{"Latitude":"n"}}}', "Regions.1.Latitude"),
        ('{"Regions":{"1":{"Nodes":{}}}}', "Regions.1.Nodes"),
        ('{"Regions":{"1":{"Nodes":[null]}}}', "Regions.1.Nodes[0]"),
        ('{"Regions":{"1":{"Nodes":[{},{"DERPPort":"443"}]}}}', "Regions.1.Nodes[1].DERPPort"),
        ('{"Regions":{"1":{"Nodes":[{"STUNOnly":1}]}}}', "Regions.1.Nodes[0].STUNOnly"),
        ('{"HomeParams":1}', "HomeParams"),
        ('{"HomeParams":{"RegionScore":{"1":"x"}}}', "HomeParams.RegionScore.1"),
        (f'{{"HomeParams":{{"RegionScore":{{"1":1{"0" * 400}}}}}}}', "HomeParams.RegionScore.1"),
        ('{"omitDefaultRegions":"yes"}', "omitDefaultRegions"),
    ],
)
def test_faults_name_their_place(text, where):
    with pytest.raises(Malformed) as caught:
        derpmap_json.loads(text)
    assert caught.value.where == where
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "regions: []", '{"Regions":', "NaN", "[" * 100_000, '{"a":' + "1" * 5000 + "}"])
def test_what_is_no_json(text):
    with pytest.raises(Malformed):
        derpmap_json.loads(text)


def test_bytes_that_are_no_text():
    with pytest.raises(Malformed):
        derpmap_json.loads(b"\xff\xfe{")


TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
INT32 = st.integers(-(2**31), 2**31 - 1)
NODES = st.builds(
    RelayNode, name=TEXT, region_id=INT32, host=TEXT, cert_name=TEXT, ipv4=TEXT, ipv6=TEXT, stun_port=INT32,
    stun_only=st.booleans(), derp_port=INT32, insecure=st.booleans(), force_http=st.booleans(), stun_test_ip=TEXT,
    can_port_80=st.booleans(),
)  # fmt: skip
REGIONS = st.builds(
    Region, id=INT32, code=TEXT, name=TEXT, embedded=st.booleans(), avoid=st.booleans(),
    nodes=st.lists(NODES, max_size=2).map(tuple),
)  # fmt: skip
DERP_MAPS = st.builds(
    DerpMap,
    regions=st.dictionaries(INT32, REGIONS, max_size=2),
    home_scores=st.dictionaries(INT32, st.floats(0, 1e6), max_size=2),
)


@given(DERP_MAPS)
def test_every_map_survives_both_forms(value):
    assert derpmap_json.loads(json.dumps(derpmap_json.dump(value))) == value
    assert derpmap.from_proto(derpmap.to_proto(value)) == value


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Regions", "HomeParams", "RegionScore", "1", "Nodes", "Name", "RegionID", "Latitude"]),
            inner,
            max_size=3,
        )
    ),
)


@given(JSON)
def test_any_document_is_read_or_refused(document):
    try:
        value = derpmap_json.load(document)
    except Malformed:
        return
    derpmap.to_proto(value)
