"""Which peers are configured, as scripts with exact times."""

import pytest
from fakes.coordination import PeerUpdate, node, uid

from coder.ids import NodeKey
from coder.tailnet.peers import LOST_AFTER, MISSED_AFTER, READY_WAIT, Peers, SendReady, SetPeers, Wake

AGENT, CLIENT, OTHER = uid(1), uid(2), uid(3)
NEW_KEY = NodeKey.from_raw(bytes([77] * 32))


def brought(peer, **what):
    return PeerUpdate(id=peer.bytes, kind=PeerUpdate.NODE, node=node(peer, **what))


def said(peer, kind):
    return PeerUpdate(id=peer.bytes, kind=kind)


READY, LOST, GONE = PeerUpdate.READY_FOR_HANDSHAKE, PeerUpdate.LOST, PeerUpdate.DISCONNECTED


class Side:
    """One node's peers; what they answer is reduced to ids."""

    def __init__(self, *, destination=None, acknowledge=False):
        self.ages = {}
        self.peers = Peers(acknowledge=acknowledge, handshake_age=self.ages.get)
        if destination is not None:
            self.peers.add_destination(destination)

    def handle(self, now, *updates):
        return self.reduce(self.peers.handle(now, updates))

    def tick(self, now):
        return self.reduce(self.peers.tick(now))

    @staticmethod
    def reduce(actions):
        return [("set", *(p.id for p in a.peers)) if isinstance(a, SetPeers) else a for a in actions]


@pytest.fixture
def client():
    return Side(destination=AGENT)


@pytest.fixture
def agent():
    return Side(acknowledge=True)


def test_an_agent_configures_at_once_and_then_says_ready(agent):
    assert agent.handle(0, brought(CLIENT), brought(OTHER)) == [
        ("set", CLIENT, OTHER),
        Wake(None),
        SendReady((CLIENT, OTHER)),
    ]
    assert [peer.keepalive for peer in agent.peers.configured] == [False, False]


def test_an_agent_says_ready_for_every_node_even_an_unchanged_one(agent):
    agent.handle(0, brought(CLIENT))
    assert agent.handle(1, brought(CLIENT)) == [Wake(None), SendReady((CLIENT,))]


def test_the_configuration_says_all_of_a_node(agent):
    agent.handle(0, brought(CLIENT, home=3, endpoints=["192.0.2.1:1", "[2001:db8::1]:65535", "x:1", "192.0.2.1:0", ""]))
    (peer,) = agent.peers.configured
    assert peer.key == "nodekey:" + "02" * 32
    assert peer.disco == "discokey:" + "03" * 32
    assert peer.home == 3
    assert peer.endpoints == ("192.0.2.1:1", "[2001:db8::1]:65535")
    assert peer.addresses == ("fd7a:115c:a1e0:4000:8000::2/128",)


def test_a_client_holds_its_destination_back_until_it_is_ready(client):
    assert client.handle(10, brought(AGENT)) == [Wake(10 + READY_WAIT)]
    assert client.handle(11, said(AGENT, READY)) == [("set", AGENT), Wake(None)]
    assert client.peers.configured[0].keepalive


def test_a_client_waits_5_seconds_and_no_more(client):
    client.handle(10, brought(AGENT))
    assert client.tick(14.9) == [Wake(15)]
    assert client.tick(15) == [("set", AGENT), Wake(None)]


def test_a_second_node_does_not_start_the_wait_again(client):
    client.handle(10, brought(AGENT))
    assert client.handle(12, brought(AGENT, home=2)) == [Wake(15)]


def test_ready_before_the_node_is_remembered(client):
    assert client.handle(0, said(AGENT, READY)) == [Wake(None)]
    assert client.handle(1, brought(AGENT)) == [("set", AGENT), Wake(None)]


def test_ready_of_others_is_not_kept(client):
    client.handle(0, said(OTHER, READY))
    client.peers.add_destination(OTHER)
    assert client.handle(1, brought(OTHER)) == [Wake(1 + READY_WAIT)]


def test_disconnected_removes_at_once(client):
    client.handle(0, brought(AGENT), said(AGENT, READY))
    assert client.handle(1, said(AGENT, GONE)) == [("set",), Wake(None)]
    assert client.handle(2, brought(AGENT)) == [Wake(2 + READY_WAIT)]


def test_a_lost_peer_stays_until_15_minutes_after_its_last_handshake(client):
    client.handle(0, brought(AGENT), said(AGENT, READY))
    key = client.peers.configured[0].key
    client.ages[key] = 100.0
    assert client.handle(1000, said(AGENT, LOST)) == [Wake(900 + LOST_AFTER)]
    client.ages[key] = 400.0  # one more handshake happened at 1400
    assert client.tick(1800) == [Wake(1400 + LOST_AFTER)]
    client.ages[key] = LOST_AFTER
    assert client.tick(2300) == [("set",), Wake(None)]


def test_a_lost_peer_whose_handshake_is_too_old_goes_at_once(agent):
    agent.handle(0, brought(CLIENT))
    agent.ages[agent.peers.configured[0].key] = LOST_AFTER
    assert agent.handle(5000, said(CLIENT, LOST)) == [("set",), Wake(None)]


def test_without_any_handshake_the_time_counts_from_the_node(agent):
    agent.handle(5, brought(CLIENT))
    assert agent.handle(10, said(CLIENT, LOST)) == [Wake(5 + LOST_AFTER)]


def test_a_new_node_revokes_lost(agent):
    agent.handle(0, brought(CLIENT))
    agent.handle(1, said(CLIENT, LOST))
    assert agent.handle(2, brought(CLIENT)) == [Wake(None), SendReady((CLIENT,))]


def test_losing_the_coordinator_keeps_peers_and_sessions(client):
    client.handle(0, brought(AGENT), said(AGENT, READY))
    assert client.reduce(client.peers.coordination_lost(10)) == [Wake(LOST_AFTER)]
    assert client.handle(11, brought(AGENT)) == [Wake(None)]
    assert [peer.id for peer in client.peers.configured] == [AGENT]


def test_a_restarted_destination_is_held_back_again(client):
    client.handle(0, brought(AGENT), said(AGENT, READY))
    client.handle(1, said(AGENT, LOST))
    assert client.handle(2, brought(AGENT, key=NEW_KEY)) == [("set",), Wake(2 + READY_WAIT)]
    assert client.handle(3, said(AGENT, READY)) == [("set", AGENT), Wake(None)]
    assert client.peers.configured[0].key == NEW_KEY


def test_a_node_under_a_new_id_takes_the_place_of_its_old_self(agent):
    agent.handle(0, brought(CLIENT))
    key = agent.peers.configured[0].key
    assert agent.handle(1, brought(OTHER, key=key)) == [("set", OTHER), Wake(None), SendReady((OTHER,))]


def test_nobody_takes_the_address_of_another_who_is_there(agent):
    agent.handle(0, brought(CLIENT))
    thief = brought(OTHER)
    thief.node.addresses[:] = brought(CLIENT).node.addresses
    assert agent.handle(1, thief) == [Wake(None)]
    assert agent.peers.refused == 1
    agent.handle(2, said(CLIENT, LOST))
    assert agent.handle(3, thief)[-1] == SendReady((OTHER,))


def test_a_destination_can_be_given_up(client):
    client.handle(0, brought(AGENT), said(AGENT, READY))
    assert client.reduce(client.peers.remove_destination(1, AGENT)) == [("set",), Wake(None)]
    client.handle(2, brought(AGENT))
    assert not client.peers.configured[0].keepalive


@pytest.mark.parametrize("kind", [LOST, GONE, READY, PeerUpdate.KIND_UNSPECIFIED, 99])
def test_updates_about_unknown_peers_do_nothing(agent, kind):
    assert agent.handle(0, PeerUpdate(id=CLIENT.bytes, kind=kind)) == [Wake(None)]


@pytest.mark.parametrize(
    "update",
    [
        PeerUpdate(id=b"short", kind=PeerUpdate.NODE),
        PeerUpdate(id=CLIENT.bytes, kind=PeerUpdate.NODE),
        brought(CLIENT, home=0),
        brought(CLIENT, home=-4),
        brought(CLIENT, home=2**16),
    ],
)
def test_updates_that_make_no_sense_are_counted_and_skipped(agent, update):
    assert agent.handle(0, update, brought(OTHER))[0] == ("set", OTHER)
    assert agent.peers.refused == 1


def test_an_agent_does_not_keep_a_lost_peer_for_ever_while_the_coordinator_could_bring_it_back(agent):
    agent.handle(0, brought(CLIENT))
    agent.ages[agent.peers.configured[0].key] = 1
    agent.reduce(agent.peers.coordination_begun(0))
    assert agent.handle(100, said(CLIENT, LOST)) == [Wake(99 + LOST_AFTER)]
    assert agent.tick(99 + LOST_AFTER) == [Wake(100 + MISSED_AFTER)]
    assert agent.tick(100 + MISSED_AFTER) == [("set",), Wake(None)]


def test_an_agent_keeps_all_peers_that_live_while_there_is_no_coordinator(agent):
    agent.handle(0, brought(CLIENT))
    agent.ages[agent.peers.configured[0].key] = 1
    agent.reduce(agent.peers.coordination_begun(0))
    agent.handle(100, said(CLIENT, LOST))
    agent.reduce(agent.peers.coordination_lost(200))
    assert agent.tick(5000) == [Wake(4999 + LOST_AFTER)]
    agent.reduce(agent.peers.coordination_begun(5000))
    assert agent.handle(5100, brought(CLIENT))[0] == Wake(None)
    assert agent.tick(9000) == [Wake(None)]


def test_a_client_keeps_a_lost_agent_that_lives(client):
    client.handle(0, brought(AGENT), said(AGENT, READY))
    client.ages[client.peers.configured[0].key] = 1
    client.reduce(client.peers.coordination_begun(0))
    client.handle(100, said(AGENT, LOST))
    assert client.tick(5000) == [Wake(4999 + LOST_AFTER)]


def test_a_node_that_the_server_refuses_drops_all(agent):
    agent.handle(0, brought(CLIENT), brought(OTHER))
    assert agent.reduce(agent.peers.drop_all(1)) == [("set",), Wake(None)]
