"""A workspace whose agent answers as a test wants, and what a command's node finds."""

from collections.abc import Callable
from typing import Any

from coder.dataplane.engine import EndpointFacts, PeerPaths, Pong
from fakes.engine import DIRECT, RELAYED, FakeNode, result
from fakes.server import AGENT_ID

BY_NAME = "GET /api/v2/users/me/workspace/dev"
AGENT = f"GET /api/v2/workspaceagents/{AGENT_ID}"
RELAY_PONG = Pong(latency=0.029, path=RELAYED)
DIRECT_PONG = Pong(latency=0.000264, path=DIRECT)

PEER_KEY = "nodekey:" + bytes(range(32)).hex()
"""The agent's, as the fake coordinator tells it."""

PATHS = {"ipv4": True, "port_mapping": None, "direct_blocked": False, "udp_port": 41641, "heard_directly": False}


def netcheck(*, mtu=1500, **info):
    """An agent's report on its network, behind a NAT that is easy unless said otherwise."""
    found = {"MappingVariesByDestIP": False, "WorkingUDP": True, "WorkingIPv6": False, "PreferredDERP": 999} | info
    interfaces = [{"name": "eth0", "mtu": mtu, "addresses": ["192.168.7.7/24"]}]
    return {"severity": "ok", "warnings": None, "net_info": found, "interfaces": {"interfaces": interfaces}}


def paths(*, heard: bool = False, direct: bool = False, mtu: int | None = None) -> PeerPaths:
    """What the command's node knows of the way to the agent."""
    endpoint = EndpointFacts(
        address="10.0.0.7:41641", source="advertised", last_ping=0.1, last_pong=0.1 if direct else None,
        last_heard=0.1 if heard else None, latency=None, best=direct, trusted=direct, mtu=1338 if direct else mtu,
    )  # fmt: skip
    return PeerPaths(
        endpoints=(endpoint,), endpoint=endpoint.address if direct else None, relay=999, changed_ago=0.1, reason=None,
        active_for=5.0, first_direct=0.8 if direct else None, block_direct=False,
    )  # fmt: skip


def prepare(node: FakeNode) -> None:
    """Make a node that reaches the agent over the relay, behind an easy NAT; the agent's is hard."""
    node.pongs = [RELAY_PONG]
    node.handshakes = {PEER_KEY: 0.2}
    node.paths = {PEER_KEY: paths()}
    node.served = {"/api/v0/netcheck": netcheck(MappingVariesByDestIP=True), "/api/v0/paths": PATHS}
    node.result = result((0.0, 1.0, 125_000_000), (1.0, 2.0, 250_000_000))
    node.settle(endpoints=("10.0.0.2:4000", "203.0.113.7:4000"))


def with_node(network: Any, change: Callable[[FakeNode], None]) -> None:
    """Prepare the command's node further than usual."""
    before = network.prepare

    def both(node: FakeNode) -> None:
        before(node)
        change(node)

    network.prepare = both
