"""The DERP map as values, in its JSON form and in its protobuf form.

JSON keys are written with their exact capitals; zero values of most are left out. They are read in any letter case, and
unknown ones are ignored. Protobuf carries less: not `omitDefaultRegions`, nor a region's place and `NoMeasureNoHome`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from coder.wire.proto.tailnet_pb2 import DERPMap

DEFAULT_STUN_PORT: Final = 3478
DEFAULT_DERP_PORT: Final = 443


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayNode:
    """One relay server or STUN server of a region."""

    name: str
    """Unique in the whole map."""
    region_id: int
    host: str
    """DNS name or address to dial; IPv6 addresses without brackets."""
    cert_name: str = ""
    """Name that the certificate must carry instead of `host`."""
    ipv4: str = ""
    """Empty: by DNS. An address: that one. Anything else, by convention `none`: no IPv4."""
    ipv6: str = ""
    """The same for IPv6."""
    stun_port: int = 0
    """0: 3478. Negative: no STUN here."""
    stun_only: bool = False
    derp_port: int = 0
    """0: 443."""
    insecure: bool = False
    """For tests: the certificate is not verified."""
    force_http: bool = False
    """Plain HTTP instead of HTTPS."""
    stun_test_ip: str = ""
    """For tests: address for STUN in place of all others."""
    can_port_80: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Relays that are close to each other and reach each other's clients; in order of preference."""

    id: int
    code: str = ""
    name: str = ""
    embedded: bool = False
    """The server itself: nodes rewrite host and port to the URL they use for it."""
    avoid: bool = False
    no_measure_no_home: bool = False
    latitude: float = 0.0
    longitude: float = 0.0
    nodes: tuple[RelayNode, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DerpMap:
    """All regions by id."""

    regions: Mapping[int, Region] = field(default_factory=dict)
    home_scores: Mapping[int, float] = field(default_factory=dict)
    """Factor on a region's latency when a home is chosen; missing ones count as 1."""
    omit_default_regions: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "regions", MappingProxyType(dict(sorted(self.regions.items()))))
        object.__setattr__(self, "home_scores", MappingProxyType(dict(sorted(self.home_scores.items()))))

    def with_regions(self, regions: Iterable[tuple[int, Region]]) -> "DerpMap":
        """Return the same map with other regions."""
        return DerpMap(
            regions=dict(regions), home_scores=self.home_scores, omit_default_regions=self.omit_default_regions
        )


def to_proto(derp_map: DerpMap) -> DERPMap:
    """Return the protobuf form. `home_params` is always present: older peers crash without it."""
    message = DERPMap()
    message.home_params.SetInParent()
    message.home_params.region_score.update(derp_map.home_scores)
    for key, region in derp_map.regions.items():
        target = message.regions[key]
        target.region_id = region.id
        target.embedded_relay = region.embedded
        target.region_code = region.code
        target.region_name = region.name
        target.avoid = region.avoid
        target.nodes.extend(_node_to_proto(node) for node in region.nodes)
    return message


def from_proto(message: DERPMap) -> DerpMap:
    """Return the values of a protobuf map."""
    return DerpMap(
        regions={key: _region_from_proto(region) for key, region in message.regions.items()},
        home_scores=dict(message.home_params.region_score),
    )


def _node_to_proto(node: RelayNode) -> DERPMap.Region.Node:
    return DERPMap.Region.Node(
        name=node.name,
        region_id=node.region_id,
        host_name=node.host,
        cert_name=node.cert_name,
        ipv4=node.ipv4,
        ipv6=node.ipv6,
        stun_port=node.stun_port,
        stun_only=node.stun_only,
        derp_port=node.derp_port,
        insecure_for_tests=node.insecure,
        force_http=node.force_http,
        stun_test_ip=node.stun_test_ip,
        can_port_80=node.can_port_80,
    )


def _region_from_proto(region: DERPMap.Region) -> Region:
    return Region(
        id=region.region_id,
        code=region.region_code,
        name=region.region_name,
        embedded=region.embedded_relay,
        avoid=region.avoid,
        nodes=tuple(_node_from_proto(node) for node in region.nodes),
    )


def _node_from_proto(node: DERPMap.Region.Node) -> RelayNode:
    return RelayNode(
        name=node.name,
        region_id=node.region_id,
        host=node.host_name,
        cert_name=node.cert_name,
        ipv4=node.ipv4,
        ipv6=node.ipv6,
        stun_port=node.stun_port,
        stun_only=node.stun_only,
        derp_port=node.derp_port,
        insecure=node.insecure_for_tests,
        force_http=node.force_http,
        stun_test_ip=node.stun_test_ip,
        can_port_80=node.can_port_80,
    )
