"""Who may ask for what."""

import pytest
from fakes.coordination import PeerUpdate, node, request, uid

from coder.errors import Forbidden, Malformed
from coder.tailnet.addresses import LEGACY_AGENT, host_prefix
from coder.tailnet.coordinator import MemoryCoordinator
from coder.tailnet.tunnels import (
    MAX_NODE,
    AgentAuthorization,
    ClientAuthorization,
    TrustedAuthorization,
    UserAuthorization,
    apply,
)

CLIENT, AGENT, OTHER = uid(1), uid(2), uid(3)


async def only_the_agent(peer):
    return peer == AGENT


RULES = {
    "client": ClientAuthorization(AGENT),
    "user": UserAuthorization(only_the_agent),
    "agent": AgentAuthorization(AGENT),
    "trusted": TrustedAuthorization(),
}


def with_addresses(record, *addresses, allowed=None):
    del record.addresses[:], record.allowed_ips[:]
    record.addresses.extend(addresses)
    record.allowed_ips.extend(addresses if allowed is None else allowed)
    return record


@pytest.mark.parametrize(
    ("who", "what"),
    [
        ("client", request(add=AGENT, update=node(CLIENT))),
        ("client", request(remove=OTHER, disconnect=True)),
        ("client", request(update=with_addresses(node(CLIENT), "fd60:627a:a42b::5/128"))),
        ("user", request(add=AGENT)),
        ("agent", request(update=node(AGENT, agent=True), ready=[CLIENT])),
        ("agent", request(update=with_addresses(node(AGENT), host_prefix(LEGACY_AGENT)))),
        ("trusted", request(add=OTHER, update=node(CLIENT), ready=[AGENT])),
    ],
)
async def test_allowed(who, what):
    await RULES[who].check(what)


@pytest.mark.parametrize(
    ("who", "what", "reason"),
    [
        ("client", request(add=OTHER), f"invalid agent id, expected {AGENT}, got {OTHER}"),
        ("client", request(ready=[AGENT]), "clients may not send ready_for_handshake"),
        ("user", request(ready=[AGENT]), "clients may not send ready_for_handshake"),
        ("user", request(add=OTHER), "workspace agent not found or you do not have permission"),
        ("agent", request(add=CLIENT), "agents cannot open tunnels"),
        ("agent", request(update=node(OTHER, agent=True)), "invalid node address, got fd7a:115c:a1e0:4000:8000::3"),
        (
            "agent",
            request(update=with_addresses(node(AGENT), host_prefix(LEGACY_AGENT), allowed=["fd7a::1/128"])),
            "allowed_ips must be the node's own addresses",
        ),
        (
            "client",
            request(update=with_addresses(node(CLIENT), "fd7a::1/128", allowed=["fd7a::1/128", "fd7a::2/128"])),
            "allowed_ips must be the node's own addresses",
        ),
    ],
)
async def test_forbidden(who, what, reason):
    with pytest.raises(Forbidden) as caught:
        await RULES[who].check(what)
    assert str(caught.value) == reason


@pytest.mark.parametrize("who", ["client", "user", "agent"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda n: with_addresses(n, "fd7a::1/64"), "invalid address bits, expected 128, got 64"),
        (lambda n: with_addresses(n, "nonsense"), "not an IPv6 prefix"),
        (lambda n: with_addresses(n, "fd7a::1/128", allowed=["::/0"]), "allowed_ips: invalid address bits"),
        (lambda n: setattr(n, "key", b"np"), "key"),
        (lambda n: setattr(n, "disco", "discokey:00"), "disco"),
        (lambda n: n.endpoints.extend(["x" * 1000] * 8), str(MAX_NODE)),
        (lambda n: setattr(n, "preferred_derp", 2**16), "preferred_derp: there is no region 65536"),
        (lambda n: setattr(n, "preferred_derp", -1), "preferred_derp"),
        (lambda n: n.derp_forced_websocket.update({2**16: "x"}), "derp_forced_websocket"),
        (lambda n: n.derp_latency.update({"65536-v4": 0.1}), "derp_latency"),
        (lambda n: n.derp_latency.update({"1-v5": 0.1}), "derp_latency: expected a region with -v4 or -v6"),
    ],
)
async def test_nodes_that_nobody_may_announce(who, change, reason):
    record = node(AGENT, agent=True)
    change(record)
    with pytest.raises(Malformed, match=reason):
        await RULES[who].check(request(update=record))


async def test_an_id_that_is_none_is_refused():
    with pytest.raises(Malformed):
        await RULES["client"].check(request(add=b"short"))


async def test_apply_hands_on_what_is_allowed_and_ends_what_is_not():
    coordinator = MemoryCoordinator()
    client = coordinator.connect(CLIENT, lambda: None)
    agent = coordinator.connect(AGENT, lambda: None)
    await apply(agent, RULES["agent"], request(update=node(AGENT, agent=True)))
    await apply(client, RULES["client"], request(update=node(CLIENT), add=AGENT))
    assert client.take()[0].peer_updates[0].id == AGENT.bytes
    await apply(client, RULES["client"], request(add=OTHER))
    assert client.closed
    assert client.take()[0].error == f"authorization: invalid agent id, expected {AGENT}, got {OTHER}"
    assert [update.kind for r in agent.take() for update in r.peer_updates] == [PeerUpdate.NODE, PeerUpdate.LOST]
    await apply(agent, RULES["agent"], request(ready=[b"x"]))
    assert agent.closed
