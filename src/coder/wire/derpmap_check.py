"""Everything that is wrong with a DERP map's document, each fault with its place.

`derpmap_json` reads what programs send and stops at the first fault; this is for people who write a map. An error makes
the map unusable or some of it unreachable; a warning is what is allowed and hardly meant.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final

from coder.errors import Malformed
from coder.wire import derpmap_json
from coder.wire.jsonplaces import Document, Path, Place, parse

_MAP_KEYS: Final = ("HomeParams", "Regions", "omitDefaultRegions")
_PORTS: Final = range(1, 2**16)
_IDS: Final = range(1, 2**16)
_HOST: Final = re.compile(r"(?=.{1,253}\.?$)([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)(\.[A-Za-z0-9_]"
                          r"([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\.?")  # fmt: skip
_PIN: Final = re.compile(r"sha256-raw:[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong."""

    path: str
    """Such as `Regions.1.Nodes[0].DERPPort`; empty for the document itself."""
    line: int
    column: int
    message: str
    warning: bool = False

    def __str__(self) -> str:
        where = f"{self.line}:{self.column}" if self.line else ""
        return ": ".join(part for part in (where, "warning" if self.warning else "", self.path, self.message) if part)


def check(text: str) -> list[Fault]:
    """Return all faults of a document, in the order of their places; none when it is right."""
    try:
        document = parse(text)
    except Malformed as error:
        line, column = map(int, re.findall(r"\d+", error.where)[:2])
        return [Fault("", line, column, f"not JSON: {error.message.removeprefix(error.where + ': ')}")]
    checker = _Checker(document)
    checker.run()
    return sorted(checker.faults, key=lambda fault: (fault.line, fault.column, fault.path))


def written(path: Path) -> str:
    """Write a path as people read it."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f"{'.' if text else ''}{step[:64]}"
    return text


class _Checker:
    def __init__(self, document: Document) -> None:
        self._document = document
        self.faults: list[Fault] = []
        self._names: dict[str, Path] = {}
        self._codes: dict[str, Path] = {}
        self._relays = 0

    def run(self) -> None:
        for path in self._document.repeated:
            self._fault(path, "this key stands here more than once; only the last one counts")
        top = self._object((), self._document.value, _MAP_KEYS)
        if top is None:
            return
        self._scores(top)
        path, omit = top.get("omitDefaultRegions", ((), None))
        if not isinstance(omit, bool | None):
            self._fault(path, "expected true or false")
        regions = top.get("Regions", (("Regions",), None))
        if not isinstance(regions[1], dict) or not regions[1]:
            self._fault(regions[0] if "Regions" in top else (), "the map has no regions")
            return
        for key, value in regions[1].items():
            self._region((*regions[0], key), key, value)
        if not self._relays and not any(not fault.warning for fault in self.faults):
            self._fault(regions[0], "the map has no relay, only STUN servers")

    def _fault(self, path: Path, message: str, *, warning: bool = False) -> None:
        place = self._place(path)
        self.faults.append(Fault(written(path), place.line, place.column, message, warning))

    def _place(self, path: Path) -> Place:
        places = self._document.places
        while path and path not in places:
            path = path[:-1]
        return places.get(path, Place(1, 1))

    def _object(self, path: Path, value: Any, known: tuple[str, ...]) -> dict[str, tuple[Path, Any]] | None:
        """Return the members by their usual spelling, each with its path. Unknown ones are told of."""
        if not isinstance(value, dict):
            self._fault(path, "expected an object")
            return None
        usual = {key.lower(): key for key in known}
        found: dict[str, tuple[Path, Any]] = {}
        for key, inner in value.items():
            name = usual.get(key.lower())
            if name is None:
                near = get_close_matches(key.lower(), usual, n=1)
                hint = f"; did you mean {usual[near[0]]}?" if near else ""
                self._fault((*path, key), f"this key means nothing here and is ignored{hint}", warning=True)
            elif name in found:
                self._fault((*path, key), f"{name} stands here more than once, in other letter case")
            else:
                found[name] = ((*path, key), inner)
        return found

    def _scores(self, top: dict[str, tuple[Path, Any]]) -> None:
        path, value = top.get("HomeParams", ((), None))
        home = self._object(path, value, ("RegionScore",)) if value is not None else None
        path, value = (home or {}).get("RegionScore", ((), None))
        if value is not None and not isinstance(value, dict):
            self._fault(path, "expected an object")
        for key, score in value.items() if isinstance(value, dict) else ():
            if not _is_number(key):
                self._fault((*path, key), "expected a region's number as key")
            if isinstance(score, bool) or not isinstance(score, int | float):
                self._fault((*path, key), "expected a number")
            elif score <= 0:
                self._fault((*path, key), "only scores above zero count", warning=True)

    def _leaves(self, members: dict[str, tuple[Path, Any]], fields: tuple[Any, ...]) -> dict[str, Any]:
        """Check the kinds of all simple values; wrong ones are left out."""
        values: dict[str, Any] = {}
        for entry in fields:
            path, value = members.get(entry.key, ((), None))
            try:
                values[entry.key] = derpmap_json.read_value(value, entry.kind, "")
            except Malformed as error:
                self._fault(path, error.message)
        return values

    def _region(self, path: Path, key: str, value: Any) -> None:
        number = int(key) if _is_number(key) else None
        if number is None:
            self._fault(path, "expected a region's number as key")
        elif number not in _IDS:
            self._fault(path, f"a region's number is between 1 and {_IDS[-1]}")
        members = self._object(path, value, (*(entry.key for entry in derpmap_json.REGION), "Nodes"))
        if members is None:
            return
        region = self._leaves(members, derpmap_json.REGION)
        if number is not None and region.get("RegionID", number) != number:
            self._fault(_at(members, "RegionID", path), f"it is not the {number} the region has as key")
        for name in ("RegionCode", "RegionName"):
            if region.get(name) == "":
                self._fault(_at(members, name, path), f"the region has no {name}", warning=True)
        self._unique(self._codes, region.get("RegionCode"), _at(members, "RegionCode", path), "region code")
        nodes_path, nodes = members.get("Nodes", (path, None))
        if nodes is not None and not isinstance(nodes, list):
            self._fault(nodes_path, "expected a list")
        elif not nodes:
            self._fault(nodes_path, "the region has no nodes and is left out", warning=True)
        else:
            for index, node in enumerate(nodes):
                self._node((*nodes_path, index), node, number)

    def _node(self, path: Path, value: Any, region: int | None) -> None:
        members = self._object(path, value, tuple(entry.key for entry in derpmap_json.NODE))
        if members is None:
            return
        node = self._leaves(members, derpmap_json.NODE)
        for key, message, warning in _node_faults(node, region):
            self._fault(_at(members, key, path), message, warning=warning)
        self._unique(self._names, node.get("Name"), _at(members, "Name", path), "node name")
        self._relays += not node.get("STUNOnly")

    def _unique(self, seen: dict[str, Path], name: str | None, path: Path, what: str) -> None:
        if name and (first := seen.setdefault(name, path)) != path:
            self._fault(path, f"the {what} {name!r} is that of {written(first[:-1])} too")


def _at(members: dict[str, tuple[Path, Any]], key: str, otherwise: Path) -> Path:
    return members[key][0] if key in members else otherwise


def _node_faults(node: dict[str, Any], region: int | None) -> Iterator[tuple[str, str, bool]]:
    """Yield key, message and whether it is a warning, for each fault of a node whose kinds are right."""
    if node.get("Name") == "":
        yield "Name", "the node has no Name", False
    if region is not None and node.get("RegionID", region) != region:
        yield "RegionID", f"it is not {region}, the region the node is in", False
    yield from _host_faults(node)
    yield from _family_faults(node)
    yield from _port_faults(node)
    yield from _trust_faults(node)


def _family_faults(node: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    for key, version, family in (("IPv4", IPv4Address, "an IPv4"), ("IPv6", IPv6Address, "an IPv6")):
        text = node.get(key, "")
        if text and text != "none" and not isinstance(_address(text), version):
            yield key, f'{text!r} is not {family} address; leave it out to use DNS, or write "none"', False
    if node.get("IPv4") == "none" and node.get("IPv6") == "none":
        yield "IPv6", "both address families are off: nobody can reach this node", False
    if node.get("STUNTestIP") and _address(node["STUNTestIP"]) is None:
        yield "STUNTestIP", "this is no address", False


def _port_faults(node: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    stun, derp = node.get("STUNPort", 0), node.get("DERPPort", 0)
    if stun > _PORTS[-1]:
        yield "STUNPort", "ports go up to 65535; -1 means that there is no STUN", False
    if derp != 0 and derp not in _PORTS and not node.get("STUNOnly"):
        yield "DERPPort", "ports go from 1 to 65535; leave it out for 443", False
    if node.get("STUNOnly") and stun < 0:
        yield "STUNPort", "the node is only for STUN and has none", False


def _trust_faults(node: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    name = node.get("CertName", "")
    if name.startswith("sha256-raw:") and not _PIN.fullmatch(name):
        yield "CertName", "sha256-raw: is followed by 64 hexadecimal digits", False
    if node.get("InsecureForTests"):
        yield "InsecureForTests", "the certificate is not checked: anyone on the way can pose as this relay", True
    if node.get("ForceHTTP") and name:
        yield "CertName", "without TLS (ForceHTTP) there is no certificate", True


def _host_faults(node: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    host = node.get("HostName")
    if host is None:
        return
    bare = host.removeprefix("[").removesuffix("]")
    if not host:
        yield "HostName", "the node has no HostName", False
    elif "://" in host or "/" in host:
        yield "HostName", "write only the host: no scheme, no path", False
    elif bare != host and _address(bare) is not None:
        yield "HostName", "write an IPv6 address without brackets", False
    elif _address(host) is None and re.fullmatch(r"(.*):\d+", host):
        yield "HostName", "write the port as DERPPort", False
    elif _address(host) is None and not _HOST.fullmatch(host):
        yield "HostName", f"{host[:64]!r} is neither a DNS name nor an address", False
    elif isinstance(_address(host), IPv6Address) and node.get("IPv6") == "none":
        yield "IPv6", "HostName is an IPv6 address, and IPv6 is off", False


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _is_number(key: str) -> bool:
    return key.isascii() and key.removeprefix("-").isdecimal() and len(key) <= 11
