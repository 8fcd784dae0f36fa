"""The coordinator with its surroundings: carries one peer's requests and answers, and remembers announced nodes."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from uuid import UUID

from coder.rpc.handlers import Send
from coder.server.relay_clients import RelayClients
from coder.tailnet.coordinator import Connection, Coordinator
from coder.tailnet.tunnels import Authorization, apply
from coder.wire.proto.tailnet_pb2 import CoordinateRequest, Node


class Introductions:
    """Runs coordinations against one coordinator."""

    def __init__(self, coordinator: Coordinator, relay_clients: RelayClients | None = None) -> None:
        self._coordinator = coordinator
        self._relay_clients = relay_clients
        self._nodes: dict[UUID, Node] = {}
        self._running: dict[UUID, tuple[Connection, asyncio.Event]] = {}
        self._users: dict[UUID, tuple[UUID, str]] = {}

    @property
    def peers(self) -> int:
        """Number of peers that are connected now."""
        return len(self._running)

    def node(self, peer: UUID) -> Node | None:
        """Return the node a connected peer last announced; its latencies are shown to users."""
        return self._nodes.get(peer)

    @contextmanager
    def of_user(self, peer: UUID, user_id: UUID, username: str) -> Iterator[None]:
        """Remember whose a peer is while the block runs."""
        mine = self._users[peer] = (user_id, username)
        try:
            yield
        finally:
            if self._users.get(peer) is mine:
                del self._users[peer]

    def user_at(self, address: str) -> tuple[UUID, str] | None:
        """Return id and name of the user whose peers announce this tunnel address; None when that is not one user."""
        peers = [peer for peer, node in self._nodes.items() if f"{address}/128" in node.addresses]
        users = {self._users[peer] for peer in peers if peer in self._users}
        return users.pop() if len(users) == 1 else None

    def partners(self, peer: UUID) -> list[tuple[str, Node]]:
        """Return which users' peers are introduced to a peer now: the user's name and the node."""
        peers = (other for other in self._coordinator.partners(peer) if other in self._users)
        found = ((self._users[other][1], self._nodes.get(other)) for other in peers)
        return sorted(((name, node) for name, node in found if node is not None), key=lambda each: each[0])

    def users(self, peer: UUID) -> set[UUID]:
        """Return the users whose peers have asked for a tunnel to a peer, whether that is here now or not."""
        return {self._users[other][0] for other in self._coordinator.partners(peer) if other in self._users}

    async def coordinate(
        self, peer: UUID, rules: Authorization, requests: AsyncIterator[CoordinateRequest], send: Send
    ) -> None:
        """Carry one coordination until either side ends it."""
        wake, over = asyncio.Event(), asyncio.Event()
        connection = self._coordinator.connect(peer, wake.set)
        running = self._running[peer] = connection, over
        reading = asyncio.create_task(self._read(connection, rules, requests))
        try:
            while True:
                for response in connection.take():
                    await send(response)
                if connection.closed and not wake.is_set():
                    return
                await wake.wait()
                wake.clear()
        finally:
            connection.lost()
            connection.take()  # nobody will any more; a peer that did not read left up to 512 nodes
            over.set()
            if self._running.get(peer) is running:
                del self._running[peer]
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def revoke(self, peer: UUID, reason: str) -> None:
        """End a peer's coordination because it has no right to it now: those it was introduced to drop it, and it them.

        Returns when the peer was told, which may be never.
        """
        if (running := self._running.get(peer)) is not None:
            connection, over = running
            connection.revoke(reason)
            await over.wait()

    async def _read(
        self, connection: Connection, rules: Authorization, requests: AsyncIterator[CoordinateRequest]
    ) -> None:
        announced = None
        try:
            async for request in requests:
                await apply(connection, rules, request)
                if connection.closed:
                    return
                if request.HasField("update_self"):
                    self._changed_key(announced, request.update_self.node)
                    announced = self._nodes[connection.peer] = request.update_self.node
        finally:
            self._changed_key(announced, None)
            if announced is not None and self._nodes.get(connection.peer) is announced:
                del self._nodes[connection.peer]
            connection.lost()

    def _changed_key(self, before: Node | None, now: Node | None) -> None:
        if self._relay_clients is None or (before and now and before.key == now.key):
            return
        if now is not None:  # joined before the other has left: the same key never seems gone
            self._relay_clients.joined(now.key)
        if before is not None:
            self._relay_clients.left(before.key)

    def shutdown(self) -> None:
        """Tell every peer that this coordinator ends."""
        self._coordinator.shutdown()
