"""The kinds of place a host can be in, and what disco's rules make of two of them.

The verdicts are written down here, before anything is measured.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lab.topology import ADDRESS, BLOCKED, EASY, HARD, ROUTED, Host, Internet, Router

Verdict = Literal["direct", "guess", "relay"]
"""`guess`: no port is known that would do, but so many are tried that some 98 of 100 pairs become direct."""

DEAD = {"docker0": "172.17.0.1/16", "virbr0": "192.168.122.1/24", "vpn0": "10.8.0.2/24", "old0": "192.168.50.7/24"}
"""Interfaces that lead nowhere, with the addresses such interfaces have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of place."""

    name: str
    build: Callable[[Internet], Host]
    families: frozenset[int] = frozenset({4})
    """Those that work."""
    hard: bool = False
    """IPv4: another outside port for each destination."""
    restricted: bool = True
    """IPv4: lets in only from address and port it has sent to."""
    padded: bool = True
    """UDP packets of 1310 bytes, as disco's pings and pongs have, get through unfragmented."""


def expected(one: Kind, other: Kind) -> Verdict:
    """What disco can do between two kinds: no router is asked, no packet cut in pieces."""
    if not (one.padded and other.padded):
        return "relay"
    shared = one.families & other.families
    if 6 in shared:
        return "direct"  # nothing translates IPv6, and both ends' pings open their firewalls
    if 4 not in shared:
        return "relay"
    if one.hard and other.hard:
        return "relay"
    return "guess" if (one.hard and other.restricted) or (other.hard and one.restricted) else "direct"


def behind(router: Callable[[Internet], Router]) -> Callable[[Internet], Host]:
    return lambda net: router(net).host("host")


def _broken(family: Literal[4, 6]) -> Callable[[Internet], Host]:
    def build(net: Internet) -> Host:
        router = net.router(f"no{family}", EASY, v6=True)
        router.break_family(family)
        return router.host("host")

    return build


def _many_interfaces(net: Internet) -> Host:
    host = net.router("home").host("host")
    for name, address in DEAD.items():
        host.ip(f"link add {name} type veth peer name {name}-x", f"link set {name}-x up", f"link set {name} up")
        host.ip(f"addr add {address} dev {name}")
    return host


FAR = ("delay 30ms", "jitter 2ms", "rate 50m", "loss 0.005")
"""A line to the other side of a continent: 60 ms there and back, and not every packet arrives."""

V6, BOTH = frozenset({6}), frozenset({4, 6})

KINDS = {
    kind.name: kind
    for kind in (
        Kind(name="none", build=lambda net: net.host("host"), restricted=False),
        Kind(name="easy", build=behind(lambda net: net.router("home", EASY))),
        Kind(name="address", build=behind(lambda net: net.router("home", ADDRESS)), restricted=False),
        Kind(name="hard", build=behind(lambda net: net.router("home", HARD)), hard=True),
        Kind(name="double", build=behind(lambda net: net.router("isp", EASY, lan="10.0.0").router("home"))),
        Kind(name="cgn", build=behind(lambda net: net.router("cgn", EASY, lan="100.64.0").router("phone"))),
        Kind(name="blocked", build=behind(lambda net: net.router("office", BLOCKED)), padded=False),
        Kind(name="v6", build=behind(lambda net: net.router("v6", ROUTED, v4=False, v6=True)), families=V6),
        Kind(name="both", build=behind(lambda net: net.router("both", EASY, v6=True)), families=BOTH),
        Kind(name="no-v6", build=_broken(6)),
        Kind(name="no-v4", build=_broken(4), families=V6),
        Kind(name="dead-ends", build=_many_interfaces),
        Kind(name="far", build=behind(lambda net: net.router("far", EASY, link=FAR))),
        Kind(name="mtu-1280", build=behind(lambda net: net.router("pppoe", EASY, mtu=1280)), padded=False),
    )
}
