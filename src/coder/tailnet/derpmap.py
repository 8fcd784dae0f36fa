"""Builds the DERP map a server hands out, and adapts it where it is used.

The server's own relay is the embedded region. Its own STUN server answers on two ports: nodes can only tell their kind
of NAT from two answers, and stop asking a region after one. So the first port belongs to the embedded region and the
second makes a STUN-only region of its own. (The original has no STUN server and writes STUNPort -1 there.)
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

from coder.errors import Conflict, Malformed
from coder.wire.derpmap import DerpMap, Region, RelayNode

DISABLE: Final = "disable"
"""The word that, anywhere among the STUN addresses, empties the list."""
NO_STUN: Final = -1
_REGION_IDS: Final = range(1, 2**16)  # an id travels as a port number between nodes
_REMEDY: Final = "Let the server be a relay itself, or give it a DERP map with at least one relay."


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedRegion:
    """The relay inside the server."""

    access_url: str
    """The URL at which users and workspaces reach the server, relay included."""
    id: int = 999
    code: str = "coder"
    name: str = "Coder Embedded Relay"
    stun_ports: tuple[int, ...] = ()
    """UDP ports of the server's own STUN answers, as seen from outside."""


def build(
    *,
    embedded: EmbeddedRegion | None,
    stun_addresses: Sequence[str] = (),
    base: DerpMap | None = None,
    block_direct: bool = False,
) -> DerpMap:
    """Build the map from the settings.

    `stun_addresses` are `host:port` of other STUN servers, used only beside an embedded region; `base` is the map that
    a file or URL gave; `block_direct` removes all STUN, so that no direct paths are found. Regions without nodes are
    dropped. Raises `Malformed` for settings that make no sense or a map without relays, `Conflict` when two regions
    want one id.
    """
    regions = dict(base.regions) if base is not None else {}
    if embedded is not None:
        for region in _own_regions(embedded, () if DISABLE in stun_addresses or block_direct else stun_addresses):
            if region.id in regions:
                raise Conflict(
                    f'the DERP map has a region {region.id}, which the server needs for "{region.name}"',
                    remedy="Give the embedded relay another region id, or renumber the region of the map.",
                )
            regions[region.id] = region
    if block_direct:
        regions = {key: _without_stun(region) for key, region in regions.items()}
    regions = {key: region for key, region in regions.items() if region.nodes}
    _require_usable(regions)
    return (base or DerpMap()).with_regions(regions.items())


def rewrite_embedded(derp_map: DerpMap, url: str) -> DerpMap:
    """Point the embedded region at the URL this node uses for the server. Raises `Malformed` for a broken URL.

    Host, port and scheme of its relays change; everything else, STUN-only nodes too, stays.
    """
    host, port, force_http = _location(url)

    def moved(region: Region) -> Region:
        nodes = (
            node if node.stun_only else replace(node, host=host, derp_port=port, force_http=force_http)
            for node in region.nodes
        )
        return replace(region, nodes=tuple(nodes)) if region.embedded else region

    return derp_map.with_regions((key, moved(region)) for key, region in derp_map.regions.items())


def same(one: DerpMap, other: DerpMap) -> bool:
    """Tell whether two maps mean the same to a node, so that the newer need not be sent.

    The order of a region's nodes and their `CanPort80` do not count.
    """
    return _essence(one) == _essence(other)


def _own_regions(embedded: EmbeddedRegion, stun_addresses: Iterable[str]) -> list[Region]:
    host, port, force_http = _location(embedded.access_url)
    node = RelayNode(
        name=f"{embedded.id}b",
        region_id=embedded.id,
        host=host,
        derp_port=port,
        stun_port=embedded.stun_ports[0] if embedded.stun_ports else NO_STUN,
        force_http=force_http,
    )
    relay = Region(id=embedded.id, code=embedded.code, name=embedded.name, embedded=True, nodes=(node,))
    servers = [(host, own) for own in embedded.stun_ports[1:]] + [_host_and_port(text) for text in stun_addresses]
    return [relay, *(_stun_region(embedded.id + 1 + i, *server) for i, server in enumerate(servers))]


def _stun_region(number: int, host: str, port: int) -> Region:
    node = RelayNode(name=f"{number}stun0", region_id=number, host=host, stun_port=port, stun_only=True)
    return Region(id=number, code=f"coder_stun_{number}", name=f"Coder STUN {number}", nodes=(node,))


def _without_stun(region: Region) -> Region:
    return replace(region, nodes=tuple(replace(node, stun_port=NO_STUN) for node in region.nodes if not node.stun_only))


def _require_usable(regions: dict[int, Region]) -> None:
    for key, region in regions.items():
        if key not in _REGION_IDS or region.id not in _REGION_IDS:
            raise Malformed(f"region ids go from 1 to {_REGION_IDS[-1]}", where=f"Regions.{key}")
    if not regions:
        raise Malformed("the DERP map has no regions", remedy=_REMEDY)
    if all(node.stun_only for region in regions.values() for node in region.nodes):
        raise Malformed("the DERP map has no relays, only STUN servers", remedy=_REMEDY)


def _location(url: str) -> tuple[str, int, bool]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in ("http", "https"):
        raise Malformed(f"{url!r} is no URL of a server, such as https://coder.example.com", where="access URL")
    plain = parts.scheme == "http"
    return host, port or (80 if plain else 443), plain


def _host_and_port(text: str) -> tuple[str, int]:
    host, colon, port = text.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not host or not colon or (":" in host and not bracketed):
        raise Malformed(f"{text!r} lacks a port, such as stun.example.com:3478", where="STUN addresses")
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 2**16):
        raise Malformed(f"{text!r} has a port that is not between 1 and 65535", where="STUN addresses")
    return (host[1:-1] if bracketed else host), int(port)


def _essence(derp_map: DerpMap) -> DerpMap:
    def essence(region: Region) -> Region:
        nodes = sorted((replace(node, can_port_80=False) for node in region.nodes), key=lambda node: node.name)
        return replace(region, nodes=tuple(nodes))

    return derp_map.with_regions((key, essence(region)) for key, region in derp_map.regions.items())
