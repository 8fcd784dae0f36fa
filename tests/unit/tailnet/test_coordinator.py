"""The coordinator, as scripts: who says what, who hears what."""

import pytest
from fakes.coordination import PeerUpdate, node, request, uid

from coder.errors import Closed, Malformed
from coder.tailnet.coordinator import MAX_QUEUE, MAX_READY, MemoryCoordinator

A, B, C = uid(1), uid(2), uid(3)


class Talk:
    """Peers of one coordinator, by id."""

    def __init__(self):
        self.coordinator = MemoryCoordinator()
        self.peers = {}
        self.woken = {}

    def connect(self, *ids):
        for peer in ids:
            self.woken[peer] = 0
            self.peers[peer] = self.coordinator.connect(peer, lambda peer=peer: self._wake(peer))
        return self

    def _wake(self, peer):
        self.woken[peer] += 1

    def say(self, peer, **what):
        self.peers[peer].handle(request(**what))
        return self

    def hear(self, peer):
        """What a peer gets: (id, kind, reason) of each update, or its error."""
        heard = []
        for response in self.peers[peer].take():
            heard += [(update.id, PeerUpdate.Kind.Name(update.kind), update.reason) for update in response.peer_updates]
            heard += [response.error] if response.error else []
        return heard

    def quiet(self):
        for peer in self.peers:
            self.hear(peer)
        return self


@pytest.fixture
def joined():
    """A client A with a tunnel to an agent B, both announced and introduced."""
    talk = Talk().connect(A, B).say(A, update=node(A)).say(B, update=node(B)).say(A, add=B)
    return talk.quiet()


def test_a_tunnel_introduces_both_ends():
    talk = Talk().connect(A, B).say(A, update=node(A)).say(B, update=node(B))
    assert talk.hear(A) == talk.hear(B) == []
    talk.say(A, add=B)
    (response,) = talk.peers[A].take()
    (update,) = response.peer_updates
    assert (update.id, update.node, update.kind, update.reason) == (B.bytes, node(B), PeerUpdate.NODE, "add tunnel")
    assert talk.hear(B) == [(A.bytes, "NODE", "add tunnel")]


def test_a_tunnel_to_an_absent_peer_waits_for_it():
    talk = Talk().connect(A).say(A, update=node(A), add=B)
    assert talk.hear(A) == []
    talk.connect(B)
    assert talk.hear(B) == [(A.bytes, "NODE", "init")]
    talk.say(B, update=node(B))
    assert talk.hear(A) == [(B.bytes, "NODE", "node update")]


def test_what_is_known_at_the_start_comes_in_one_response():
    talk = Talk().connect(A, C).say(A, update=node(A), add=B).say(C, update=node(C), add=B).connect(B)
    responses = talk.peers[B].take()
    assert [len(response.peer_updates) for response in responses] == [2]


def test_updates_go_to_partners_only_and_once(joined):
    joined.connect(C).say(A, update=node(A, home=2))
    assert joined.hear(B) == [(A.bytes, "NODE", "node update")]
    assert joined.hear(C) == joined.hear(A) == []
    joined.say(A, update=node(A, home=2)).say(A, add=B)
    assert joined.hear(B) == []


def test_one_request_may_carry_several_things():
    talk = Talk().connect(A, B).say(B, update=node(B)).say(A, update=node(A), add=B)
    assert talk.hear(A) == [(B.bytes, "NODE", "add tunnel")]
    assert talk.hear(B) == [(A.bytes, "NODE", "add tunnel")]


def test_removing_a_tunnel_parts_both_ends(joined):
    joined.say(A, remove=B)
    assert joined.hear(A) == [(B.bytes, "DISCONNECTED", "remove tunnel")]
    assert joined.hear(B) == [(A.bytes, "DISCONNECTED", "remove tunnel")]
    joined.say(A, update=node(A, home=2), remove=B)
    assert joined.hear(B) == []


def test_removing_one_of_two_tunnels_parts_nobody(joined):
    joined.say(B, add=A).quiet().say(A, remove=B)
    assert joined.hear(A) == joined.hear(B) == []
    joined.say(A, update=node(A, home=2))
    assert joined.hear(B) == [(A.bytes, "NODE", "node update")]


def test_disconnect_ends_the_peer_its_tunnels_and_its_stream(joined):
    woken = joined.woken[A]
    joined.say(A, disconnect=True)
    assert joined.peers[A].closed
    assert joined.woken[A] == woken + 1
    assert joined.hear(B) == [(A.bytes, "DISCONNECTED", "graceful disconnect")]
    joined.peers[A].lost()
    assert joined.hear(B) == []
    joined.connect(A).say(A, update=node(A))
    assert joined.hear(B) == []


def test_a_lost_client_takes_its_tunnels_along(joined):
    joined.peers[A].lost()
    assert joined.hear(B) == [(A.bytes, "LOST", "lost")]
    joined.connect(A).say(A, update=node(A))
    assert joined.hear(B) == []
    joined.say(A, add=B)
    assert joined.hear(B) == [(A.bytes, "NODE", "add tunnel")]


def test_an_agent_that_returns_finds_its_clients(joined):
    joined.peers[B].lost()
    assert joined.hear(A) == [(B.bytes, "LOST", "lost")]
    joined.connect(B)
    assert joined.hear(B) == [(A.bytes, "NODE", "init")]
    joined.say(B, update=node(B))
    assert joined.hear(A) == [(B.bytes, "NODE", "node update")]


def test_gone_is_told_only_to_whom_the_node_was_sent():
    talk = Talk().connect(A, B).say(A, add=B)
    talk.peers[A].lost()
    assert talk.hear(B) == []


def test_a_newer_connection_takes_the_place_of_the_older(joined):
    old = joined.peers[A]
    joined.connect(A)
    assert [r.error for r in old.take()] == ["peer ID overwritten by new connection"]
    assert old.closed
    assert joined.hear(A) == [(B.bytes, "NODE", "init")]
    old.handle(request(update=node(A, home=9)))
    old.lost()
    assert joined.hear(B) == []
    joined.say(A, update=node(A, home=3))
    assert joined.hear(B) == [(A.bytes, "NODE", "node update")]
    assert len(joined.coordinator) == 2


def test_ready_reaches_partners_and_nobody_else(joined):
    joined.connect(C).say(B, ready=[C, A])
    assert joined.hear(A) == [(B.bytes, "READY_FOR_HANDSHAKE", "")]
    assert joined.hear(B) == [f'ready for handshake error: you do not share a tunnel with "{C}"']
    assert joined.hear(C) == []
    assert not joined.peers[B].closed


def test_ready_for_an_absent_partner_is_dropped(joined):
    joined.peers[B].lost()
    joined.quiet().say(A, ready=[B])
    assert joined.hear(A) == []


def test_shutdown_tells_everybody(joined):
    joined.coordinator.shutdown()
    assert joined.hear(A) == [(B.bytes, "LOST", "coordinator close"), "coordinator closed"]
    assert joined.hear(B) == [(A.bytes, "LOST", "coordinator close"), "coordinator closed"]
    assert joined.peers[A].closed
    with pytest.raises(Closed):
        joined.coordinator.connect(A, lambda: None)


def test_a_peer_that_does_not_read_is_dropped(joined):
    for _ in range(MAX_QUEUE):
        joined.say(A, ready=[B])
    assert not joined.peers[B].closed
    joined.say(A, ready=[B])
    assert joined.peers[B].closed
    assert joined.hear(A) == [(B.bytes, "DISCONNECTED", "failed update")]
    assert len(joined.coordinator) == 1


def test_a_newer_node_takes_the_place_of_one_that_waits(joined):
    joined.say(A, update=node(A, home=2)).say(A, ready=[B])
    for home in range(3, 3 + 2 * MAX_QUEUE):
        joined.say(A, update=node(A, home=home))
    first, second = joined.peers[B].take()
    assert [update.node for update in first.peer_updates] == [node(A, home=home)]
    assert second.peer_updates[0].kind == PeerUpdate.READY_FOR_HANDSHAKE
    joined.say(A, update=node(A, home=1))
    assert first.peer_updates[0].node == node(A, home=home)
    assert joined.hear(B) == [(A.bytes, "NODE", "node update")]


def test_a_node_that_waits_is_not_replaced_across_its_end(joined):
    joined.say(A, update=node(A, home=2)).say(A, remove=B).say(A, add=B).say(A, update=node(A, home=3))
    kinds = [
        (update.kind, update.node.preferred_derp) for each in joined.peers[B].take() for update in each.peer_updates
    ]
    assert kinds == [(PeerUpdate.NODE, 2), (PeerUpdate.DISCONNECTED, 0), (PeerUpdate.NODE, 3)]


def test_too_many_ready_peers_at_once_apply_nothing(joined):
    joined.say(A, ready=[B] * MAX_READY).quiet()
    with pytest.raises(Malformed, match="ready_for_handshake"):
        joined.say(A, update=node(A, home=7), ready=[B] * (MAX_READY + 1))
    assert joined.hear(B) == []


def test_the_fall_of_one_slow_peer_may_bring_down_the_next():
    talk = Talk().connect(A, B).say(A, update=node(A)).say(B, update=node(B)).say(A, add=B).quiet()
    talk.connect(C).say(C, add=A, update=node(C))
    talk.hear(C)
    for _ in range(MAX_QUEUE - 1):
        talk.say(A, ready=[uid(99)])
    talk.say(C, ready=[A])
    assert talk.peers[A].closed
    assert talk.hear(C) == [(A.bytes, "DISCONNECTED", "failed update")]
    assert talk.hear(B) == [(A.bytes, "DISCONNECTED", "failed update")]


def test_failing_ends_a_peer_with_its_error(joined):
    joined.peers[A].fail("authorization: no")
    assert joined.hear(A) == ["authorization: no"]
    assert joined.peers[A].closed
    assert joined.hear(B) == [(A.bytes, "LOST", "lost")]


@pytest.mark.parametrize("what", [{"add": b"short"}, {"remove": b""}, {"ready": [b"x" * 17]}])
def test_an_id_that_is_none_applies_nothing(joined, what):
    with pytest.raises(Malformed):
        joined.say(A, update=node(A, home=7), **what)
    assert joined.hear(B) == []


def test_a_tunnel_to_oneself_leads_nowhere():
    talk = Talk().connect(A).say(A, update=node(A), add=A)
    assert talk.hear(A) == []


def test_a_changed_request_does_not_change_what_was_announced():
    message = request(update=node(A))
    talk = Talk().connect(A, B).say(B, add=A)
    talk.peers[A].handle(message)
    message.update_self.node.preferred_derp = 77
    assert talk.peers[B].take()[0].peer_updates[0].node.preferred_derp == 1


@pytest.mark.parametrize(("ended", "other"), [(A, B), (B, A)])
def test_a_revoked_peer_and_its_partners_are_told_to_drop_each_other(joined, ended, other):
    joined.peers[ended].revoke("token deleted")
    assert joined.hear(ended) == [(other.bytes, "DISCONNECTED", "token deleted")]
    assert joined.hear(other) == [(ended.bytes, "DISCONNECTED", "token deleted")]
    assert joined.peers[ended].closed
    assert not joined.peers[other].closed
    joined.peers[ended].revoke("again")
    joined.peers[ended].lost()
    assert joined.hear(ended) == joined.hear(other) == []


def test_both_ends_of_a_tunnel_hear_of_it_when_both_are_revoked(joined):
    for peer in (B, A):
        joined.peers[peer].revoke("workspace deleted")
    assert joined.hear(A) == [(B.bytes, "DISCONNECTED", "workspace deleted")]
    assert joined.hear(B) == [(A.bytes, "DISCONNECTED", "workspace deleted")]
