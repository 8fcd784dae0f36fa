"""How an agent's node answers: which ports lead where."""

from typing import Literal
from uuid import UUID

from coder.agent.settings import AgentSettings
from coder.dataplane.engine import NodeSettings
from coder.tailnet.addresses import agent_addresses
from coder.wire.proto import agent_pb2 as pb

SSH, TERMINAL, SPEEDTEST, API, SSH_STANDARD = 1, 2, 3, 4, 22
"""TCP ports that mean a service of the agent; every other port is the machine's own."""

PORTS: dict[int, Literal["python", "speedtest", "refuse"]] = {
    SSH: "python",
    TERMINAL: "python",
    SSH_STANDARD: "python",
    SPEEDTEST: "speedtest",
    API: "python",
}


def node_settings(settings: AgentSettings, manifest: pb.Manifest, identity: UUID) -> NodeSettings:
    """Join what the agent was told at its start with what the server says."""
    return NodeSettings(
        addresses=tuple(map(str, agent_addresses(identity))),
        ports=PORTS,
        default="splice",
        listen_port=settings.listen_port,
        block_direct=settings.block_direct or manifest.disable_direct_connections,
        force_websockets=manifest.derp_force_websockets,
        headers=dict(settings.headers),
        outbound=settings.outbound,
        prefer_region=settings.prefer_region,
    )
