"""The agent's report on its network: `GET /api/v0/netcheck`, in the shape clients of the protocol read."""

import asyncio
from typing import TYPE_CHECKING, Any

from coder.agent.interfaces import interfaces
from coder.peering import network
from coder.tailnet.diagnosis import MIN_MTU
from coder.tailnet.sides import Interface
from coder.wire import netinfo
from coder.wire.netinfo import NetInfo

if TYPE_CHECKING:
    from coder.peering import Peering

PATIENCE = 5.0
"""Seconds for a check of the network, if none has ended before. Clients wait longer."""

SMALL_MTU = "EIF01"
"""Code of the warning about an interface that carries too little, as the protocol's clients know it."""


async def report(peering: "Peering | None") -> dict[str, Any]:
    """Make the answer; what cannot be found out is left unknown."""
    found = await asyncio.to_thread(interfaces)
    info = NetInfo()
    if peering is not None:
        info = network.net_info(await network.checked(peering.node, PATIENCE), peering.state())
    return {
        "severity": "ok",
        "warnings": None,
        "dismissed": False,
        "net_info": netinfo.dump(info),
        "interfaces": interface_report(found),
    }


def interface_report(found: list[Interface]) -> dict[str, Any]:
    """List the interfaces, with a warning for each that carries too little."""
    warnings = [
        {"code": SMALL_MTU, "message": f"Network interface {one.name} has MTU {one.mtu}, less than {MIN_MTU} bytes."}
        for one in found
        if 0 < one.mtu < MIN_MTU
    ]
    return {
        "severity": "warning" if warnings else "ok",
        "warnings": warnings,
        "dismissed": False,
        "interfaces": [{"name": one.name, "mtu": one.mtu, "addresses": list(one.addresses)} for one in found],
    }
