"""The stages of `coder doctor`: what each looks at, and how it fails."""

import asyncio
import functools
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import starmap
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from coder.cli import diagnose, errors, versions, workspaces
from coder.cli.api import Api
from coder.cli.connect import Connection, introduced, not_connected, relay_map
from coder.cli.context import Globals, normal_url
from coder.cli.diagnose import Findings
from coder.cli.options import format_duration, format_latency
from coder.cli.stages import Examination, Stage, Stop, Told
from coder.cli.threads import in_thread
from coder.errors import CoderError, TimedOut, Unreachable
from coder.tailnet.diagnosis import SETTLED, Code, Nat, Side

if TYPE_CHECKING:
    from coder.dataplane.engine import NetworkReport, Pong
    from coder.peering.relaycheck import Exchange
    from coder.wire.derpmap import DerpMap, Region

TO_SERVER = ("server", "sign-in", "version")
TO_WORKSPACE = (*TO_SERVER, "agent", "relay", "coordination", "disco", "wireguard", "direct")
TO_RELAYS = (*TO_SERVER, "relay", "udp")

FORBIDDEN = {Code.BLOCKED_BY_CLIENT, Code.BLOCKED_BY_SERVER, Code.BLOCKED_BY_AGENT}
"""Verdicts that no waiting changes."""

LET_THROUGH = "What stands between here and the server must let HTTP upgrades or WebSockets through."

PING_EVERY = 0.25
"""Seconds between two pings while a direct path is awaited."""

PING_PATIENCE = 1.0
"""Seconds for the first ping, which may be lost while the agent is told of us; the next get longer."""

Status = Literal["direct", "relayed", "not_connected", "ok", "failed"]


@dataclass(slots=True)
class Checkup:
    """What an examination came to."""

    workspace: str | None
    status: Status
    stages: list[Stage] = field(default_factory=list)
    path: dict[str, Any] | None = None
    findings: Findings | None = None


async def examine(flags: Globals, argument: str | None, *, patience: float, tell: Callable[[Stage], None]) -> Checkup:
    """Run the stages towards a workspace, or towards the relays. Raises CoderError for an argument that names none."""
    target = workspaces.Target.parse(argument) if argument is not None else None
    exam = Examination(TO_RELAYS if target is None else TO_WORKSPACE, tell)
    found = Checkup(target.name if target else None, "not_connected" if target else "failed", exam.stages)
    try:
        api = await _server(flags, exam, patience)
        with api:
            if target is None:
                await _relays(exam, flags, api, patience)
                found.status = "ok"
            else:
                await _workspace(flags, exam, api, target, patience=patience, found=found)
    except Stop:
        pass
    finally:
        exam.close()
    return found


# To the server


async def _server(flags: Globals, exam: Examination, patience: float) -> Api:
    async def server() -> Told[tuple[str, Any]]:
        if flags.url is None:
            raise errors.not_signed_in(None)
        url = normal_url(flags.url)
        with Api(url, headers=flags.headers(url), outbound=flags.outbound, timeout=patience) as nobody:
            info = await in_thread(nobody.build_info)
        if not isinstance(info, dict):
            raise errors.bad_answer(url)
        return Told((url, info), url)

    async def sign_in() -> Told[Api]:
        api = Api(url, token=flags.session(), headers=flags.headers(url), outbound=flags.outbound, timeout=patience)
        try:
            user = await in_thread(api.me)
        except CoderError:
            api.close()
            raise
        return Told(api, f"as {user.get('username', '?')}")

    async def version() -> Told[None]:
        build = str(info.get("version", ""))
        if versions.mismatch(build):
            said, _, advice = versions.warning(build, info).partition("\n")
            return Told(None, said, warn=True, remedy=advice)
        return Told(None, build or "not told")

    url, info = await exam.run("server", server)
    api = await exam.run("sign-in", sign_in)
    await exam.run("version", version)
    return api


# To a workspace


async def _workspace(
    flags: Globals, exam: Examination, api: Api, target: workspaces.Target, *, patience: float, found: Checkup
) -> None:
    async def agent() -> Told[UUID]:
        workspace = await in_thread(functools.partial(workspaces.find, api, target))
        one = workspaces.choose_agent(workspace, target)
        if one["status"] != "connected":
            raise not_connected(target, one)
        return Told(UUID(one["id"]), f"{one['name']} is connected to the server")

    agent_id = await exam.run("agent", agent)
    from coder.dataplane.engine import Engine
    from coder.peering import relaycheck

    async with AsyncExitStack() as stack:

        async def relay() -> Told[Connection]:
            engine = await stack.enter_async_context(Engine())
            made = await stack.enter_async_context(introduced(flags, api, engine, agent_id, target.name))
            await _await(made.watch.home.wait(), made, patience, lambda: _no_relay(made.watch.problem))
            state = made.peering.state()
            region = state.derp_map.regions.get(state.home)
            if region is None:
                return Told(made, f"region {state.home}, which the server has just withdrawn", warn=True)
            rules = relaycheck.Rules.of(flags, api.url, force_websockets=made.rules.force_websockets)
            exchanged = await relaycheck.exchange(engine, state.derp_map, region, rules, patience)
            broken = exchanged.round_trip is None
            return Told(made, _relay_result(region, exchanged), warn=broken, remedy=LET_THROUGH if broken else "")

        connection = await exam.run("relay", relay)
        try:
            pong = await _tunnel(exam, connection, patience)
        except Stop:
            found.findings = await diagnose.look(connection, direct=None, patience=patience)
            raise
        pong, found.findings = await _direct(exam, connection, pong, patience)
        found.path = connection.path_json(pong.path, pong.latency)
        found.status = "direct" if pong.path.kind == "direct" else "relayed"


async def _tunnel(exam: Examination, connection: Connection, patience: float) -> "Pong":
    """Get an answer through the tunnel; return the first."""

    async def coordination() -> Told[None]:
        await _await(connection.peering.introduced.wait(), connection, patience, lambda: _not_introduced(connection))
        return Told(None, "the server has introduced both ends")

    async def disco() -> Told["Pong"]:
        pong = await _first_pong(connection, patience)
        where = "directly" if pong.path.kind == "direct" else "through the relay"
        return Told(pong, f"the agent answers {where} in {format_latency(pong.latency)}")

    async def wireguard() -> Told[None]:
        latency = await connection.reach(patience)
        return Told(None, f"handshake done, round trip {format_latency(latency)}")

    await exam.run("coordination", coordination)
    pong = await exam.run("disco", disco)
    await exam.run("wireguard", wireguard)
    return pong


async def _first_pong(connection: Connection, patience: float) -> "Pong":
    loop = asyncio.get_running_loop()
    until, attempt = loop.time() + patience, PING_PATIENCE
    while True:
        left = until - loop.time()
        try:
            return await connection.ping(min(attempt, max(left, 0.0)))
        except TimedOut:
            attempt *= 2
            if loop.time() >= until:
                raise errors.no_answer(
                    connection.workspace, format_duration(patience), connection.watch.problem
                ) from None
            await asyncio.sleep(PING_EVERY)


async def _until_direct(connection: Connection, pong: "Pong", patience: float) -> "Pong":
    """Ping on until the answer is direct, or until it should have been."""
    limit = min(patience, SETTLED + PING_PATIENCE)
    while pong.path.kind != "direct" and connection.seconds_since_reached() < limit:
        await asyncio.sleep(PING_EVERY)
        try:
            pong = await connection.ping(patience)
        except TimedOut:
            continue
    return pong


async def _direct(exam: Examination, connection: Connection, pong: "Pong", patience: float) -> tuple["Pong", Findings]:
    """Wait for a direct path unless somebody forbids it; return the last answer and why it came the way it did."""

    async def direct() -> Told[tuple["Pong", Findings]]:
        found, last = await diagnose.look(connection, direct=pong.path.kind == "direct", patience=patience), pong
        if found.verdict.code not in FORBIDDEN:
            last = await _until_direct(connection, pong, patience)
            found = diagnose.again(
                connection, found.facts, direct=last.path.kind == "direct", agent_problem=found.agent_problem
            )
        if found.verdict.code is not Code.DIRECT:
            return Told((last, found), f"no, through {connection.region_name(last.path.region)}", warn=True)
        after = f", found after {format_latency(found.first_direct)}" if found.first_direct is not None else ""
        return Told((last, found), f"{last.path.endpoint} in {format_latency(last.latency)}{after}")

    return await exam.run("direct", direct)


async def _await(event: Any, connection: Connection, patience: float, late: Callable[[], CoderError]) -> None:
    """Wait for an event of the introduction. Raises what ended the introduction, or what `late` makes."""
    waiting = asyncio.ensure_future(event)
    others = {connection.following} if connection.following is not None else set()
    try:
        done, _ = await asyncio.wait({waiting, *others}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if waiting in done:
            return
        for ended in done:
            ended.result()
        raise late()
    finally:
        waiting.cancel()


def _no_relay(problem: str) -> Unreachable:
    return Unreachable(
        "no relay could be reached" + (f" ({problem})" if problem else ""),
        remedy=LET_THROUGH,
    )


def _not_introduced(connection: Connection) -> TimedOut:
    told = connection.peering.state().told
    problem = connection.watch.problem
    return TimedOut(
        ("the server knows nothing of the agent yet" if told else "the server was told nothing of this machine yet")
        + (f" ({problem})" if problem else ""),
        remedy=f"See 'coder show {connection.workspace}', and the agent's log on its machine.",
    )


# To the relays alone


async def _relays(exam: Examination, flags: Globals, api: Api, patience: float) -> None:
    from coder.dataplane.engine import Engine
    from coder.peering import relaycheck
    from coder.tailnet import derpmap

    async with AsyncExitStack() as stack:

        async def relay() -> Told[tuple["DerpMap", "NetworkReport | None"]]:
            info = await in_thread(api.any_connection_info)
            relays = derpmap.rewrite_embedded(relay_map(api.url, info), api.url)
            forced = bool(info.get("derp_force_websockets"))
            rules = relaycheck.Rules.of(flags, api.url, force_websockets=forced)
            engine = await stack.enter_async_context(Engine())
            regions = [one for one in relays.regions.values() if not all(node.stun_only for node in one.nodes)]
            report, found = await asyncio.gather(
                relaycheck.check(engine, relays, rules, patience),
                asyncio.gather(*(relaycheck.exchange(engine, relays, one, rules, patience) for one in regions)),
            )
            broken = [one for one in found if one.round_trip is None]
            if len(broken) == len(found):
                raise _no_relay(broken[0].problem)
            text = ", ".join(starmap(_relay_result, zip(regions, found, strict=True)))
            return Told((relays, report), text, warn=bool(broken))

        relays, report = await exam.run("relay", relay)

        async def udp() -> Told[None]:
            if report is None:
                return Told(None, "the network could not be checked in time", warn=True)
            return _udp(await diagnose.here(report), stun=diagnose.has_stun(relays))

        await exam.run("udp", udp)


def _relay_result(region: "Region", found: "Exchange") -> str:
    name = region.name or f"region {region.id}"
    if found.round_trip is None:
        return f"{name} does not work ({found.problem})"
    way = "by HTTP upgrade" if found.websocket is None else f"by WebSocket ({found.websocket})"
    return f"{name} works {way}, {format_latency(found.round_trip)} there and back"


def _udp(side: Side, *, stun: bool) -> Told[None]:
    """Say what this machine's network allows."""
    if not stun:
        return Told(None, "not tested: no STUN server is configured, so connections are relayed", warn=True)
    text = diagnose.describe(side)
    if not side.udp:
        remedy = "Direct connections need it: allow outgoing UDP, to the server's STUN ports and to any other port."
        return Told(None, text, warn=True, remedy=remedy)
    if side.reachable_by is Nat.HARD:
        remedy = (
            "Direct only to workspaces with a public address, a port mapping or IPv6."
            " Enable port mapping (UPnP, NAT-PMP or PCP) on this router."
        )
        return Told(None, text, warn=True, remedy=remedy)
    return Told(None, text)
