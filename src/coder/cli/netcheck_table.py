"""`coder netcheck` for people: the report it prints as JSON, in words and as a table of the regions."""

from collections.abc import Iterator
from typing import Any

from coder.cli import output
from coder.cli.listing import fitted
from coder.cli.options import format_latency

_COLUMNS = ("region", "code", "name", "latency", "relay", "stun")
_UNKNOWN = "not known"


def lines(report: dict[str, Any]) -> str:
    """Write the report."""
    facts = list(_facts(report))
    width = max(len(name) for name, _ in facts) + 2
    told = [output.hang(name.ljust(width), text) for name, text in facts]
    warnings = [output.hang("! ", text) for text in _warnings(report)]
    blocks = ["\n".join(told), fitted(_COLUMNS, _regions(report["derp"]), ("name", "code")), "\n".join(warnings)]
    return "\n\n".join(block for block in blocks if block)


def _facts(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    found, router = report["derp"]["netcheck"], report["port_mapping"]
    if found is None:
        yield "Network", "not checked in time"
    else:
        yield "UDP", "works" if found["UDP"] else "blocked: no STUN server answers"
        yield "IPv4", _family(found, "IPv4", found["GlobalV4"])
        yield "IPv6", _family(found, "IPv6", found["GlobalV6"]) if found["OSHasIPv6"] else "not on this machine"
        yield "NAT", _NAT[found["MappingVariesByDestIP"]] + _HAIRPIN[found["HairPinning"]]
    yield "Port mapping", _mapping(found or {}, router)
    if found is not None:
        yield (
            "Captive portal",
            {None: "not tested", True: "yes: log in to this network first", False: "none"}[found["CaptivePortal"]],
        )
    yield "Proxy", ", ".join(report["proxies"]) or "none"
    yield "Home", report["home"]


_NAT = {
    None: f"{_UNKNOWN}: that takes two STUN servers",
    True: "hard: another port for each destination",
    False: "easy or none: the same port for every destination",
}
_HAIRPIN = {None: "", True: "; hairpin works", False: "; no hairpin"}


def _family(found: dict[str, Any], family: str, seen: str) -> str:
    if found[family]:
        return f"works, seen as {seen}" if seen else "works"
    return "no answer" if found[f"{family}CanSend"] else "nothing can be sent"


def _mapping(found: dict[str, Any], router: dict[str, Any]) -> str:
    if router["external"]:
        behind = "; but that router stands behind another NAT" if router["double_nat"] else ""
        return f"{router['protocol']} by {router['gateway']} gives {router['external']}{behind}"
    spoken = [name for name, key in (("PCP", "PCP"), ("NAT-PMP", "PMP"), ("UPnP", "UPnP")) if found.get(key)]
    if spoken:
        return f"{router['gateway']} speaks {', '.join(spoken)}, but gives no port" + _because(router["error"])
    return "none" + _because(router["error"])


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


def _regions(derp: dict[str, Any]) -> list[tuple[str, ...]]:
    """Make a row for each region, nearest first, those that were not measured last."""
    found = derp["netcheck"] or {"RegionLatency": {}, "PreferredDERP": 0}
    latencies = found["RegionLatency"]

    def row(key: str) -> tuple[str, ...]:
        each = derp["regions"][key]
        region, nodes = each["region"], each["node_reports"]
        latency = format_latency(latencies[key] / 1e9) if key in latencies else "-"
        mark = " *" if key == str(found["PreferredDERP"]) else ""
        relays = ["none, STUN only" if node["node"].get("STUNOnly") else _relay(node) for node in nodes]
        stun = [_stun(node["stun"]) for node in nodes if node["stun"]["Enabled"]]
        texts = (key + mark, region.get("RegionCode", ""), region.get("RegionName", ""), latency)
        return *texts, _joined(relays), _joined(stun)

    order = sorted(derp["regions"], key=lambda key: (latencies.get(key, float("inf")), int(key)))
    return [row(key) for key in order]


def _joined(texts: list[str]) -> str:
    return "; ".join(dict.fromkeys(texts)) or "-"


def _relay(node: dict[str, Any]) -> str:
    """Say by what way messages went through a relay, and so what the way there does to the upgrade."""
    if not node["can_exchange_messages"]:
        return "does not work"
    way = "by WebSocket" if node["uses_websocket"] else "by HTTP upgrade"
    return f"{way}, {node['round_trip_ping_ms'] or '<1'}ms"


def _stun(found: dict[str, Any]) -> str:
    return "answers" if found["CanSTUN"] else "no answer"


def _warnings(report: dict[str, Any]) -> Iterator[str]:
    derp = report["derp"]
    yield from (each["message"] for each in [*derp["warnings"], *report["interfaces"]["warnings"]])
    for each in derp["regions"].values():
        region = each["region"]
        name = f"Region {region['RegionID']} ({region.get('RegionCode') or region.get('RegionName')})"
        yield from (f"{name}: {warning['message']}" for warning in each["warnings"])
        for node in each["node_reports"]:
            yield from (f"{name}, {node['node']['Name']}: {warning['message']}" for warning in node["warnings"])
            if not node["can_exchange_messages"] and not node["node"].get("STUNOnly"):
                yield _problem(node) + "."


def _problem(report: dict[str, Any]) -> str:
    """Return the last complaint of the two ends that tried a relay."""
    told = [errors[-1].rstrip(": .") for errors in report["client_errs"] if errors]
    node = report["node"]  # a complaint names it by itself
    return told[0] if told else f"relay region {node['RegionID']}, node {node['Name']}: no message came through"
