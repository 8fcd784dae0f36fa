"""The record with which a node announces itself to the coordinator."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from ipaddress import IPv6Address

from coder.ids import DiscoKey, NodeKey
from coder.tailnet.addresses import host_prefix
from coder.wire.proto.tailnet_pb2 import Node


def build_node(
    *,
    number: int,
    as_of: datetime,
    key: NodeKey,
    disco: DiscoKey,
    home: int,
    latencies: Mapping[str, float],
    addresses: Iterable[IPv6Address],
    endpoints: Iterable[str],
    forced_websocket: Mapping[int, str] | None = None,
) -> Node:
    """Build the record.

    `number` is `addresses.node_id` of an agent or a client's random 63-bit number; `home` the region that always
    reaches this node (a record without one, 0, must not be sent); `latencies` seconds by `<region>-v4` or `-v6`;
    `endpoints` candidates as `ip:port`, none when direct paths are blocked; `forced_websocket` reasons by region.
    """
    prefixes = [host_prefix(address) for address in addresses]
    node = Node(
        id=number,
        key=key.to_wire(),
        disco=disco,
        preferred_derp=home,
        derp_latency=latencies,
        derp_forced_websocket=forced_websocket or {},
        addresses=prefixes,
        allowed_ips=prefixes,
        endpoints=endpoints,
    )
    node.as_of.FromDatetime(as_of)
    return node
