"""`coder ping`."""

import asyncio
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from coder.cli import output
from coder.cli.context import Globals
from coder.cli.options import Duration, format_latency, output_option
from coder.errors import TimedOut

if TYPE_CHECKING:
    from coder.cli.connect import Connection
    from coder.dataplane.engine import Path, Pong

COLUMNS = ("workspace", "total", "successful", "min", "avg", "max", "variance")


@click.command("ping")
@click.argument("workspace")
@click.option(
    "-n", "--num", type=click.IntRange(min=0), default=10, show_default=True, help="How many pings; 0: for ever."
)
@click.option(
    "-t", "--timeout", type=Duration(), default="5s", show_default=True,
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
    """Ping a workspace and say over which path.

    Exits with 0 when at least one pong came.
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
        output.out(output.json_text({"workspace": name, "pings": run.pings, "summary": run.summary()}))
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
        path: Path | None = None
        while True:
            path = await _one(connection, run, path)
            if run.num and len(run.pings) >= run.num:
                break
            await asyncio.sleep(run.wait)
        _closing(connection, path)
        return connection.workspace


async def _one(connection: "Connection", run: Run, before: "Path | None") -> "Path | None":
    """Send one ping, tell its pong, and return the path it came by."""
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
        return before
    run.latencies.append(pong.latency)
    run.pings.append({"n": number, "path": connection.path_json(pong.path, pong.latency)})
    if pong.path.kind == "direct" and before is not None and before.kind == "relay":
        _line(run, f"{stamp}p2p connection established in {format_latency(connection.age())}")
    _line(run, f"{stamp}pong from {connection.workspace} {_via(connection, pong)} in {format_latency(pong.latency)}")
    return pong.path


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
        output.note(f"    endpoints: {', '.join(peer.endpoints) or 'none'}")
        seconds = connection.node.last_handshake(peer.key)
        _check(seconds is not None, f"Wireguard handshake {seconds or 0:.0f}s ago", "no Wireguard handshake yet")
    if not connection.rules.direct_allowed:
        output.note(
            "❗ Direct connections are disabled, by --disable-direct-connections or by the server's administrator"
        )
    output.note()


def _check(good: object, yes: str, no: str) -> None:
    output.note(f"✔ {yes}" if good else f"✘ {no}")


def _closing(connection: "Connection", path: "Path | None") -> None:
    if path is None:
        return
    if path.kind == "direct":
        output.note("\n✔ You are connected directly (p2p)")
    else:
        output.note(
            f"\n❗ You are connected via a DERP relay ({connection.region_name(path.region)}), not directly (p2p)"
        )


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
