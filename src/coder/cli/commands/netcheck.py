"""`coder netcheck`."""

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import click

from coder.cli import output
from coder.cli.context import Globals

if TYPE_CHECKING:
    from coder.outbound import Outbound
    from coder.tailnet.portmap.report import PortMapReport
    from coder.wire.derpmap import DerpMap

PATIENCE = 10.0
"""Seconds for each relay; all are tried at once."""


@click.command("netcheck")
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["table", "json"]),
    help="Output format.  [default: table on a terminal, else json]",
)
@click.pass_obj
def command(flags: Globals, *, form: str | None) -> None:
    """Report on the relays and on this machine's network.

    Regions come nearest first. `coder doctor` says what would make connections direct.
    """
    output.note("Gathering a network report. This may take a few seconds...")
    found = asyncio.run(_report(flags))
    if (form or ("table" if sys.stdout.isatty() else "json")) == "table":
        from coder.cli import netcheck_table

        output.out()
        output.out(netcheck_table.lines(found))
        return
    output.out(output.json_text(found))
    output.note(f"Home: {found['home']}.")


async def _report(flags: Globals) -> dict[str, Any]:
    from coder.agent.interfaces import interfaces
    from coder.agent.netcheck import interface_report
    from coder.cli.connect import relay_map
    from coder.cli.threads import in_thread
    from coder.dataplane.engine import Engine
    from coder.peering import derp_report
    from coder.peering.relaycheck import Rules
    from coder.tailnet import derpmap, home

    with flags.api() as api:
        info = await in_thread(api.any_connection_info)
        relays = home.pinned(derpmap.rewrite_embedded(relay_map(api.url, info), api.url), flags.prefer_region)
        rules = Rules.of(flags, api.url, force_websockets=bool(info.get("derp_force_websockets")))
    async with Engine() as engine:
        derp, router = await derp_report.derp_report(engine, relays, rules, PATIENCE)
    found = derp["netcheck"] or {"PreferredDERP": 0, "RegionLatency": {}}
    latencies = {int(region): nanoseconds / 1e9 for region, nanoseconds in found["RegionLatency"].items()}
    return {
        "derp": derp,
        "home": home.why(relays, found["PreferredDERP"], latencies, flags.prefer_region),
        "port_mapping": _mapping(router),
        "proxies": _proxies(rules.outbound, relays),
        "interfaces": interface_report(await asyncio.to_thread(interfaces)),
    }


def _mapping(router: "PortMapReport") -> dict[str, Any]:
    return {
        "gateway": router.gateway,
        "protocol": str(router.via) if router.via is not None else None,
        "external": router.external,
        "double_nat": router.double_nat,
        "error": router.error,
    }


def _proxies(outbound: "Outbound", relays: "DerpMap") -> list[str]:
    """Return the proxies on the way to any relay, without their logins."""
    nodes = [node for region in relays.regions.values() for node in region.nodes if not node.stun_only]
    used = (
        outbound.proxies.of("http" if node.force_http else "https", node.host, node.derp_port or 443) for node in nodes
    )
    return sorted({proxy.address for proxy in used if proxy is not None})
