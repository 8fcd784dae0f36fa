"""The ways to an agent as the server knows them: its relays, and who is introduced to it."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from uuid import UUID

from coder.access.tokens import peers_path
from coder.errors import CoderError
from coder.server.deployment import Deployment
from coder.server.views import Json
from coder.tailnet.home import by_region
from coder.wire.proto.tailnet_pb2 import Node

API_PORT = 4
"""The agent's own HTTP API in the tunnel."""
PATIENCE = 2.0
"""Seconds an agent has to answer our node before the picture is shown without."""


async def of_server(deployment: Deployment, agent_id: UUID) -> Json | None:
    """Measure the way from the server's own node to an agent; None when there is none now."""
    try:
        pong = await deployment.node.ping(agent_id, PATIENCE)
    except (CoderError, OSError):
        return None
    region = deployment.maps.region_names().get(pong.path.region or 0, "")
    return {"direct": pong.path.kind == "direct", "latency_ms": pong.latency * 1e3, "region": region}


async def of_clients(deployment: Deployment, agent_id: UUID, token_hash: bytes) -> dict[str, Json]:
    """Ask an agent how it reaches its peers: by their address inside the tunnel. Empty when it does not say."""
    try:
        status, body = await deployment.node.http_get(agent_id, API_PORT, peers_path(token_hash), patience=PATIENCE)
        told = json.loads(body)["peers"] if status == HTTPStatus.OK else []
        return {str(address): one for one in told for address in one["addresses"]}
    except (CoderError, OSError, ValueError, TypeError, KeyError):
        return {}


def _way(node: Node, told: Mapping[str, Json]) -> Json:
    one = next((told[address] for each in node.addresses if (address := each.partition("/")[0]) in told), {})
    latency = one.get("latency_ms")
    way = "unknown" if "direct" not in one else "direct" if one["direct"] is True else "relayed"
    return {"way": way, "latency_ms": latency if isinstance(latency, int | float) else None}


def of_agent(
    deployment: Deployment, agent_id: UUID, server: Json | None = None, told: Mapping[str, Json] = MappingProxyType({})
) -> Json:
    """Describe the network around an agent. Latencies are in milliseconds, as the nodes measured them."""
    names, node = deployment.maps.region_names(), deployment.introductions.node(agent_id)
    latencies = _latencies(node, names) if node else {}
    direct = not deployment.settings.derp.block_direct
    return {
        "home": _home(node, latencies, names) if node else None,
        "regions": [
            {
                "id": region,
                "name": names[region],
                "latency_ms": latency,
                "preferred": node is not None and region == node.preferred_derp,
            }
            for region, latency in sorted(latencies.items(), key=lambda each: each[1])
        ],
        "endpoints": len(node.endpoints) if node else 0,
        "clients": [
            {
                "username": username,
                **_way(client, told),
                "home": (home := _home(client, _latencies(client, names), names)),
                "same_home": node is not None and home is not None and client.preferred_derp == node.preferred_derp,
                "direct_possible": direct and bool(client.endpoints) and node is not None and bool(node.endpoints),
            }
            for username, client in deployment.introductions.partners(agent_id)
        ],
        "server": server,
    }


def _latencies(node: Node, names: dict[int, str]) -> dict[int, float]:
    """Return the milliseconds a node measured to each region that there is, the better of both families."""
    return {region: seconds * 1e3 for region, seconds in by_region(node.derp_latency).items() if region in names}


def _home(node: Node, latencies: dict[int, float], names: dict[int, str]) -> Json | None:
    region = node.preferred_derp
    if region not in names:
        return None
    return {"id": region, "name": names[region], "latency_ms": latencies.get(region)}
