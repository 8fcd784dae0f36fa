"""Why two nodes talk directly, or do not, and the one change that would help. Pure: facts in, a verdict out.

What a NAT does is named after how it chooses the port it shows: an *easy* one shows the same port to every destination,
a *hard* one another port to each (RFC 4787: endpoint-independent and address-dependent mapping). Two nodes can find
each other's ports when at least one side's can be foretold and the other side's filter lets it in.
"""

from dataclasses import dataclass
from enum import StrEnum

SETTLED = 4.0
"""Seconds after which a direct path that is possible should have been found."""

MIN_MTU = 1378
"""Bytes an interface should carry: 1280 inside the tunnel, and what WireGuard, UDP and IP add, with some room. The
figure other clients of the protocol warn below."""

FULL_PACKET = 1338
"""Bytes of the packet that proves an IPv4 path: a ping padded to what full packets of the tunnel need."""

IP4, IP6 = 4, 6


class Nat(StrEnum):
    """What stands between a node and the internet."""

    NONE = "none"
    """Nothing: it sees itself at the address others see. A firewall may stand there all the same."""
    EASY = "easy"
    """One port for all destinations."""
    HARD = "hard"
    """Another port for each destination."""
    UNKNOWN = "unknown"
    """Fewer than two STUN servers answered, or the node does not say."""


class Code(StrEnum):
    """A verdict, for scripts. Names are stable."""

    DIRECT = "direct"
    NOT_CONNECTED = "not_connected"
    PENDING = "pending"
    BLOCKED_BY_CLIENT = "blocked_by_client"
    BLOCKED_BY_SERVER = "blocked_by_server"
    BLOCKED_BY_AGENT = "blocked_by_agent"
    NO_STUN = "no_stun"
    UDP_BLOCKED_BOTH = "udp_blocked_both"
    UDP_BLOCKED_CLIENT = "udp_blocked_client"
    UDP_BLOCKED_AGENT = "udp_blocked_agent"
    NO_COMMON_FAMILY = "no_common_family"
    PATH_MTU = "path_mtu"
    SAME_NAT = "same_nat"
    HARD_BOTH = "hard_nat_both"
    HARD_CLIENT = "hard_nat_client"
    HARD_AGENT = "hard_nat_agent"
    FIREWALL_CLIENT = "firewall_client"
    FIREWALL_AGENT = "firewall_agent"
    FIREWALL = "firewall"
    AGENT_SILENT = "agent_silent"
    NAT_UNKNOWN = "nat_unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What is known of one end. None and empty mean that it is not known."""

    udp: bool | None = None
    """Whether a STUN server answered it."""
    families: frozenset[int] = frozenset()
    """IP versions by which it reaches the outside: 4, 6."""
    nat: Nat = Nat.UNKNOWN
    """What its IPv4 goes through."""
    mapping: str = ""
    """Protocol of the port mapping its router has granted."""
    mapping_public: bool = True
    """Whether the router that granted it is the last one; false behind a second NAT, where it is of no use."""
    blocks: bool = False
    """It does not want direct connections."""
    public: str = ""
    """Its IPv4 address as others see it."""
    port: int = 0
    """Its local UDP port."""
    low_mtu: tuple[tuple[str, int], ...] = ()
    """Interfaces that carry less than `MIN_MTU`."""
    heard: bool | None = None
    """Whether anything of the other side arrived here directly."""

    @property
    def reachable_by(self) -> Nat:
        """The NAT that counts: a useful port mapping opens it."""
        return Nat.NONE if self.mapping and self.mapping_public else self.nat


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a pair."""

    client: Side
    agent: Side
    direct: bool | None
    """Whether the last answer came directly; None: there was none."""
    seconds: float = SETTLED
    """Since packets began to flow between the two."""
    client_flag: bool = False
    """The user asked for the relay."""
    server_blocks: bool = False
    """The server forbids direct connections."""
    stun: bool = True
    """Whether the relay map names any STUN server."""
    small_only: bool = False
    """Small packets got through directly, full ones did not."""
    path_mtu: int = 0
    """Bytes that a router on the way to the other's public address said it carries; 0: none said so."""
    agent_answers: bool = True
    """Whether the agent told about its network."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What it comes to: a code for scripts, two sentences for people."""

    code: Code
    text: str
    remedy: str = ""
    """The one change that helps; empty when nothing needs changing."""


def possible(one: Nat, other: Nat) -> bool | None:
    """Whether two nodes behind such NATs can find a direct path without luck; None: it cannot be told.

    A hard NAT meets only a side whose address is open to all: an easy NAT lets in no port it has not sent to.
    """
    if Nat.NONE in {one, other}:
        return True
    if Nat.UNKNOWN in {one, other}:
        return None
    return Nat.HARD not in {one, other}


def judge(facts: Facts) -> Verdict:
    """Return the first verdict that fits, from what was decided by people to what networks do."""
    if facts.direct is None:
        return Verdict(
            Code.NOT_CONNECTED, "nothing came back through the tunnel", "See the first step above that failed."
        )
    if facts.direct:
        return Verdict(Code.DIRECT, "the connection is direct")
    for ask in (_by_choice, _by_outage, _by_path, _by_nat, _by_ignorance):
        verdict = ask(facts)
        if verdict is not None:
            return verdict
    return _by_firewall(facts)


def _by_choice(facts: Facts) -> Verdict | None:
    """Somebody has switched direct connections off."""
    if facts.client_flag:
        return Verdict(
            Code.BLOCKED_BY_CLIENT,
            "direct connections are switched off on this machine",
            "Leave out --disable-direct-connections (or CODER_DISABLE_DIRECT_CONNECTIONS).",
        )
    if facts.server_blocks:
        return Verdict(
            Code.BLOCKED_BY_SERVER,
            "the server forbids direct connections",
            "Its administrator can start it without --block-direct-connections (CODER_BLOCK_DIRECT).",
        )
    if facts.agent.blocks:
        return Verdict(
            Code.BLOCKED_BY_AGENT,
            "direct connections are switched off in the workspace",
            "Start its agent without --disable-direct-connections (or CODER_DISABLE_DIRECT_CONNECTIONS).",
        )
    return None


def _by_outage(facts: Facts) -> Verdict | None:
    """One side has no UDP, or they have no IP version in common."""
    if not facts.stun:
        return Verdict(
            Code.NO_STUN,
            "no STUN server is configured, so neither side can learn its public address",
            "Let the server answer STUN (--derp-server-stun-port), or name one (--derp-server-stun-addresses).",
        )
    ours, theirs = facts.client.families, facts.agent.families
    if ours and theirs and not ours & theirs:
        [mine], [other] = ours, theirs
        return Verdict(
            Code.NO_COMMON_FAMILY,
            f"this machine has only IPv{mine}, the workspace only IPv{other}",
            f"Give this machine IPv{other}, or the workspace IPv{mine}.",
        )
    places = {
        (False, False): (Code.UDP_BLOCKED_BOTH, "both networks", "from both networks"),
        (False, True): (Code.UDP_BLOCKED_CLIENT, "this machine's network", "from this machine"),
        (True, False): (Code.UDP_BLOCKED_AGENT, "the workspace's network", "from the workspace's machine"),
    }
    place = places.get((facts.client.udp is not False, facts.agent.udp is not False))
    if place is not None:
        code, who, where = place
        verb = "block" if code is Code.UDP_BLOCKED_BOTH else "blocks"
        return Verdict(
            code,
            f"{who} {verb} UDP: no STUN server answered",
            f"Allow outgoing UDP {where}: to the server's STUN ports, and to any other port.",
        )
    return None


def _by_path(facts: Facts) -> Verdict | None:
    """They met, but the way between them does not carry what it must; or a router stands in its own way."""
    client, agent = facts.client, facts.agent
    if facts.small_only:
        named = ", ".join(_narrow(facts, MIN_MTU))
        return Verdict(
            Code.PATH_MTU,
            "small packets pass directly, full ones are lost on the way" + (f" ({named})" if named else ""),
            f"Raise the MTU on the way to {MIN_MTU} bytes or more.",
        )
    shared = client.public and client.public == agent.public and client.nat is not Nat.NONE
    if shared and facts.seconds >= SETTLED and IP6 not in _common(facts):
        return Verdict(
            Code.SAME_NAT,
            f"both are behind the router {client.public}, which does not lead packets back inside, and their local"
            " addresses do not reach each other",
            "Let the two local networks exchange UDP, or enable hairpin NAT on that router.",
        )
    return None


def _narrow(facts: Facts, limit: int) -> list[str]:
    return [
        f"{name} {where} carries {mtu} bytes"
        for side, where in ((facts.client, "here"), (facts.agent, "in the workspace"))
        for name, mtu in side.low_mtu
        if mtu < limit
    ]


def _by_nat(facts: Facts) -> Verdict | None:
    """Neither side can foretell where the other will be."""
    if IP6 in _common(facts):
        return None  # nothing is translated there, so NATs are no excuse
    ours, theirs = facts.client.reachable_by, facts.agent.reachable_by
    if possible(ours, theirs) is not False:
        return None
    if ours is Nat.HARD and theirs is Nat.HARD:
        return Verdict(Code.HARD_BOTH, "the NATs of both sides use another port for each destination", _mapping(facts))
    code, one, other = (
        (Code.HARD_CLIENT, "this machine's", "the workspace's")
        if ours is Nat.HARD
        else (Code.HARD_AGENT, "the workspace's", "this machine's")
    )
    return Verdict(
        code,
        f"{one} NAT uses another port for each destination, and {other} lets in only ports it has sent to",
        _mapping(facts),
    )


def _mapping(facts: Facts) -> str:
    """Name the router where a port mapping would help. One that is behind another router cannot help."""
    inner = {name for name, side in (("here", facts.client), ("there", facts.agent)) if not side.mapping_public}
    if inner == {"here", "there"}:
        return "Use IPv6 on both sides, or a public IPv4 address on one: both routers are behind another NAT."
    router = {"here": "the workspace's router", "there": "this machine's router"}.get(next(iter(inner), ""), "")
    port = f" {facts.agent.port}" if facts.agent.port else ""
    forward = "" if inner == {"there"} else f", or forward UDP port{port} to the workspace's machine"
    return f"Enable port mapping (UPnP, NAT-PMP or PCP) on {router or 'either router'}{forward}."


def _by_ignorance(facts: Facts) -> Verdict | None:
    """Too little is known, or not yet."""
    client, agent = facts.client, facts.agent
    if facts.seconds < SETTLED:
        return Verdict(Code.PENDING, "a direct path is still being looked for", "Try again in some seconds.")
    if not facts.agent_answers:
        return Verdict(
            Code.AGENT_SILENT,
            "the agent does not say what its network is like, and this machine's network allows direct connections",
            "Update the agent, or look at the NAT and firewall of the workspace.",
        )
    if possible(client.reachable_by, agent.reachable_by) is None and IP6 not in _common(facts):
        return Verdict(
            Code.NAT_UNKNOWN,
            "the kind of a NAT cannot be told, because only one STUN server answered",
            "Open both STUN ports of the server to both sides.",
        )
    return None


def _by_firewall(facts: Facts) -> Verdict:
    """Both networks should allow it, and yet nothing gets through."""
    client, agent = facts.client, facts.agent
    narrow = ", ".join(_narrow(facts, FULL_PACKET))
    if 0 < facts.path_mtu < FULL_PACKET:
        narrow = f"a router on the way carries {facts.path_mtu} bytes"
    if narrow:
        return Verdict(
            Code.PATH_MTU,
            f"no full packet gets through directly: {narrow}, and {FULL_PACKET} are needed",
            f"Raise the MTU there to {MIN_MTU} bytes or more.",
        )
    if agent.heard and not client.heard:
        return Verdict(
            Code.FIREWALL_CLIENT,
            "what this machine sends reaches the workspace directly, but no answer gets back here",
            f"Allow UDP from the workspace{_to(client.port)} of this machine: out of there, and in here.",
        )
    if client.heard and agent.heard is False:
        return Verdict(
            Code.FIREWALL_AGENT,
            "what the workspace sends reaches this machine directly, but no answer gets back there",
            f"Allow UDP from this machine{_to(agent.port)} of the workspace: out of here, and in there.",
        )
    return Verdict(
        Code.FIREWALL,
        "both networks should allow it, but nothing sent directly arrives: a firewall drops it,"
        f" or the way does not carry packets of {FULL_PACKET} bytes",
        "Allow UDP between the two in their firewalls"
        + (f", best{_to(agent.port)} of the workspace's machine." if agent.port else "."),
    )


def _to(port: int) -> str:
    return f" to port {port}" if port else ""


def _common(facts: Facts) -> frozenset[int]:
    return facts.client.families & facts.agent.families
