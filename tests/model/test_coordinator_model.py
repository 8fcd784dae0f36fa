"""Random histories against a far simpler model of the coordinator.

The model knows who is connected, which node each announced, and which tunnels stand. At any moment every connected peer
must have been told exactly the nodes of the connected partners it shares a tunnel with.
"""

from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from coder.ids import uuid_from_bytes
from coder.tailnet.coordinator import MemoryCoordinator
from coder.wire.proto.tailnet_pb2 import CoordinateRequest, CoordinateResponse, Node

PeerUpdate = CoordinateResponse.PeerUpdate
PEERS = [UUID(int=number, version=4) for number in range(1, 4)]
peers = st.sampled_from(PEERS)


class CoordinatorMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.coordinator = MemoryCoordinator()
        self.connections = {}
        self.heard = {}
        self.nodes = {}
        self.tunnels = set()
        self.version = 0

    @rule(peer=peers)
    def connect(self, peer):
        old = self.connections.get(peer)
        self.connections[peer] = self.coordinator.connect(peer, lambda: None)
        self.heard[peer] = {}
        self.nodes.pop(peer, None)
        if old is not None:
            assert old.closed
            assert old.take()[-1].error == "peer ID overwritten by new connection"

    @rule(peer=peers, same=st.booleans())
    def announce(self, peer, same):
        if peer in self.connections:
            self.version += not same
            self.nodes[peer] = self.version
            self.handle(peer, CoordinateRequest(update_self={"node": {"id": self.version}}))

    @rule(peer=peers, other=peers)
    def add_tunnel(self, peer, other):
        if peer in self.connections:
            self.tunnels |= {(peer, other)} if peer != other else set()
            self.handle(peer, CoordinateRequest(add_tunnel={"id": other.bytes}))

    @rule(peer=peers, other=peers)
    def return_and_announce(self, peer, other):
        """A whole small life at once, so that long histories are common."""
        self.leave(peer, graceful=peer < other)
        self.connect(peer)
        self.announce(peer, same=False)

    @rule(peer=peers, other=peers)
    def remove_tunnel(self, peer, other):
        if peer in self.connections:
            self.tunnels.discard((peer, other))
            self.handle(peer, CoordinateRequest(remove_tunnel={"id": other.bytes}))

    @rule(peer=peers, graceful=st.booleans())
    def leave(self, peer, graceful):
        connection = self.connections.pop(peer, None)
        if connection is None:
            return
        if graceful:
            connection.handle(CoordinateRequest(disconnect={}))
        connection.lost()
        assert connection.closed
        del self.heard[peer]
        self.nodes.pop(peer, None)
        self.tunnels = {pair for pair in self.tunnels if pair[0] != peer}

    @rule(peer=peers, other=peers)
    def say_ready(self, peer, other):
        if peer not in self.connections:
            return
        self.drain()
        self.handle(peer, CoordinateRequest(ready_for_handshake=[{"id": other.bytes}]))
        if not self.joined(peer, other):
            assert "you do not share a tunnel" in self.connections[peer].take()[0].error
        elif other in self.connections:
            (response,) = self.connections[other].take()
            assert response.peer_updates[0].kind == PeerUpdate.READY_FOR_HANDSHAKE
            assert response.peer_updates[0].id == peer.bytes

    def handle(self, peer, request):
        self.connections[peer].handle(request)

    def joined(self, one, other):
        return (one, other) in self.tunnels or (other, one) in self.tunnels

    def drain(self):
        """Apply what each peer is told to what it knows; a node is never told twice, nor a loss without a node."""
        for peer, connection in self.connections.items():
            assert not connection.closed
            known = self.heard[peer]
            for response in connection.take():
                assert not response.error
                for update in response.peer_updates:
                    other = uuid_from_bytes(update.id)
                    if update.kind == PeerUpdate.NODE:
                        assert known.get(other) != update.node
                        known[other] = Node.FromString(update.node.SerializeToString())
                    else:
                        del known[other]

    @invariant()
    def everyone_knows_its_partners(self):
        self.drain()
        for peer, known in self.heard.items():
            expected = {other: node for other, node in self.nodes.items() if other != peer and self.joined(peer, other)}
            assert {other: node.id for other, node in known.items() if other in self.nodes} == expected
            # a node may be remembered only of a partner that was replaced and has not announced itself again
            assert all(other in self.connections and self.joined(peer, other) for other in known)


CoordinatorMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestCoordinator = CoordinatorMachine.TestCase
