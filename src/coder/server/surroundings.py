"""Gathers what views need besides rows: the time, and what agents measured to the relays."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from coder.db.models import Workspace
from coder.server.agent_views import Place
from coder.server.deployment import Deployment
from coder.server.views import Surroundings
from coder.tailnet.home import by_region


def surroundings(deployment: Deployment, rows: Iterable[Workspace]) -> Surroundings:
    """Return what the views of these workspaces need."""
    places = {
        agent.id: Place(row.id, row.name, row.owner.username) for row in rows for agent in row.latest_build.agents
    }
    return replace(of_agents(deployment, places), places=places)


def of_agents(deployment: Deployment, agent_ids: Iterable[UUID]) -> Surroundings:
    """Return what the views of these agents need."""
    return Surroundings(
        now=deployment.clock.now(),
        troubleshooting_url=deployment.settings.client.troubleshooting_url,
        latencies={agent: found for agent in agent_ids if (found := _latencies(deployment, agent))},
    )


def _latencies(deployment: Deployment, agent_id: UUID) -> Mapping[str, Mapping[str, Any]]:
    """Return an agent's latencies by region name, best of both families, from the node it announced."""
    node = deployment.introductions.node(agent_id)
    if node is None:
        return {}
    names = deployment.maps.region_names()
    return {
        names[region]: {"preferred": region == node.preferred_derp, "latency_ms": seconds * 1e3}
        for region, seconds in sorted(by_region(node.derp_latency).items())
        if region in names
    }
