"""What a node says of its network: `tailcfg.NetInfo` in JSON, field names as in Tailscale's Go type.

Unknown is `null`; what a newer or older node writes otherwise is read as unknown.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_FLAGS: Final = {
    "mapping_varies_by_dest_ip": "MappingVariesByDestIP",
    "hair_pinning": "HairPinning",
    "working_ipv6": "WorkingIPv6",
    "os_has_ipv6": "OSHasIPv6",
    "working_udp": "WorkingUDP",
    "working_icmpv4": "WorkingICMPv4",
    "upnp": "UPnP",
    "pmp": "PMP",
    "pcp": "PCP",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NetInfo:
    """The findings of a node's last check of its network."""

    mapping_varies_by_dest_ip: bool | None = None
    """The NAT is hard."""
    hair_pinning: bool | None = None
    working_ipv6: bool | None = None
    os_has_ipv6: bool | None = None
    working_udp: bool | None = None
    working_icmpv4: bool | None = None
    have_port_map: bool = False
    """A port mapping is in force."""
    upnp: bool | None = None
    """The router speaks UPnP IGD …"""
    pmp: bool | None = None
    """… NAT-PMP …"""
    pcp: bool | None = None
    """… PCP."""
    preferred_derp: int = 0
    derp_latency: Mapping[str, float] = field(default_factory=dict)
    """Seconds by `<region>-v4` or `-v6`."""


def dump(info: NetInfo) -> dict[str, Any]:
    """Return the JSON value."""
    value: dict[str, Any] = {name: getattr(info, attribute) for attribute, name in _FLAGS.items()}
    if info.have_port_map:
        value["HavePortMap"] = True
    value["PreferredDERP"] = info.preferred_derp
    if info.derp_latency:
        value["DERPLatency"] = dict(info.derp_latency)
    return value


def load(value: Any) -> NetInfo:
    """Read a JSON value, of any shape: what does not fit is unknown."""
    found = value if isinstance(value, dict) else {}
    flags = {attribute: _flag(found.get(name)) for attribute, name in _FLAGS.items()}
    home = found.get("PreferredDERP")
    latencies = found.get("DERPLatency")
    return NetInfo(
        **flags,
        have_port_map=found.get("HavePortMap") is True,
        preferred_derp=home if isinstance(home, int) and not isinstance(home, bool) else 0,
        derp_latency={
            str(region): seconds
            for region, seconds in (latencies.items() if isinstance(latencies, dict) else ())
            if isinstance(seconds, float) or type(seconds) is int
        },
    )


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None
