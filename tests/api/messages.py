"""Requests of agents and clients, and the names they are called by."""

from typing import Any
from uuid import UUID

from google.protobuf.message import Message

from coder.rpc.client import RpcClient, RpcStream
from coder.tailnet.addresses import agent_addresses, client_address, host_prefix
from coder.wire.proto import agent_pb2, tailnet_pb2

AGENT = "/coder.agent.v2.Agent/"
TAILNET = "/coder.tailnet.v2.Tailnet/"

Update = tailnet_pb2.CoordinateResponse.PeerUpdate


async def ask(client: RpcClient, name: str, request: Message, answer: type) -> Any:
    return await client.unary(AGENT + name, request, answer)


def coordinate(client: RpcClient) -> RpcStream[tailnet_pb2.CoordinateResponse]:
    return client.stream(f"{TAILNET}Coordinate", None, tailnet_pb2.CoordinateResponse)


def node(owner: UUID, *, agent: bool) -> tailnet_pb2.Node:
    addresses = [host_prefix(a) for a in (agent_addresses(owner) if agent else [client_address(owner)])]
    return tailnet_pb2.Node(
        id=7,
        key=b"np" + owner.bytes * 2,
        disco="discokey:" + owner.hex * 2,
        preferred_derp=999,
        derp_latency={"999-v4": 0.004, "999-v6": 0.005, "1-v4": 0.001},
        addresses=addresses,
        allowed_ips=addresses,
    )


def update_self(owner: UUID, *, agent: bool) -> tailnet_pb2.CoordinateRequest:
    announced = tailnet_pb2.CoordinateRequest.UpdateSelf(node=node(owner, agent=agent))
    return tailnet_pb2.CoordinateRequest(update_self=announced)


def add_tunnel(to: UUID) -> tailnet_pb2.CoordinateRequest:
    return tailnet_pb2.CoordinateRequest(add_tunnel=tailnet_pb2.CoordinateRequest.Tunnel(id=to.bytes))


def lifecycle(state: int, seconds: int = 1_900_000_000) -> agent_pb2.UpdateLifecycleRequest:
    request = agent_pb2.UpdateLifecycleRequest()
    request.lifecycle.state = state
    request.lifecycle.changed_at.FromSeconds(seconds)
    return request


def startup(version: str = "v2.26.0", directory: str = "/home/a") -> agent_pb2.UpdateStartupRequest:
    return agent_pb2.UpdateStartupRequest(startup=agent_pb2.Startup(version=version, expanded_directory=directory))
