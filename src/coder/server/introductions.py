"""The coordinator with its surroundings: carries one peer's requests and answers, and remembers announced nodes."""

import asyncio
from collections.abc import AsyncIterator
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

    def node(self, peer: UUID) -> Node | None:
        """Return the node a connected peer last announced; its latencies are shown to users."""
        return self._nodes.get(peer)

    async def coordinate(
        self, peer: UUID, rules: Authorization, requests: AsyncIterator[CoordinateRequest], send: Send
    ) -> None:
        """Carry one coordination until either side ends it."""
        wake = asyncio.Event()
        connection = self._coordinator.connect(peer, wake.set)
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
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

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
