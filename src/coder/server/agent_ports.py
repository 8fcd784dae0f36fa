"""What an agent says of its listening ports, as far as it is worth showing. Pure."""

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from coder.errors import PeerMisbehaved

LOWEST = 9
MAX_PORTS = 1000
"""Ports shown of one agent, at most."""
MAX_NAME = 64

UNSHOWN = frozenset(
    {20, 21, 22, 23, 25, 53, 110, 143, 179, 389, 465, 587, 636, 989, 990, 993, 995, 3306, 3389, 5432}
    | {27017, 27018, 27019, 28017}
)
"""Ports of services that no browser speaks to; the protocol's list."""


def shown(body: bytes, but: Collection[int]) -> list[dict[str, Any]]:
    """Read an agent's answer and return the ports to show, without those named. Raises PeerMisbehaved."""
    try:
        told = json.loads(body)["ports"] or []
        found = {(one["port"], str(one["network"]), str(one.get("process_name") or "")) for one in told}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise PeerMisbehaved("the agent's list of ports makes no sense") from None
    if any(type(port) is not int for port, _, _ in found):
        raise PeerMisbehaved("the agent's list of ports makes no sense")
    return [
        {"process_name": name[:MAX_NAME], "network": "tcp", "port": port}
        for port, network, name in sorted(found)
        if network == "tcp" and LOWEST <= port <= 65535 and port not in UNSHOWN and port not in but
    ][:MAX_PORTS]


def of_apps(apps: Iterable[Mapping[str, Any]]) -> set[int]:
    """Return the ports of apps that are shown by themselves."""
    found = set()
    for app in apps:
        try:
            port = urlsplit(app.get("url") or "").port
        except ValueError:
            continue
        if port:
            found.add(port)
    return found
