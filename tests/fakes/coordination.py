"""Nodes, ids and requests for tests around the coordinator."""

from datetime import UTC, datetime
from uuid import UUID

from coder.ids import DiscoKey, NodeKey
from coder.tailnet.addresses import agent_addresses, client_address
from coder.tailnet.selfnode import build_node
from coder.wire.proto.tailnet_pb2 import CoordinateRequest, CoordinateResponse

PeerUpdate = CoordinateResponse.PeerUpdate


def uid(number):
    return UUID(int=number, version=4)


def node(owner, *, home=1, key=None, agent=False, endpoints=("192.0.2.1:41641",)):
    number = owner.int & 0xFF
    return build_node(
        number=number,
        as_of=datetime(2030, 1, 1, tzinfo=UTC),
        key=key or NodeKey.from_raw(bytes([number] * 32)),
        disco=DiscoKey.from_raw(bytes([(number + 1) % 256] * 32)),
        home=home,
        latencies={f"{home}-v4": 0.01},
        addresses=agent_addresses(owner) if agent else [client_address(owner)],
        endpoints=endpoints,
    )


def request(*, update=None, add=None, remove=None, disconnect=False, ready=()):
    message = CoordinateRequest()
    if update is not None:
        message.update_self.node.CopyFrom(update)
    if add is not None:
        message.add_tunnel.id = add if isinstance(add, bytes) else add.bytes
    if remove is not None:
        message.remove_tunnel.id = remove if isinstance(remove, bytes) else remove.bytes
    if disconnect:
        message.disconnect.SetInParent()
    for peer in ready:
        message.ready_for_handshake.add(id=peer if isinstance(peer, bytes) else peer.bytes)
    return message
