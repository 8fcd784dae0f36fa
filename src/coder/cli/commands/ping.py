"""`coder ping`."""

import asyncio
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from coder.cli import output
from coder.cli.context import Globals
from coder.cli.options import Duration, format_latency, output_option, workspace_argument
from coder.errors import TimedOut

if TYPE_CHECKING:
    from coder.cli.connect import Connection
    from coder.cli.diagnose import Findings
    from coder.dataplane.engine import Path, Pong

COLUMNS = ("workspace", "total", "successful", "min", "avg", "max", "variance")


@click.command("ping")
@workspace_argument()
@click.option(
    "-n", "--num", type=click.IntRange(min=0), default=10, show_default=True, help="How many pings; 0: for ever."
)
@click.option(
    "-t", "--timeout", type=Duration(positive=True), default="5s", show_default=True,
    help="How long to wait for each pong, and at first for the agent.",
)  # fmt: skip
@click.option("--wait", type=Duration(), default="1s", show_default=True, help="Time between two pings.")
@click.option("--time", "stamp", is_flag=True, help="Start each line with the time.")
@click.option("--utc", is_flag=True, help="That time in UTC.")
@output_option("text", "json")
@click.pass_obj
def command(
    flags: Globals, *, workspace: str, num: int, timeout: float, wait: float, stamp: bool, utc: bool, form: str
) -> int:
    """Ping a workspace and say over which path, and why not directly.

    Exits with 0 when at least one pong came. Never starts a workspace.
    """
    run = Run(num=num, timeout=timeout, wait=wait, stamp=stamp, utc=utc, quiet=form == "json")
    name = workspace
    try:
        name = asyncio.run(_ping(flags, workspace, run))
    except KeyboardInterrupt:
        if run.pings and form == "text":
            _print_summary(name, run)
        raise
    if form == "json":
        output.out(output.json_text(_json(name, run)))
    else:
        _print_summary(name, run)
    return 0 if run.latencies else 1


@dataclass(slots=True, kw_only=True)
class Run:
    """The options of one call, and what came of it so far."""

    num: int
    timeout: float
    wait: float
    stamp: bool
    utc: bool
    quiet: bool
    """Print no line per pong: the result is JSON."""
    pings: list[dict[str, Any]] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    path: "Path | None" = None
    """The way the last pong came."""
    was_direct: bool = False
    findings: "Findings | None" = None
    """Both sides' networks, once the agent was asked."""

    def summary(self) -> dict[str, Any]:
        """Sum up: counts, and milliseconds when there was a pong."""
        total: dict[str, Any] = {"total": len(self.pings), "successful": len(self.latencies)}
        if self.latencies:
            mean, variance = _spread(self.latencies)
            low, high = min(self.latencies), max(self.latencies)
            values = {"min_ms": low, "avg_ms": mean, "max_ms": high}
            total |= {name: round(value * 1e3, 3) for name, value in values.items()}
            total["variance_ms2"] = round(variance * 1e6, 6)
        return total


async def _ping(flags: Globals, workspace: str, run: Run) -> str:
    from coder.cli.connect import connect

    async with connect(flags, workspace, patience=run.timeout) as connection:
        try:
            await connection.reach(run.timeout)
        finally:
            _preamble(connection)
        try:
            while True:
                await _one(connection, run)
                if run.findings is None and run.path is not None:
                    await _sides(connection, run)
                if run.num and len(run.pings) >= run.num:
                    break
                await asyncio.sleep(run.wait)
        finally:
            _closing(connection, run)
        return connection.workspace


async def _one(connection: "Connection", run: Run) -> None:
    """Send one ping and tell its pong."""
    stamp = ""
    if run.stamp:
        now = datetime.now(UTC) if run.utc else datetime.now().astimezone()
        stamp = f"[{now.isoformat(timespec='seconds').replace('+00:00', 'Z')}] "
    number = len(run.pings) + 1
    try:
        pong = await connection.ping(run.timeout)
    except TimedOut:
        run.pings.append({"n": number, "error": "timed out"})
        _line(run, f'{stamp}ping to "{connection.workspace}" timed out')
        return
    run.latencies.append(pong.latency)
    run.pings.append({"n": number, "path": connection.path_json(pong.path, pong.latency)})
    before, run.path = run.path, pong.path
    if pong.path.kind == "direct" and before is not None and before.kind == "relay" and not run.was_direct:
        _line(run, f"{stamp}p2p connection established in {format_latency(connection.age())}")
    run.was_direct = run.was_direct or pong.path.kind == "direct"
    _line(run, f"{stamp}pong from {connection.workspace} {_via(connection, pong)} in {format_latency(pong.latency)}")


def _via(connection: "Connection", pong: "Pong") -> str:
    if pong.path.kind == "direct":
        return f"p2p via {pong.path.endpoint}"
    return f"proxied via DERP({connection.region_name(pong.path.region)})"


def _line(run: Run, text: str) -> None:
    if not run.quiet:
        output.out(text)


def _preamble(connection: "Connection") -> None:
    """Say how far the introduction came, step by step."""
    state = connection.peering.state()
    home = state.home
    _check(home, f"preferred DERP region: {home} ({connection.region_name(home)})", "no relay could be reached")
    _check(state.told, "sent local data to Coder networking coordinator", "sent nothing to the coordinator yet")
    peer = next(iter(state.peers), None)
    _check(
        peer, "received remote agent data from Coder networking coordinator", "the coordinator knows no agent data yet"
    )
    if peer is not None:
        output.note(f"    preferred DERP region: {peer.home} ({connection.region_name(peer.home)})")
        output.note(f"    endpoints: {output.printable(', '.join(peer.endpoints)) or 'none'}")
        seconds = connection.node.last_handshake(peer.key)
        _check(seconds is not None, f"Wireguard handshake {seconds or 0:.0f}s ago", "no Wireguard handshake yet")
    if connection.rules.client_flag:
        output.note("❗ Direct connections are disabled here, by --disable-direct-connections")
    if connection.rules.server_blocks:
        output.note("❗ Direct connections are disabled by the server, for everybody")
    output.note()


def _check(good: object, yes: str, no: str) -> None:
    output.note(f"✔ {yes}" if good else f"✘ {no}")


async def _sides(connection: "Connection", run: Run) -> None:
    """Say what both networks are like. After the first pong, which should not wait for it."""
    from coder.cli import diagnose

    direct = run.path is not None and run.path.kind == "direct"
    run.findings = await diagnose.look(connection, direct=direct, patience=run.timeout)
    for name, text in diagnose.lines(run.findings):
        output.note(output.hang(f"    {name.ljust(14)}", text, to_stderr=True))


def _closing(connection: "Connection", run: Run) -> None:
    """Say what the connection came to."""
    from coder.cli import diagnose

    path, found = run.path, run.findings
    if path is None or found is None:
        return
    run.findings = found = diagnose.again(
        connection, found.facts, direct=path.kind == "direct", agent_problem=found.agent_problem
    )
    output.note()
    if path.kind == "direct":
        first = found.first_direct
        after = "" if first is None else f", after {format_latency(first)}"
        output.note(f"✔ You are connected directly (p2p){after}")
        return
    place = connection.region_name(path.region)
    output.note(f"❗ You are connected via a DERP relay ({place}), not directly (p2p)")
    verdict = found.verdict
    output.note(output.hang("    because ", f"{verdict.text}.", to_stderr=True))
    output.note(output.hang("    ", verdict.remedy, to_stderr=True))


def _json(workspace: str, run: Run) -> dict[str, Any]:
    from coder.cli import diagnose

    found = None if run.findings is None else diagnose.findings_json(run.findings)
    return {"workspace": workspace, "pings": run.pings, "summary": run.summary(), "diagnosis": found}


def _print_summary(workspace: str, run: Run) -> None:
    figures = ["-"] * 4
    if run.latencies:
        mean, variance = _spread(run.latencies)
        times = [format_latency(value) for value in (min(run.latencies), mean, max(run.latencies))]
        figures = [*times, f"{variance * 1e6:.3g}ms²"]
    text = output.table(COLUMNS, [[workspace, str(len(run.pings)), str(len(run.latencies)), *figures]])
    output.out("-" * max(map(len, text.splitlines())))
    output.out(text)


def _spread(values: list[float]) -> tuple[float, float]:
    """Mean and population variance."""
    mean = math.fsum(values) / len(values)
    return mean, math.fsum((value - mean) ** 2 for value in values) / len(values)
