"""What is left of a coordination once it has ended."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

from coder.server.introductions import Introductions
from coder.tailnet.coordinator import Connection, MemoryCoordinator
from coder.wire.proto.tailnet_pb2 import CoordinateRequest, CoordinateResponse, Node

AGENT, CLIENT = UUID(int=1), UUID(int=2)


class Rules:
    async def check(self, request: CoordinateRequest) -> None:
        del request


async def test_what_a_peer_did_not_read_goes_with_its_coordination() -> None:
    coordinator = MemoryCoordinator()
    made: list[Connection] = []

    class Watched(MemoryCoordinator):
        def connect(self, peer, wake):
            made.append(coordinator.connect(peer, wake))
            return made[-1]

    asked = CoordinateRequest(add_tunnel=CoordinateRequest.Tunnel(id=AGENT.bytes))
    sending = asyncio.Event()

    async def requests() -> AsyncIterator[CoordinateRequest]:
        yield asked
        await asyncio.Event().wait()

    async def send(response: CoordinateResponse) -> None:
        del response
        sending.set()
        await asyncio.Event().wait()  # the peer does not read

    agent = coordinator.connect(AGENT, lambda: None)
    running = asyncio.create_task(Introductions(Watched()).coordinate(CLIENT, Rules(), requests(), send))
    await asyncio.sleep(0)
    for number in range(10):
        agent.handle(CoordinateRequest(update_self=CoordinateRequest.UpdateSelf(node=Node(id=number))))
        await asyncio.sleep(0)
    await sending.wait()
    agent.handle(CoordinateRequest(update_self=CoordinateRequest.UpdateSelf(node=Node(id=99))))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert made[0].closed
    assert made[0].take() == []


async def test_whose_right_ends_is_dropped_by_its_partners_and_hears_of_it() -> None:
    coordinator, told = MemoryCoordinator(), []
    introductions = Introductions(coordinator)

    async def requests() -> AsyncIterator[CoordinateRequest]:
        yield CoordinateRequest(add_tunnel=CoordinateRequest.Tunnel(id=AGENT.bytes))
        yield CoordinateRequest(update_self=CoordinateRequest.UpdateSelf(node=Node(id=1)))
        await asyncio.Event().wait()

    async def send(response: CoordinateResponse) -> None:
        told.extend(update.kind for update in response.peer_updates)

    introduced = asyncio.Event()
    agent = coordinator.connect(AGENT, introduced.set)
    agent.handle(CoordinateRequest(update_self=CoordinateRequest.UpdateSelf(node=Node(id=2))))
    running = asyncio.create_task(introductions.coordinate(CLIENT, Rules(), requests(), send))
    await introduced.wait()
    await introductions.revoke(CLIENT, "token deleted")
    await running
    heard = [update.kind for response in agent.take() for update in response.peer_updates]
    kinds = CoordinateResponse.PeerUpdate
    assert heard == told == [kinds.NODE, kinds.DISCONNECTED]
    await introductions.revoke(CLIENT, "nobody is there now")
