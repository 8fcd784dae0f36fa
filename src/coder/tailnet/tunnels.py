"""What a peer may ask of the coordinator, by kind of peer. Checked for each request before it is applied.

Beyond the deployed rules a node may only announce addresses it holds as allowed addresses: otherwise one agent could
draw its partners' traffic for another's address to itself.
"""

import re
from collections.abc import Awaitable, Callable
from ipaddress import IPv6Address
from typing import Final, Protocol
from uuid import UUID

from coder.errors import Forbidden, Malformed
from coder.ids import DiscoKey, NodeKey, uuid_from_bytes
from coder.tailnet.addresses import LEGACY_AGENT, agent_addresses, parse_host_prefix
from coder.tailnet.coordinator import Connection
from coder.wire.proto.tailnet_pb2 import CoordinateRequest, Node

MAX_NODE: Final = 8 * 1024
"""Bytes of one node record; real ones have 300 to 1500."""

_MAX_REGION: Final = 2**16 - 1
_LATENCY: Final = re.compile(r"([0-9]{1,5})-v[46]")


class Authorization(Protocol):
    """The rules for one peer."""

    async def check(self, request: CoordinateRequest) -> None:
        """Raise `Forbidden` or `Malformed`, with the reason for the peer, unless all of the request is allowed."""
        ...


async def apply(connection: Connection, authorization: Authorization, request: CoordinateRequest) -> None:
    """Hand a request to the coordinator, or end the peer's coordination with the reason why it may not be."""
    try:
        await authorization.check(request)
        connection.handle(request)
    except (Forbidden, Malformed) as refusal:
        connection.fail(f"authorization: {refusal}")


class ClientAuthorization:
    """A client that was let in to one agent."""

    def __init__(self, agent: UUID) -> None:
        self._agent = agent

    async def check(self, request: CoordinateRequest) -> None:
        """See `Authorization.check`."""
        _check_client(request)
        wanted = _wanted(request)
        if wanted not in (None, self._agent):
            raise Forbidden(f"invalid agent id, expected {self._agent}, got {wanted}")


class UserAuthorization:
    """A client of a signed-in user: it may tunnel to every agent that `may_reach` allows."""

    def __init__(self, may_reach: Callable[[UUID], Awaitable[bool]]) -> None:
        self._may_reach = may_reach

    async def check(self, request: CoordinateRequest) -> None:
        """See `Authorization.check`."""
        _check_client(request)
        wanted = _wanted(request)
        if wanted is not None and not await self._may_reach(wanted):
            raise Forbidden("workspace agent not found or you do not have permission")


class AgentAuthorization:
    """An agent: it opens no tunnels and announces only its own addresses."""

    def __init__(self, agent: UUID) -> None:
        self._allowed = {*agent_addresses(agent), LEGACY_AGENT}

    async def check(self, request: CoordinateRequest) -> None:
        """See `Authorization.check`."""
        if request.HasField("add_tunnel"):
            raise Forbidden("agents cannot open tunnels")
        if request.HasField("update_self"):
            for address in _check_node(request.update_self.node):
                if address not in self._allowed:
                    raise Forbidden(f"invalid node address, got {address}")


class TrustedAuthorization:
    """The server's own node: anything goes."""

    async def check(self, request: CoordinateRequest) -> None:
        """Allow everything."""


def _check_client(request: CoordinateRequest) -> None:
    if request.ready_for_handshake:
        raise Forbidden("clients may not send ready_for_handshake")
    if request.HasField("update_self"):
        _check_node(request.update_self.node)


def _wanted(request: CoordinateRequest) -> UUID | None:
    return uuid_from_bytes(request.add_tunnel.id) if request.HasField("add_tunnel") else None


def _check_node(node: Node) -> list[IPv6Address]:
    """Return the node's addresses. Raises for what no peer may announce, whoever it is."""
    if node.ByteSize() > MAX_NODE:
        raise Malformed(f"a node record has at most {MAX_NODE} bytes, this has {node.ByteSize()}")
    addresses = [parse_host_prefix(text) for text in node.addresses]
    allowed = [parse_host_prefix(text, where="allowed_ips") for text in node.allowed_ips]
    if set(allowed) != set(addresses):
        raise Forbidden("allowed_ips must be the node's own addresses")
    NodeKey.from_wire(node.key)
    DiscoKey.parse(node.disco, where="disco")
    _check_regions(node)
    return addresses


def _check_regions(node: Node) -> None:
    """Raise `Malformed` for relay regions that cannot be: their numbers have 16 bits; a home of 0 is none yet."""
    if not 0 <= node.preferred_derp <= _MAX_REGION:
        raise Malformed(f"there is no region {node.preferred_derp}", where="preferred_derp")
    for region in node.derp_forced_websocket:
        if not 0 < region <= _MAX_REGION:
            raise Malformed(f"there is no region {region}", where="derp_forced_websocket")
    for name in node.derp_latency:
        found = _LATENCY.fullmatch(name)
        if found is None or not 0 < int(found[1]) <= _MAX_REGION:
            raise Malformed(f"expected a region with -v4 or -v6, got {name[:32]!r}", where="derp_latency")
