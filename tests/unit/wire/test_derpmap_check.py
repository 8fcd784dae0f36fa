"""A DERP map's faults, each with its place."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coder.errors import Malformed
from coder.wire import derpmap_json, jsonplaces
from coder.wire.derpmap_check import check

RIGHT = """// Regions of our own.
{
  "Regions": {
    # the only one
    "900": {
      "RegionID": 900, "RegionCode": "own", "RegionName": "Our own", /* so far */
      "Nodes": [
        {"Name": "900a", "RegionID": 900, "HostName": "relay.example.com", "IPv6": "none"}, // the first
        {"Name": "900b", "RegionID": 900, "HostName": "2001:db8::1", "DERPPort": 8443, "STUNPort": -1}
      ]
    }
  }
}
"""


def faults(text: str) -> list[str]:
    return [str(fault) for fault in check(text)]


def with_node(**fields: object) -> str:
    """A map whose only node has these fields, each key on a line of its own from line 2 on."""
    node = {"Name": "a", "RegionID": 1, "HostName": "h", **fields}
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in node.items())
    return '{"Regions": {"1": {"RegionID": 1, "RegionCode": "c", "RegionName": "N", "Nodes": [{\n' + lines + "\n}]}}}"


def test_a_right_map_with_comments_has_no_faults_and_is_read() -> None:
    assert faults(RIGHT) == []
    found = derpmap_json.loads(RIGHT)
    assert [node.name for node in found.regions[900].nodes] == ["900a", "900b"]
    assert derpmap_json.loads(RIGHT.encode()) == found


def test_slashes_inside_texts_are_no_comments() -> None:
    text = '{"a": "http://x", "b": "/* no */", "c": "\\"// no", "d": "# no", "e": ",]"}'
    assert jsonplaces.plain(text) == text


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("[1, 2,]", [1, 2]),
        ('{"a": [{},], "b": "x" , /* the last */ }', {"a": [{}], "b": "x"}),
        ("# head\n[true, # why\n null,\n]", [True, None]),
        ('{"a": 1,} # end', {"a": 1}),
    ],
)
def test_comments_and_last_commas(given: str, meant: object) -> None:
    assert jsonplaces.parse(given).value == meant
    assert len(jsonplaces.plain(given)) == len(given)


@pytest.mark.parametrize("text", ["[,]", "{,}", "[1,,]", "[1, ,2]", '{"a":,}', "[1],"])
def test_other_commas_are_faults(text: str) -> None:
    with pytest.raises(Malformed):
        jsonplaces.parse(text)


def test_places_within_a_long_line() -> None:
    document = jsonplaces.parse('{"a": [1,\n  2, 3], "b": 4}')
    places = {path: str(place) for path, place in document.places.items()}
    assert places["a", 2] == "line 2, column 6"
    assert places["b",] == "line 2, column 10"


NODE = "Regions.1.Nodes[0]"
WRONG_PORT = "ports go from 1 to 65535; leave it out for 443"


@pytest.mark.parametrize(
    ("fields", "line", "key", "message"),
    [
        ({"DERPPort": 70000}, 5, "DERPPort", WRONG_PORT),
        ({"DERPPort": -1}, 5, "DERPPort", WRONG_PORT),
        ({"DERPPort": "443"}, 5, "DERPPort", "expected a whole number"),
        ({"STUNPort": 65536}, 5, "STUNPort", "ports go up to 65535; -1 means that there is no STUN"),
        ({"HostName": "https://h"}, 4, "HostName", "write only the host: no scheme, no path"),
        ({"HostName": "h:443"}, 4, "HostName", "write the port as DERPPort"),
        ({"HostName": "[::1]"}, 4, "HostName", "write an IPv6 address without brackets"),
        ({"HostName": "a b"}, 4, "HostName", "'a b' is neither a DNS name nor an address"),
        ({"HostName": ""}, 4, "HostName", "the node has no HostName"),
        ({"Name": ""}, 2, "Name", "the node has no Name"),
        ({"RegionID": 2}, 3, "RegionID", "it is not 1, the region the node is in"),
        ({"IPv4": "::1"}, 5, "IPv4", "'::1' is not an IPv4 address; leave it out to use DNS, or write \"none\""),
        ({"IPv4": "none", "IPv6": "none"}, 6, "IPv6", "both address families are off: nobody can reach this node"),
        ({"CertName": "sha256-raw:12"}, 5, "CertName", "sha256-raw: is followed by 64 hexadecimal digits"),
        ({"STUNTestIP": "x"}, 5, "STUNTestIP", "this is no address"),
    ],
)
def test_each_fault_of_a_node_is_told_at_its_place(
    fields: dict[str, object], line: int, key: str, message: str
) -> None:
    assert faults(with_node(**fields)) == [f"{line}:1: {NODE}.{key}: {message}"]


def test_what_is_allowed_and_hardly_meant_is_a_warning() -> None:
    unknown = "this key means nothing here and is ignored; did you mean STUNPort?"
    assert faults(with_node(StunPrt=1)) == [f"5:1: warning: {NODE}.StunPrt: {unknown}"]
    insecure = "the certificate is not checked: anyone on the way can pose as this relay"
    assert faults(with_node(InsecureForTests=True)) == [f"5:1: warning: {NODE}.InsecureForTests: {insecure}"]
    assert check(with_node(ForceHTTP=True, CertName="x"))[0].warning


def test_all_faults_are_told_at_once_in_their_order() -> None:
    text = """{
"HomeParams": {"RegionScore": {"x": 1, "2": 0, "3": "a"}},
"Regions": {
 "no": {},
 "0": {"RegionID": 1, "RegionCode": "c", "RegionName": "N", "Nodes": null},
 "3": {"RegionID": 3, "RegionCode": "c", "RegionName": "N", "Nodes": {}},
 "3": [],
 "4": {"RegionID": 4, "RegionCode": "c", "RegionName": "N",
  "Nodes": [{"Name": "a", "RegionID": 4, "HostName": "h", "name": "b"}, 7,
   {"Name": "a", "RegionID": 4, "HostName": "h", "STUNOnly": true, "STUNPort": -1}]}
}}"""
    found = check(text)
    assert [(fault.line, fault.path) for fault in found if not fault.warning] == [
        (2, "HomeParams.RegionScore.x"),
        (2, "HomeParams.RegionScore.3"),
        (4, "Regions.no"),
        (5, "Regions.0"),
        (5, "Regions.0.RegionID"),
        (7, "Regions.3"),
        (7, "Regions.3"),
        (8, "Regions.4.RegionCode"),
        (9, "Regions.4.Nodes[0].name"),
        (9, "Regions.4.Nodes[1]"),
        (10, "Regions.4.Nodes[2].Name"),
        (10, "Regions.4.Nodes[2].STUNPort"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1:1: not JSON: expecting value"),
        ("{", "1:2: not JSON: expected a key in double quotes"),
        ('{"a": 1,\n,}', "2:1: not JSON: expected a key after ','"),
        ('{"a" 1}', "1:6: not JSON: expected ':'"),
        ("[1 2]", "1:4: not JSON: expected ',' or ']'"),
        ('{"Regions":\n {"1": NaN}}', "2:8: not JSON: NaN is no number of JSON"),
        ("{} x", "1:4: not JSON: something follows the document"),
        ("null", "1:1: expected an object"),
        ('{"Regions": null}', "1:2: Regions: the map has no regions"),
        ("{}", "1:1: the map has no regions"),
    ],
)
def test_a_text_that_is_no_map_is_told_at_its_place(text: str, expected: str) -> None:
    assert faults(text)[:1] == [expected]


def test_only_stun_servers_are_no_map() -> None:
    assert faults(with_node(STUNOnly=True)) == ["1:2: Regions: the map has no relay, only STUN servers"]


def test_deep_nesting_is_refused() -> None:
    assert "nested too deeply" in faults("[" * 5000)[0]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON, st.sampled_from([None, 1, "\t"]))
def test_any_document_reads_as_json_does_and_never_breaks_the_check(value: object, indent: int | str | None) -> None:
    text = json.dumps(value, indent=indent)
    assert jsonplaces.parse(text).value == value
    check(text)


@given(st.text(alphabet='{}[]",:/*#\n 0123456789aeRegionsNodes\\-.'))
def test_any_text_gives_places_inside_it(text: str) -> None:
    lines = text.count("\n") + 1
    for fault in check(text):
        assert 1 <= fault.line <= lines
        assert fault.column >= 1


@given(JSON, st.data())
def test_every_map_that_is_refused_when_read_has_a_fault(value: object, data: st.DataObject) -> None:
    document = json.loads(with_node())
    region = document["Regions"]["1"]
    place, keys = data.draw(
        st.sampled_from(
            [
                (document, ["Regions", "HomeParams", "omitDefaultRegions"]),
                (region, ["RegionID", "RegionName", "Avoid", "Latitude", "Nodes"]),
                (region["Nodes"][0], ["Name", "HostName", "STUNPort", "STUNOnly", "IPv4", "CanPort80"]),
            ]
        )
    )
    place[data.draw(st.sampled_from(keys))] = value
    text = json.dumps(document)
    try:
        derpmap_json.loads(text)
    except Malformed:
        assert any(not fault.warning for fault in check(text))
