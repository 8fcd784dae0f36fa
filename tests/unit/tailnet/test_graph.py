"""The set of tunnels."""

from fakes.coordination import uid

from coder.tailnet.graph import TunnelGraph

A, B, C = uid(1), uid(2), uid(3)


def test_a_tunnel_joins_both_ways_and_is_forgotten_with_its_source():
    graph = TunnelGraph()
    graph.add(A, B)
    graph.add(A, C)
    graph.add(B, A)
    assert graph.joined(B, A)
    assert graph.joined(C, A)
    assert not graph.joined(B, C)
    assert graph.partners(A) == [B, C]
    graph.forget_source(A)
    assert graph.partners(A) == [B]
    assert graph.partners(C) == []
    graph.remove(B, A)
    graph.remove(B, A)
    assert graph.partners(A) == []


def test_a_peer_is_no_partner_of_itself():
    graph = TunnelGraph()
    graph.add(A, A)
    assert not graph.joined(A, A)
