"""`coder netcheck`."""

import asyncio
from typing import Any

import click

from coder.cli import output
from coder.cli.context import Globals

PATIENCE = 10.0
"""Seconds for each relay; all are tried at once."""


@click.command("netcheck")
@click.pass_obj
def command(flags: Globals) -> None:
    """Report on the relays and on this machine's network, as JSON.

    `coder doctor` says the same in words.
    """
    output.note("Gathering a network report. This may take a few seconds...")
    output.out(output.json_text(asyncio.run(_report(flags))))


async def _report(flags: Globals) -> dict[str, Any]:
    from coder.agent.interfaces import interfaces
    from coder.agent.netcheck import interface_report
    from coder.cli import health
    from coder.cli.connect import relay_map
    from coder.cli.relaycheck import Rules
    from coder.cli.threads import in_thread
    from coder.dataplane.engine import Engine
    from coder.tailnet import derpmap, home

    with flags.api() as api:
        info = await in_thread(api.any_connection_info)
        relays = home.pinned(derpmap.rewrite_embedded(relay_map(api.url, info), api.url), flags.prefer_region)
        rules = Rules.of(flags, api.url, force_websockets=bool(info.get("derp_force_websockets")))
    async with Engine() as engine:
        derp = await health.derp_report(engine, relays, rules, PATIENCE)
    found = derp["netcheck"] or {"PreferredDERP": 0, "RegionLatency": {}}
    latencies = {int(region): nanoseconds / 1e9 for region, nanoseconds in found["RegionLatency"].items()}
    why = home.why(relays, found["PreferredDERP"], latencies, flags.prefer_region)
    output.note(f"Home: {why}.")
    return {"derp": derp, "home": why, "interfaces": interface_report(await asyncio.to_thread(interfaces))}
