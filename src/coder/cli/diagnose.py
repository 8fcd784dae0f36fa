"""Both ends' networks and what stands between them: gathered here, judged in `coder.tailnet.diagnosis`."""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from coder.agent.interfaces import interfaces
from coder.cli import path_mtu, tunnel_http
from coder.errors import CoderError, PeerUnsupported
from coder.peering import network
from coder.tailnet import diagnosis, sides
from coder.tailnet.diagnosis import FULL_PACKET, MIN_MTU, Facts, Nat, Side, Verdict
from coder.tailnet.sides import NOTHING, Extra, Interface
from coder.wire import netinfo
from coder.wire.netinfo import NetInfo

if TYPE_CHECKING:
    from coder.cli.connect import Connection
    from coder.dataplane.engine import NetworkReport, PeerPaths
    from coder.wire.derpmap import DerpMap

NO_STUN = -1

_NAT = {
    Nat.NONE: "no NAT",
    Nat.EASY: "easy NAT",
    Nat.HARD: "hard NAT (another port for each destination)",
    Nat.UNKNOWN: "NAT of unknown kind",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What was found out about a connection."""

    facts: Facts
    verdict: Verdict
    agent_problem: str
    """Why the agent told nothing about its network; empty when it did."""
    first_direct: float | None
    """Seconds from the first packet to the proof of a direct path."""
    mtu: int | None
    """Bytes of the largest packet proven on the direct path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """What an end says of itself."""

    info: NetInfo = field(default_factory=NetInfo)
    interfaces: tuple[Interface, ...] = ()
    extra: Extra = NOTHING
    problem: str = ""

    def side(self, endpoints: Iterable[str], *, stun: bool, stun_by_ipv6: bool) -> Side:
        """Make one side of it. Without STUN servers nothing is known of UDP."""
        found = sides.side(
            self.info,
            endpoints=endpoints,
            interfaces=self.interfaces,
            extra=self.extra,
            stun_by_ipv6=stun_by_ipv6,
        )
        return found if stun else replace(found, udp=None)


async def look(connection: "Connection", *, direct: bool | None, patience: float) -> Findings:
    """Ask both ends. `direct` says how the last answer came; None: there was none, and the agent is not asked."""
    state = connection.peering.state()
    peer = next(iter(state.peers), None)
    client, agent = await asyncio.gather(
        _client(connection, patience), _agent(connection, patience) if direct is not None else _nobody()
    )
    stun = has_stun(state.derp_map)
    six = bool(client.info.working_ipv6 or agent.info.working_ipv6)
    facts = Facts(
        client=client.side(state.endpoints, stun=stun, stun_by_ipv6=six),
        agent=agent.side(peer.endpoints if peer else (), stun=stun, stun_by_ipv6=six and not agent.problem),
        direct=direct,
        client_flag=connection.rules.client_flag,
        server_blocks=connection.rules.server_blocks,
        stun=stun,
        agent_answers=not agent.problem,
    )
    return again(connection, facts, direct=direct, agent_problem=agent.problem)


def again(connection: "Connection", facts: Facts, *, direct: bool | None, agent_problem: str) -> Findings:
    """Judge anew by what this end has seen meanwhile, without asking anybody."""
    paths = _paths(connection)
    facts = replace(
        facts,
        direct=direct,
        seconds=connection.seconds_since_reached(),
        small_only=paths is not None and _small_only(paths),
        path_mtu=0 if direct else path_mtu.least(connection.peering.state().peers),
        client=replace(facts.client, heard=None if paths is None else network.heard(paths)),
    )
    return Findings(
        facts=facts,
        verdict=diagnosis.judge(facts),
        agent_problem=agent_problem,
        first_direct=paths.first_direct if paths else None,
        mtu=_proven_mtu(paths) if paths else None,
    )


def _paths(connection: "Connection") -> "PeerPaths | None":
    peer = next(iter(connection.peering.state().peers), None)
    return connection.node.peer_paths(peer.key) if peer else None


async def _client(connection: "Connection", patience: float) -> _End:
    report = await network.checked(connection.node, patience)
    return _End(
        info=network.net_info(report, connection.peering.state()),
        interfaces=tuple(await asyncio.to_thread(interfaces)),
        extra=network.extra_of(connection.peering, _paths(connection)),
    )


async def here(report: "NetworkReport") -> Side:
    """Describe this machine from a check of its network alone, without a peer."""
    info = NetInfo(
        mapping_varies_by_dest_ip=report.mapping_varies_by_dest_ip,
        working_ipv6=report.ipv6,
        os_has_ipv6=report.os_has_ipv6,
        working_udp=report.udp,
    )
    seen = tuple(place for place in (report.global_v4, report.global_v6) if place)
    found = await asyncio.to_thread(interfaces)
    return sides.side(info, endpoints=seen, interfaces=found, extra=Extra(ipv4=report.ipv4, blocks=False))


async def _agent(connection: "Connection", patience: float) -> _End:
    report, more = await asyncio.gather(
        _ask(connection, "/api/v0/netcheck", patience), _ask(connection, "/api/v0/paths", patience)
    )
    if isinstance(report, PeerUnsupported):
        return _End(problem="the agent is too old to tell about its network")
    if isinstance(report, CoderError):
        return _End(problem=f"not told: {report}")
    found = report if isinstance(report, dict) else {}
    return _End(
        info=netinfo.load(found.get("net_info")),
        interfaces=sides.load_interfaces(found.get("interfaces")),
        extra=NOTHING if isinstance(more, CoderError) else Extra.load(more),
    )


async def _ask(connection: "Connection", path: str, patience: float) -> Any:
    """Return the agent's answer, or why there is none."""
    try:
        return await tunnel_http.get(connection.node, connection.address, path, patience)
    except CoderError as error:
        return error


async def _nobody() -> _End:
    return _End(problem="the agent cannot be asked")


def has_stun(derp_map: "DerpMap") -> bool:
    """Whether any server of the map answers STUN."""
    return any(node.stun_port != NO_STUN for region in derp_map.regions.values() for node in region.nodes)


def _small_only(paths: "PeerPaths") -> bool:
    """Whether an address has answered, but never a full packet."""
    return paths.endpoint is None and any(one.mtu is not None and one.mtu < FULL_PACKET for one in paths.endpoints)


def _proven_mtu(paths: "PeerPaths") -> int | None:
    return next((one.mtu for one in paths.endpoints if one.trusted), None)


# How it reads


def describe(side: Side) -> str:
    """Say in a line what a side's network is like."""
    if side.udp is None:
        return "unknown"
    if not side.udp:
        return "UDP blocked"
    versions = " and ".join(f"IPv{version}" for version in sorted(side.families))
    mapping = f"port mapping by {side.mapping.upper()}" if side.mapping else ""
    return ", ".join(part for part in ("UDP works", _NAT[side.nat], versions, mapping) if part)


def lines(found: Findings) -> Iterator[tuple[str, str]]:
    """Say in some lines what both networks are like: a name and a text each."""
    facts = found.facts
    unknown = "UDP not tested: no STUN server is configured"
    yield "this machine", describe(facts.client) if facts.stun else unknown
    yield "workspace", found.agent_problem or (describe(facts.agent) if facts.stun else unknown)
    if found.mtu is not None:
        yield "path MTU", f"{found.mtu} bytes proven"
    for side, where in ((facts.client, "here"), (facts.agent, "in the workspace")):
        for name, mtu in side.low_mtu:
            yield "low MTU", f"{name} {where} carries {mtu} bytes; below {MIN_MTU}, full packets may be lost"


def side_json(side: Side) -> dict[str, Any]:
    """Describe a side for scripts."""
    return {
        "udp": side.udp,
        "nat": str(side.nat),
        "ip_versions": sorted(side.families),
        "port_mapping": side.mapping or None,
        "blocks_direct": side.blocks,
        "low_mtu_interfaces": [{"name": name, "mtu": mtu} for name, mtu in side.low_mtu],
    }


def verdict_json(verdict: Verdict) -> dict[str, str]:
    """Describe a verdict for scripts."""
    return {"code": str(verdict.code), "text": verdict.text, "remedy": verdict.remedy}


def findings_json(found: Findings) -> dict[str, Any]:
    """Describe all of it for scripts."""
    return {
        "client": side_json(found.facts.client),
        "agent": None if found.agent_problem else side_json(found.facts.agent),
        "agent_problem": found.agent_problem,
        "direct_after_seconds": found.first_direct,
        "path_mtu": found.mtu,
        "verdict": verdict_json(found.verdict),
    }
