"""The report on relays and network in the JSON shape that the protocol's health pages and `coder netcheck` share."""

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from coder.peering import relaycheck
from coder.peering.relaycheck import Exchange, Rules
from coder.wire import derpmap_json
from coder.wire.derpmap import DerpMap, Region, RelayNode

if TYPE_CHECKING:
    from coder.dataplane.engine import Engine, NetworkReport
    from coder.tailnet.portmap.report import PortMapReport

USES_WEBSOCKET, NODE_UNHEALTHY, NO_STUN, HARD_NAT = "EDERP01", "EDERP02", "ESTUN01", "ESTUN02"
"""Codes of warnings, as the protocol's clients know them."""

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


@dataclass(frozen=True, slots=True)
class _Checked:
    """A node of the map and what came of it."""

    node: RelayNode
    exchange: Exchange | None
    """None for a node that only answers STUN."""
    stun: bool | None
    """Whether it answered STUN; None when it should not."""

    @property
    def healthy(self) -> bool:
        return self.exchange.round_trip is not None if self.exchange is not None else bool(self.stun)

    @property
    def severity(self) -> str:
        if not self.healthy:
            return "error"
        slow = self.stun is False or (self.exchange is not None and self.exchange.websocket is not None)
        return "warning" if slow else "ok"


async def derp_report(
    engine: "Engine", derp_map: DerpMap, rules: Rules, patience: float
) -> tuple[dict[str, Any], "PortMapReport"]:
    """Check every relay and STUN server of the map, the network as a whole and its router, all at once."""
    router, whole, *regions = await asyncio.gather(
        relaycheck.router(engine, rules),
        relaycheck.check(engine, derp_map, rules, patience),
        *(_region(engine, derp_map, region, rules, patience) for region in derp_map.regions.values()),
    )
    reports: dict[str, Any] = {str(each["region"]["RegionID"]): each for each in regions}
    healthy = all(each["healthy"] for each in reports.values())
    warnings = _network_warnings(derp_map, whole)
    severities = [each["severity"] for each in reports.values()] + ["warning"] * bool(warnings)
    derp = {
        "severity": _worst(severities),
        "warnings": warnings,
        "dismissed": False,
        "healthy": healthy,
        "regions": reports,
        "netcheck": None if whole is None else netcheck(whole, router),
        "netcheck_logs": [],
    }
    return derp, router


async def _region(engine: "Engine", derp_map: DerpMap, region: Region, rules: Rules, patience: float) -> dict[str, Any]:
    checked = await asyncio.gather(*(_node(engine, derp_map, region, node, rules, patience) for node in region.nodes))
    bad = sum(not each.healthy for each in checked)
    warnings = []
    if bad == 1 and len(checked) > 1:
        warnings = [{"code": NODE_UNHEALTHY, "message": "One relay of this region does not work; the others do."}]
    return {
        "healthy": bad == 0 or (bad == 1 and len(checked) > 1),
        "severity": _worst([*(each.severity for each in checked)]),
        "warnings": warnings,
        "region": _region_json(region),
        "node_reports": [_node_report(each) for each in checked],
    }


async def _node(  # noqa: PLR0917 - one thing a time
    engine: "Engine", derp_map: DerpMap, region: Region, node: RelayNode, rules: Rules, patience: float
) -> _Checked:
    alone = replace(region, nodes=(node,))
    exchanged = None if node.stun_only else await relaycheck.exchange(engine, derp_map, alone, rules, patience)
    if node.stun_port < 0:
        return _Checked(node, exchanged, None)
    report = await relaycheck.check(engine, relaycheck.only(derp_map, alone), rules, patience)
    return _Checked(node, exchanged, report is not None and report.udp)


def _node_report(checked: _Checked) -> dict[str, Any]:
    exchanged = checked.exchange
    trip = exchanged.round_trip if exchanged is not None else None
    websocket = exchanged is not None and exchanged.websocket is not None
    warnings = []
    if exchanged is not None and exchanged.websocket is not None:
        warnings.append({"code": USES_WEBSOCKET, "message": f"Reached by WebSocket: {exchanged.websocket}."})
    failed = None if checked.stun in {None, True} else "no answer"
    return {
        "healthy": checked.healthy,
        "severity": checked.severity,
        "warnings": warnings,
        "node": _region_json(Region(id=checked.node.region_id, nodes=(checked.node,)))["Nodes"][0],
        "node_info": {"TokenBucketBytesPerSecond": 0, "TokenBucketBytesBurst": 0},
        "can_exchange_messages": trip is not None,
        "round_trip_ping": go_duration(trip or 0.0),
        "round_trip_ping_ms": int((trip or 0.0) * 1e3),
        "uses_websocket": websocket,
        "client_logs": [[], []] if exchanged is not None else [],
        "client_errs": list(exchanged.problems) if exchanged is not None else [],
        "stun": {"Enabled": checked.stun is not None, "CanSTUN": bool(checked.stun), "Error": failed},
    }


def _region_json(region: Region) -> dict[str, Any]:
    found: dict[str, Any] = derpmap_json.dump(DerpMap().with_regions([(region.id, region)]))["Regions"][str(region.id)]
    return found


def _network_warnings(derp_map: DerpMap, report: "NetworkReport | None") -> list[dict[str, str]]:
    if all(node.stun_port < 0 for region in derp_map.regions.values() for node in region.nodes):
        return [{"code": NO_STUN, "message": "No STUN server is configured, so there are no direct connections."}]
    if report is not None and report.mapping_varies_by_dest_ip:
        return [{"code": HARD_NAT, "message": "This network's NAT uses another port for each destination."}]
    return []


def netcheck(report: "NetworkReport", router: "PortMapReport") -> dict[str, Any]:
    """Write a report under the names of Tailscale's Go type; latencies in nanoseconds."""

    def latencies(of: dict[int, float]) -> dict[str, int]:
        return {str(region): round(seconds * 1e9) for region, seconds in of.items()}

    return {
        "UDP": report.udp,
        "IPv6": report.ipv6,
        "IPv4": report.ipv4,
        "IPv6CanSend": report.ipv6_can_send,
        "IPv4CanSend": report.ipv4_can_send,
        "OSHasIPv6": report.os_has_ipv6,
        "ICMPv4": report.icmpv4,
        "MappingVariesByDestIP": report.mapping_varies_by_dest_ip,
        "HairPinning": report.hair_pinning,
        "UPnP": router.upnp,
        "PMP": router.pmp,
        "PCP": router.pcp,
        "PreferredDERP": report.preferred_derp,
        "RegionLatency": latencies(report.region_latency),
        "RegionV4Latency": latencies(report.region_v4_latency),
        "RegionV6Latency": latencies(report.region_v6_latency),
        "GlobalV4": report.global_v4 or "",
        "GlobalV6": report.global_v6 or "",
        "CaptivePortal": report.captive_portal,
    }


def go_duration(seconds: float) -> str:
    """Write a duration below a minute as Go does: `397.541µs`, `1.2ms`, `0s`."""
    for size, unit in _UNITS:
        if seconds >= size:
            digits = f"{seconds / size:.6f}".rstrip("0").rstrip(".")
            return f"{digits}{unit}"
    return "0s"


def _worst(severities: list[str]) -> str:
    return max(severities, key=("ok", "warning", "error").index, default="ok")
