"""Which peers the data plane has to be configured with, as told by the coordinator. For clients and agents.

    NODE of a peer              configured at once; of a tunnel destination of ours, held back until it is ready
    READY_FOR_HANDSHAKE         it knows us: configure it, with keepalive, which starts the handshake
    no READY within 5 s         configure it all the same
    LOST                        keep it until 15 min have passed since its last handshake; a new NODE revokes that
    LOST, to an agent           and until the coordinator was there for 15 min without it, whatever its handshakes: who
                                does not come back may have lost the right to
    DISCONNECTED                remove it at once

The caller does what the returned actions say and calls `tick` when the last `Wake` is due. `now` is seconds on a
monotonic clock.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from uuid import UUID

from coder.errors import Malformed
from coder.ids import DiscoKey, NodeKey, uuid_from_bytes
from coder.tailnet.addresses import agent_addresses, host_prefix, parse_host_prefix
from coder.wire.proto.tailnet_pb2 import CoordinateResponse, Node

READY_WAIT: Final = 5.0
"""Seconds a destination's node is held back when nothing says that it is ready."""
LOST_AFTER: Final = 15 * 60.0
"""Seconds since the last handshake after which a lost peer is removed."""
MISSED_AFTER: Final = 15 * 60.0
"""Seconds after which an agent removes a peer that it hears nothing of although the coordinator is there."""

_MAX_ENDPOINTS: Final = 64

PeerUpdate = CoordinateResponse.PeerUpdate
HandshakeAge = Callable[[NodeKey], float | None]
"""Seconds since the last handshake with a peer, None when there was none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerConfig:
    """All the data plane has to know about a peer."""

    id: UUID
    key: NodeKey
    disco: DiscoKey
    home: int
    """The region at which the peer can always be reached."""
    endpoints: tuple[str, ...]
    """Candidates for direct paths, `ip:port`."""
    addresses: tuple[str, ...]
    """The peer's own addresses inside the tunnel, as /128: what it may send from and is sent to."""
    keepalive: bool
    """Whether to keep a session up, and so to start the handshake now."""


@dataclass(frozen=True, slots=True)
class SetPeers:
    """Replace the set of configured peers."""

    peers: tuple[PeerConfig, ...]


@dataclass(frozen=True, slots=True)
class SendReady:
    """Tell the coordinator, after the peers are set, that these may start their handshake."""

    ids: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class Wake:
    """Call `tick` at this time, instead of any earlier one; None: there is nothing to wait for."""

    at: float | None


Action = SetPeers | SendReady | Wake


@dataclass(slots=True)
class _Peer:
    node: PeerConfig | None = None
    node_at: float = 0.0
    ready: bool = False  # it has said, since it was last lost, that it knows us
    held_until: float | None = None  # its node waits for that
    lost_deadline: float | None = None
    missed_since: float | None = None  # it is lost, and the coordinator is there to bring it back


class Peers:
    """The peers of one node. `acknowledge` is for agents: each node is answered with ready-for-handshake.

    `strict` is for a node with many destinations, all of them agents: it takes no other peers, from each only the
    addresses that follow from its id, and no key that belongs to another one.
    """

    def __init__(self, *, acknowledge: bool, handshake_age: HandshakeAge, strict: bool = False) -> None:
        self._acknowledge = acknowledge
        self._strict = strict
        self._handshake_age = handshake_age
        self._peers: dict[UUID, _Peer] = {}
        self._destinations: set[UUID] = set()
        self._configured: tuple[PeerConfig, ...] = ()
        self._coordinated = False
        self.refused = 0
        """Updates that made no sense and were skipped: the coordinator, or a peer through it, misbehaves."""

    @property
    def configured(self) -> tuple[PeerConfig, ...]:
        """What the last `SetPeers` said."""
        return self._configured

    def add_destination(self, peer: UUID) -> None:
        """Name a peer that this node opens a tunnel to; do it before the tunnel is asked for."""
        self._destinations.add(peer)

    def remove_destination(self, now: float, peer: UUID) -> list[Action]:
        """Forget a destination and the peer with it."""
        self._destinations.discard(peer)
        self._peers.pop(peer, None)
        return self._actions(now)

    def present(self, peer: UUID) -> bool:
        """Tell whether a peer has announced itself and is not lost."""
        state = self._peers.get(peer)
        return state is not None and state.node is not None and state.lost_deadline is None

    def handle(self, now: float, updates: Iterable[PeerUpdate]) -> list[Action]:
        """Take in the updates of one response."""
        nodes: dict[UUID, None] = {}
        for update in updates:
            try:
                peer = uuid_from_bytes(update.id)
                if self._update(now, peer, update):
                    nodes[peer] = None
            except Malformed:
                self.refused += 1
        actions = self._actions(now)
        ready = tuple(config.id for config in self._configured if config.id in nodes)
        return [*actions, SendReady(ready)] if ready and self._acknowledge else actions

    def coordination_lost(self, now: float) -> list[Action]:
        """Take note that the coordinator cannot be heard: every peer counts as lost until its node comes again."""
        self._coordinated = False
        for state in self._peers.values():
            state.missed_since = None
            self._lose(now, state)
        return self._actions(now)

    def coordination_begun(self, now: float) -> list[Action]:
        """Take note that the coordinator is there: from now on lost peers could come back through it."""
        self._coordinated = True
        for state in self._peers.values():
            if state.lost_deadline is not None:
                self._lose(now, state)
        return self._actions(now)

    def drop_all(self, now: float) -> list[Action]:
        """Take note that the server does not know us any more: nobody has a right to a tunnel to or from us."""
        self._peers.clear()
        return self._actions(now)

    def tick(self, now: float) -> list[Action]:
        """Do what is due."""
        for state in self._peers.values():
            if state.held_until is not None and state.held_until <= now:
                state.ready, state.held_until = True, None
            if state.lost_deadline is not None and state.lost_deadline <= now:
                self._lose(now, state)  # a handshake since then gives it more time
        return self._actions(now)

    def _update(self, now: float, peer: UUID, update: PeerUpdate) -> bool:
        """Apply one update; True when it brought a node that can be reached."""
        state = self._peers.get(peer)
        if update.kind == PeerUpdate.NODE:
            self._take_node(now, peer, _read_node(peer, update.node, keepalive=peer in self._destinations))
            return True
        if update.kind == PeerUpdate.READY_FOR_HANDSHAKE and peer in self._destinations:
            state = self._peers.setdefault(peer, _Peer())
            state.ready, state.held_until = True, None
        elif update.kind == PeerUpdate.LOST and state is not None:
            self._lose(now, state)
        elif update.kind == PeerUpdate.DISCONNECTED:
            self._peers.pop(peer, None)
        return False

    def _take_node(self, now: float, peer: UUID, node: PeerConfig) -> None:
        if self._strict:
            node = self._own(node)
        self._refuse_foreign_addresses(node)
        for other in [i for i, s in self._peers.items() if i != peer and s.node is not None and s.node.key == node.key]:
            del self._peers[other]  # the same node under its former id
        state = self._peers.setdefault(peer, _Peer())
        unknown = state.node is None or state.node.key != node.key
        if unknown and peer in self._destinations and not state.ready:
            state.held_until = now + READY_WAIT
        state.node, state.node_at, state.lost_deadline, state.missed_since = node, now, None, None

    def _own(self, node: PeerConfig) -> PeerConfig:
        """Reduce a destination's node to what is its own. Raises `Malformed` when nothing is, or its key is not."""
        if node.id not in self._destinations:
            raise Malformed("nobody asked for this peer", where="id")
        for state in self._peers.values():
            if state.node is not None and state.node.id != node.id and state.node.key == node.key:
                raise Malformed("the key belongs to another peer", where="key")
        derived = {host_prefix(address) for address in agent_addresses(node.id)}
        addresses = tuple(address for address in node.addresses if address in derived)
        if not addresses:
            raise Malformed("none of the addresses is the agent's own", where="addresses")
        return replace(node, addresses=addresses)

    def _refuse_foreign_addresses(self, node: PeerConfig) -> None:
        """Raise `Malformed` for a peer that would take over the address of another one that is there."""
        for state in self._peers.values():
            held = state.node
            if held is None or held.id == node.id or held.key == node.key or state.lost_deadline is not None:
                continue
            if not set(held.addresses).isdisjoint(node.addresses):
                raise Malformed("the address belongs to another peer", where="addresses")

    def _lose(self, now: float, state: _Peer) -> None:
        state.ready = False
        if state.node is not None:
            age = self._handshake_age(state.node.key)
            since = state.node_at if age is None else now - age
            state.lost_deadline = since + LOST_AFTER
            if self._acknowledge and self._coordinated:
                state.missed_since = now if state.missed_since is None else state.missed_since
                state.lost_deadline = min(state.lost_deadline, state.missed_since + MISSED_AFTER)

    def _actions(self, now: float) -> list[Action]:
        for peer, state in list(self._peers.items()):
            if state.lost_deadline is not None and state.lost_deadline <= now:
                del self._peers[peer]
        actions: list[Action] = []
        states = self._peers.values()
        peers = tuple(state.node for state in states if state.node is not None and state.held_until is None)
        if peers != self._configured:
            self._configured = peers
            actions.append(SetPeers(peers))
        due = [at for state in states for at in (state.held_until, state.lost_deadline) if at is not None]
        actions.append(Wake(min(due, default=None)))
        return actions


def _read_node(peer: UUID, node: Node, *, keepalive: bool) -> PeerConfig:
    if not 0 < node.preferred_derp < 2**16:
        raise Malformed("a node without a home cannot be reached", where="preferred_derp")
    addresses = tuple(host_prefix(parse_host_prefix(text)) for text in node.addresses)
    return PeerConfig(
        id=peer,
        key=NodeKey.from_wire(node.key),
        disco=DiscoKey.parse(node.disco, where="disco"),
        home=node.preferred_derp,
        endpoints=tuple(text for text in node.endpoints if _is_endpoint(text))[:_MAX_ENDPOINTS],
        addresses=addresses,
        keepalive=keepalive,
    )


def _is_endpoint(text: str) -> bool:
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 2**16):
        return False
    try:
        if host.startswith("[") and host.endswith("]"):
            return IPv6Address(host[1:-1]).scope_id is None
        IPv4Address(host)
    except ValueError:
        return False
    return True
