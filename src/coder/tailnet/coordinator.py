"""The coordinator: introduces nodes to each other. In memory, for one server.

A peer connects under its id, announces its node and, if it is a client, asks for tunnels. Both ends of a tunnel get
each other's newest node. A peer that asked to leave, or lost its right to be here, is DISCONNECTED to the others; one
that vanished is LOST, and its partners keep what they have. Tunnels that a peer asked for end with its connection,
those that lead to it stay.

`Coordinator` and `Connection` are the port that the RPC shell uses; a coordinator of several servers stands behind the
same two. Nothing here waits: answers queue up in the connection, which calls `wake` when there is something to `take`.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Protocol
from uuid import UUID

from coder.errors import Closed, Malformed
from coder.ids import uuid_from_bytes
from coder.tailnet.graph import TunnelGraph
from coder.wire.proto.tailnet_pb2 import CoordinateRequest, CoordinateResponse, Node

MAX_QUEUE: Final = 512
"""Responses that may wait for one peer; more and it is dropped."""

MAX_READY: Final = 64
"""Peers that one request may call ready; an agent says it once for each client that comes."""

PeerUpdate = CoordinateResponse.PeerUpdate


class Connection(Protocol):
    """One peer's coordination."""

    @property
    def peer(self) -> UUID:
        """The peer's id."""
        ...

    @property
    def closed(self) -> bool:
        """Whether the stream has to end once everything was taken."""
        ...

    def handle(self, request: CoordinateRequest) -> None:
        """Apply a request that was authorised before.

        Raises `Malformed` for a broken id or too many ready peers, with nothing applied.
        """
        ...

    def take(self) -> list[CoordinateResponse]:
        """Return what has to be sent to the peer now, in order."""
        ...

    def fail(self, error: str) -> None:
        """End the coordination because of the peer: it gets the error, the others see it LOST."""
        ...

    def revoke(self, reason: str) -> None:
        """End the coordination for good: it and its partners are told to drop each other."""
        ...

    def lost(self) -> None:
        """Say that the peer's stream has ended. Does nothing after an ordinary end, so call it in any case."""
        ...


class Coordinator(Protocol):
    """Whom connections are made with."""

    def connect(self, peer: UUID, wake: Callable[[], None]) -> Connection:
        """Add a peer, in place of an older connection of the same id. Raises `Closed` during shutdown.

        `wake` is called, from within other calls, whenever `take` has something or `closed` became true.
        """
        ...

    def partners(self, peer: UUID) -> list[UUID]:
        """Return the connected peers that share a tunnel with this one."""
        ...

    def shutdown(self) -> None:
        """End every coordination."""
        ...


class MemoryCoordinator:
    """The coordinator of a single server. All calls come from one thread; none waits."""

    def __init__(self) -> None:
        self._peers: dict[UUID, _Peer] = {}
        self._tunnels = TunnelGraph()
        self._overflowing: deque[_Peer] = deque()
        self._closed = False

    def connect(self, peer: UUID, wake: Callable[[], None]) -> "MemoryConnection":
        """See `Coordinator.connect`."""
        if self._closed:
            raise Closed("the coordinator is shutting down")
        old = self._peers.get(peer)
        if old is not None:
            old.end("peer ID overwritten by new connection")
        new = self._peers[peer] = _Peer(peer, wake)
        updates = [
            update
            for other in self._partners(peer)
            if (update := new.node_update(other.id, other.node, other.encoded, "init")) is not None
        ]
        if updates:
            self._push_nodes(new, updates)
        self._drop_overflowing()
        return MemoryConnection(self, new)

    def partners(self, peer: UUID) -> list[UUID]:
        """See `Coordinator.partners`."""
        return [other.id for other in self._partners(peer)]

    def shutdown(self) -> None:
        """See `Coordinator.shutdown`."""
        self._closed = True
        for peer in list(self._peers.values()):
            self._tell_gone(peer, PeerUpdate.LOST, "coordinator close")
        for peer in self._peers.values():
            peer.end("coordinator closed")
        self._peers.clear()
        self._tunnels = TunnelGraph()
        self._overflowing.clear()

    def __len__(self) -> int:
        """Count the connected peers."""
        return len(self._peers)

    # --- what connections ask for

    def _handle(self, peer: "_Peer", request: CoordinateRequest) -> None:
        add = uuid_from_bytes(request.add_tunnel.id) if request.HasField("add_tunnel") else None
        remove = uuid_from_bytes(request.remove_tunnel.id) if request.HasField("remove_tunnel") else None
        if len(request.ready_for_handshake) > MAX_READY:
            raise Malformed(f"at most {MAX_READY} peers at once", where="ready_for_handshake")
        ready = [uuid_from_bytes(entry.id) for entry in request.ready_for_handshake]
        if request.HasField("update_self"):
            self._update(peer, request.update_self.node)
        if add is not None:
            self._add_tunnel(peer, add)
        if remove is not None:
            self._remove_tunnel(peer, remove)
        if request.HasField("disconnect"):
            self._remove(peer, PeerUpdate.DISCONNECTED, "graceful disconnect")
        else:
            for other in ready:
                self._ready(peer, other)
        self._drop_overflowing()

    def _update(self, peer: "_Peer", node: Node) -> None:
        peer.set_node(node)
        for other in self._partners(peer.id):
            self._send_node(other, peer, "node update")

    def _add_tunnel(self, peer: "_Peer", other_id: UUID) -> None:
        self._tunnels.add(peer.id, other_id)
        other = self._peers.get(other_id)
        if other is not None and other is not peer:
            self._send_node(peer, other, "add tunnel")
            self._send_node(other, peer, "add tunnel")

    def _remove_tunnel(self, peer: "_Peer", other_id: UUID) -> None:
        self._tunnels.remove(peer.id, other_id)
        if self._tunnels.joined(peer.id, other_id):  # the other end has asked for one too: they stay partners
            return
        self._send_gone(peer, other_id, PeerUpdate.DISCONNECTED, "remove tunnel")
        other = self._peers.get(other_id)
        if other is not None:
            self._send_gone(other, peer.id, PeerUpdate.DISCONNECTED, "remove tunnel")

    def _ready(self, peer: "_Peer", other_id: UUID) -> None:
        if not self._tunnels.joined(peer.id, other_id):
            error = f'ready for handshake error: you do not share a tunnel with "{other_id}"'
            self._push(peer, CoordinateResponse(error=error))
            return
        other = self._peers.get(other_id)
        if other is not None:
            update = PeerUpdate(id=peer.id.bytes, kind=PeerUpdate.READY_FOR_HANDSHAKE)
            self._push(other, CoordinateResponse(peer_updates=[update]))

    def _revoke(self, peer: "_Peer", reason: str) -> None:
        for other in list(peer.sent):
            self._send_gone(peer, other, PeerUpdate.DISCONNECTED, reason)
        self._remove(peer, PeerUpdate.DISCONNECTED, reason)
        self._drop_overflowing()

    def _remove(self, peer: "_Peer", kind: PeerUpdate.Kind.ValueType, reason: str) -> None:
        """Take a connected peer out: its partners hear of it, the tunnels it asked for go."""
        if self._peers.get(peer.id) is not peer:
            return
        del self._peers[peer.id]
        self._tell_gone(peer, kind, reason)
        self._tunnels.forget_source(peer.id)
        peer.end()

    # --- delivery

    def _partners(self, peer: UUID) -> "Iterator[_Peer]":
        for other in self._tunnels.partners(peer):
            if (found := self._peers.get(other)) is not None:
                yield found

    def _send_node(self, to: "_Peer", about: "_Peer", reason: str) -> None:
        update = to.node_update(about.id, about.node, about.encoded, reason)
        if update is not None and not to.replace_waiting(update):
            self._push_nodes(to, [update])

    def _push_nodes(self, to: "_Peer", updates: list[PeerUpdate]) -> None:
        response = CoordinateResponse(peer_updates=updates)
        self._push(to, response)
        to.waiting.update((update.id, update) for update in response.peer_updates)

    def _tell_gone(self, peer: "_Peer", kind: PeerUpdate.Kind.ValueType, reason: str) -> None:
        for other in list(self._partners(peer.id)):
            self._send_gone(other, peer.id, kind, reason)

    def _send_gone(self, to: "_Peer", about: UUID, kind: PeerUpdate.Kind.ValueType, reason: str) -> None:
        if to.sent.pop(about, None) is not None:
            to.waiting.pop(about.bytes, None)  # a newer node comes after this end, not before it
            update = PeerUpdate(id=about.bytes, kind=kind, reason=reason)
            self._push(to, CoordinateResponse(peer_updates=[update]))

    def _push(self, to: "_Peer", response: CoordinateResponse) -> None:
        if not to.push(response):
            self._overflowing.append(to)

    def _drop_overflowing(self) -> None:
        """Remove peers that do not read. Each removal tells others, so more may follow."""
        while self._overflowing:
            self._remove(self._overflowing.popleft(), PeerUpdate.DISCONNECTED, "failed update")


class MemoryConnection:
    """One peer's end of a `MemoryCoordinator`."""

    def __init__(self, coordinator: MemoryCoordinator, peer: "_Peer") -> None:
        self._coordinator = coordinator
        self._peer = peer

    @property
    def peer(self) -> UUID:
        """The peer's id."""
        return self._peer.id

    @property
    def closed(self) -> bool:
        """See `Connection.closed`."""
        return self._peer.closed

    def handle(self, request: CoordinateRequest) -> None:
        """See `Connection.handle`. Does nothing once the connection is closed."""
        if not self._peer.closed:
            self._coordinator._handle(self._peer, request)  # noqa: SLF001 - this class is its public face

    def take(self) -> list[CoordinateResponse]:
        """See `Connection.take`."""
        return self._peer.take()

    def fail(self, error: str) -> None:
        """See `Connection.fail`."""
        self._leave(error)

    def revoke(self, reason: str) -> None:
        """See `Connection.revoke`."""
        if not self._peer.closed:
            self._coordinator._revoke(self._peer, reason)  # noqa: SLF001

    def lost(self) -> None:
        """See `Connection.lost`."""
        self._leave("")

    def _leave(self, error: str) -> None:
        if not self._peer.closed:
            self._peer.end(error)
            self._coordinator._remove(self._peer, PeerUpdate.LOST, "lost")  # noqa: SLF001
            self._coordinator._drop_overflowing()  # noqa: SLF001


class _Peer:
    """A connected peer: its node, what it was told, what waits for it."""

    def __init__(self, peer: UUID, wake: Callable[[], None]) -> None:
        self.id = peer
        self.node: Node | None = None
        self.encoded = b""
        self.sent: dict[UUID, bytes] = {}  # the node last sent about each other peer, serialised
        self.queue: deque[CoordinateResponse] = deque()
        self.waiting: dict[bytes, PeerUpdate] = {}  # the nodes in the queue that newer ones may replace, by their ids
        self.closed = False
        self._wake = wake

    def set_node(self, node: Node) -> None:
        self.node = Node()
        self.node.CopyFrom(node)
        self.encoded = node.SerializeToString(deterministic=True)

    def node_update(self, about: UUID, node: Node | None, encoded: bytes, reason: str) -> PeerUpdate | None:
        """Build the update about a node, unless there is none or this peer has exactly that one."""
        if node is None or self.sent.get(about) == encoded:
            return None
        self.sent[about] = encoded
        return PeerUpdate(id=about.bytes, node=node, kind=PeerUpdate.NODE, reason=reason)

    def replace_waiting(self, update: PeerUpdate) -> bool:
        """Put a node in the place of an older one that still waits; False when none does."""
        older = self.waiting.get(update.id)
        if older is None:
            return False
        older.CopyFrom(update)
        return True

    def take(self) -> list[CoordinateResponse]:
        """Empty the queue; what was in it changes no more."""
        taken = list(self.queue)
        self.queue.clear()
        self.waiting.clear()
        return taken

    def push(self, response: CoordinateResponse) -> bool:
        """Queue a response; False when the queue is full."""
        if self.closed:
            return True
        if len(self.queue) >= MAX_QUEUE:
            return False
        self.queue.append(response)
        self._wake()
        return True

    def end(self, error: str = "") -> None:
        """Close; the error is the last thing the peer hears, whatever waits before it."""
        if self.closed:
            return
        if error:
            self.queue.append(CoordinateResponse(error=error))
        self.closed = True
        self._wake()
