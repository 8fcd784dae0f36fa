"""The JSON form of the DERP map: what `/derp-map`, configuration files and Tailscale's servers carry."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeVar

from coder.errors import Malformed
from coder.wire.derpmap import DerpMap, Region, RelayNode
from coder.wire.jsonplaces import plain

Json = Any
T = TypeVar("T")
_INT32: Final = range(-(2**31), 2**31)


@dataclass(frozen=True, slots=True)
class _Field:
    key: str
    """Spelling in JSON."""
    attribute: str
    """Name in the dataclass."""
    kind: type
    always: bool = False
    """Written even when zero."""


NODE: Final = (
    _Field("Name", "name", str, always=True),
    _Field("RegionID", "region_id", int, always=True),
    _Field("HostName", "host", str, always=True),
    _Field("CertName", "cert_name", str),
    _Field("IPv4", "ipv4", str),
    _Field("IPv6", "ipv6", str),
    _Field("STUNPort", "stun_port", int),
    _Field("STUNOnly", "stun_only", bool),
    _Field("DERPPort", "derp_port", int),
    _Field("InsecureForTests", "insecure", bool),
    _Field("ForceHTTP", "force_http", bool),
    _Field("STUNTestIP", "stun_test_ip", str),
    _Field("CanPort80", "can_port_80", bool),
)
REGION: Final = (
    _Field("EmbeddedRelay", "embedded", bool, always=True),
    _Field("RegionID", "id", int, always=True),
    _Field("RegionCode", "code", str, always=True),
    _Field("RegionName", "name", str, always=True),
    _Field("Latitude", "latitude", float),
    _Field("Longitude", "longitude", float),
    _Field("Avoid", "avoid", bool),
    _Field("NoMeasureNoHome", "no_measure_no_home", bool),
)


def dump(derp_map: DerpMap) -> dict[str, Json]:
    """Return the map as a value for `json.dumps`."""
    document: dict[str, Json] = {}
    if derp_map.home_scores:
        document["HomeParams"] = {"RegionScore": {str(key): score for key, score in derp_map.home_scores.items()}}
    document["Regions"] = {
        str(key): {**_write(region, REGION), "Nodes": [_write(node, NODE) for node in region.nodes]}
        for key, region in sorted(derp_map.regions.items(), key=lambda item: str(item[0]))
    }
    if derp_map.omit_default_regions:
        document["omitDefaultRegions"] = True
    return document


def loads(text: str | bytes) -> DerpMap:
    """Read a JSON document, comments and last commas allowed.

    Raises `Malformed` that names the place of the first fault.
    """
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        given = text if isinstance(text, str) else text.decode("utf-8", "replace")
        bare = plain(given)
        if bare != given:
            return loads(bare)
        raise Malformed(f"not JSON: {error.msg} in line {error.lineno}, column {error.colno}") from None
    except (ValueError, RecursionError):
        raise Malformed("not JSON") from None
    return load(document)


def load(document: Json) -> DerpMap:
    """Read a parsed document. Raises `Malformed` that names the place of the first fault.

    A missing `Regions` reads as none at all; one that is null, or a document that is, is refused.
    """
    fields = _fields(document, "the DERP map")
    regions = fields.get("regions", {})
    home = _fields(_optional(fields, "homeparams", {}), "HomeParams")
    scores = _mapping(_optional(home, "regionscore", {}), "HomeParams.RegionScore", _read_score)
    return DerpMap(
        regions=_mapping(regions, "Regions", _read_region),
        home_scores=scores,
        omit_default_regions=read_value(fields.get("omitdefaultregions"), bool, "omitDefaultRegions"),
    )


def _write(value: Region | RelayNode, fields: tuple[_Field, ...]) -> dict[str, Json]:
    written = {entry.key: getattr(value, entry.attribute) for entry in fields}
    return {entry.key: written[entry.key] for entry in fields if entry.always or written[entry.key]}


def _read_region(document: Json, where: str) -> Region:
    fields = _fields(document, where)
    nodes = _optional(fields, "nodes", [])
    if not isinstance(nodes, list):
        raise Malformed("expected a list", where=f"{where}.Nodes")
    return Region(
        **_read(fields, REGION, where),
        nodes=tuple(_read_node(node, f"{where}.Nodes[{index}]") for index, node in enumerate(nodes)),
    )


def _read_node(document: Json, where: str) -> RelayNode:
    return RelayNode(**_read(_fields(document, where), NODE, where))


def _read_score(document: Json, where: str) -> float:
    return float(read_value(document, float, where))


def _read(fields: dict[str, Json], known: tuple[_Field, ...], where: str) -> dict[str, Any]:
    return {
        entry.attribute: read_value(fields.get(entry.key.lower()), entry.kind, f"{where}.{entry.key}")
        for entry in known
    }


def read_value(value: Json, kind: type, where: str) -> Any:
    """Check a leaf. Missing and null are the kind's zero. Raises `Malformed`."""
    if value is None:
        return kind()
    if kind is float:
        if isinstance(value, int | float) and not isinstance(value, bool) and _finite(value):
            return float(value)
        raise Malformed("expected a number", where=where)
    if type(value) is not kind:
        raise Malformed(f"expected {_NAMES[kind]}", where=where)
    if kind is int and value not in _INT32:
        raise Malformed("the number is out of range", where=where)
    if isinstance(value, str) and not _encodable(value):
        raise Malformed("the text has half a surrogate pair", where=where)
    return value


_NAMES: Final = {str: "a text", int: "a whole number", bool: "true or false"}


def _mapping(document: Json, where: str, read: Callable[[Json, str], T]) -> dict[int, T]:
    if not isinstance(document, dict):
        raise Malformed("expected an object", where=where)
    result: dict[int, T] = {}
    for key, value in document.items():
        if not (key.isascii() and key.removeprefix("-").isdecimal() and len(key) <= 11 and int(key) in _INT32):
            raise Malformed("expected a region's number as key", where=f"{where}.{key[:32]}")
        result[int(key)] = read(value, f"{where}.{key}")
    return result


def _fields(document: Json, where: str) -> dict[str, Json]:
    if not isinstance(document, dict):
        raise Malformed("expected an object", where=where)
    return {key.lower(): value for key, value in document.items()}


def _optional(fields: dict[str, Json], key: str, default: Json) -> Json:
    value = fields.get(key)
    return default if value is None else value


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)
