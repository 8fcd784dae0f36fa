"""Which relay clients are known."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from coder.server.introductions import Introductions
from coder.server.relay_clients import RelayClients
from coder.tailnet.coordinator import MemoryCoordinator
from coder.wire.proto.tailnet_pb2 import CoordinateRequest, CoordinateResponse, Node

ONE, TWO = b"np" + bytes(32), b"np" + bytes(range(32))


class Relay:
    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str]]] = []

    def announce(self, keys: Sequence[str]) -> None:
        self.calls.append(("announce", list(keys)))

    def withdraw(self, keys: Sequence[str]) -> None:
        self.calls.append(("withdraw", list(keys)))


def text(key: bytes) -> str:
    return f"nodekey:{key[2:].hex()}"


def test_a_key_is_known_from_its_first_user_to_its_last() -> None:
    relay = Relay()
    clients = RelayClients(relay)
    clients.joined(ONE)
    clients.joined(ONE)
    clients.left(ONE)
    assert relay.calls == [("announce", [text(ONE)])]
    clients.left(ONE)
    assert relay.calls[1:] == [("withdraw", [text(ONE)])]


def test_what_is_no_key_is_ignored() -> None:
    relay = Relay()
    clients = RelayClients(relay)
    for wrong in (b"", b"np", ONE[:-1], ONE + b"x", b"xx" + bytes(32)):
        clients.joined(wrong)
        clients.left(wrong)
    assert relay.calls == []


async def test_a_coordination_announces_its_nodes_key_and_withdraws_it_at_its_end() -> None:
    relay = Relay()
    introductions = Introductions(MemoryCoordinator(), RelayClients(relay))
    requests: asyncio.Queue[CoordinateRequest] = asyncio.Queue()

    async def read() -> AsyncIterator[CoordinateRequest]:
        while True:
            yield await requests.get()

    async def send(response: CoordinateResponse) -> None:
        del response

    async def seen(count: int) -> None:
        for _ in range(100):  # what is awaited happens in this loop, a few turns away
            await asyncio.sleep(0)
        assert len(relay.calls) >= count

    class Rules:
        async def check(self, request: CoordinateRequest) -> None:
            del request

    running = asyncio.create_task(introductions.coordinate(UUID(int=1), Rules(), read(), send))
    for key in (ONE, ONE, TWO):
        requests.put_nowait(CoordinateRequest(update_self=CoordinateRequest.UpdateSelf(node=Node(key=key))))
    await seen(3)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await seen(4)
    assert relay.calls == [
        ("announce", [text(ONE)]),
        ("announce", [text(TWO)]),
        ("withdraw", [text(ONE)]),
        ("withdraw", [text(TWO)]),
    ]
