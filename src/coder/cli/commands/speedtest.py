"""`coder speedtest`."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from coder.cli import output
from coder.cli.context import Globals
from coder.cli.options import (
    Duration,
    column_option,
    format_duration,
    format_latency,
    output_option,
    workspace_argument,
)
from coder.errors import CoderError, TimedOut

if TYPE_CHECKING:
    from coder.cli.connect import Connection
    from coder.dataplane.engine import Interval, Pong, SpeedtestResult

COLUMNS = ("interval", "transfer", "throughput")
HEADERS = {"interval": "interval", "transfer": "transfer", "throughput": "bandwidth"}
PLAIN_HEADERS = {"interval": "interval", "throughput": "throughput"}
"""Headers of the two-column form, which other clients of the protocol print."""

EXIT_SLOW = 3
"""The test worked, but was slower than --min-mbps."""

DIRECT_POLL = 1.0
"""Seconds between two pings while a direct path is awaited."""


@click.command("speedtest")
@workspace_argument()
@click.option("-t", "--time", "duration", type=Duration(), default="5s", show_default=True, help="How long to measure.")
@click.option("--direction", type=click.Choice(["up", "down"]), default="down", show_default=True, help="Which way.")
@click.option("-d", "--direct", is_flag=True, help="Wait for a direct connection first.")
@click.option(
    "--timeout", type=Duration(), default="30s", show_default=True,
    help="How long to wait for the agent, and with --direct for a direct connection.",
)  # fmt: skip
@click.option(
    "--compare", is_flag=True, help="Measure through the relay, then directly, over one connection; show both."
)
@click.option(
    "--min-mbps", "least", type=click.FloatRange(min=0), metavar="N",
    help="Exit with 3 when the throughput is below N Mbit/s (with --compare: either one).",
)  # fmt: skip
@output_option("table", "json")
@column_option(", ".join(COLUMNS))
@click.pass_obj
def command(
    flags: Globals,
    *,
    workspace: str,
    duration: float,
    direction: str,
    direct: bool,
    timeout: float,
    compare: bool,
    least: float | None,
    form: str,
    chosen: str | None,
) -> int:
    """Measure the throughput to a workspace."""
    if (direct or compare) and flags.disable_direct:
        option = "--direct (-d)" if direct else "--compare"
        raise click.UsageError(f"{option} is incompatible with --disable-direct-connections")
    if compare and (direct or chosen):
        raise click.UsageError("--compare goes without --direct and --column")
    if duration <= 0:
        raise click.BadParameter("measure for some time", param_hint="--time")
    columns = output.pick(COLUMNS, chosen, COLUMNS)
    test = Test(flags, workspace, duration=duration, download=direction == "down", patience=timeout)
    if compare:
        results = asyncio.run(test.compare())
        _print_comparison(results, form)
    else:
        report = Report(columns, duration, to=output.out if form == "table" else output.note if flags.watched else None)
        measured = asyncio.run(test.single(direct=direct, report=report))
        results = [measured]
        if form == "json":
            output.out(output.json_text(_json(measured)))
        else:
            report.finish(measured.result)
    return _judge(results, least)


def _judge(results: "Sequence[Measured]", least: float | None) -> int:
    slowest = min(_rate(one.result.total) for one in results)
    if least is None or slowest >= least:
        return 0
    output.note(f"{slowest:.1f} Mbit/s is less than the {least:g} asked for")
    return EXIT_SLOW


@dataclass(frozen=True, slots=True)
class Measured:
    """A test that is over, and the way it went."""

    path: dict[str, Any]
    result: "SpeedtestResult"


class Test:
    """What one call of the command does."""

    def __init__(self, flags: Globals, workspace: str, *, duration: float, download: bool, patience: float) -> None:
        self._flags = flags
        self._workspace = workspace
        self._duration = duration
        self._download = download
        self._patience = patience

    async def single(self, *, direct: bool, report: "Report") -> Measured:
        """Measure over the path there is, or over a direct one."""
        from coder.cli.connect import connect

        async with connect(self._flags, self._workspace, patience=self._patience) as connection:
            await connection.reach(self._patience)
            pong = await (_wait_for_direct(connection, self._patience) if direct else connection.ping(self._patience))
            return await self._run(connection, pong, report.row)

    async def compare(self) -> list[Measured]:
        """Measure through the relay, then allow direct paths and measure again."""
        from coder.cli.connect import connect

        async with connect(self._flags, self._workspace, patience=self._patience, relay_only=True) as connection:
            await connection.reach(self._patience)
            if not connection.rules.direct_allowed:
                raise CoderError(
                    "the server forbids direct connections", remedy="Measure through the relay, without --compare."
                )
            relayed = await self._run(connection, await connection.ping(self._patience), _nothing)
            connection.peering.set_block_direct(False)
            try:
                pong = await _wait_for_direct(connection, self._patience)
            except TimedOut as error:
                output.note(f"Through the relay: {_rate(relayed.result.total):.4f} Mbits/sec")
                raise TimedOut(
                    str(error), remedy=f"'coder doctor {self._workspace}' says what would make it direct."
                ) from None
            return [relayed, await self._run(connection, pong, _nothing)]

    async def _run(self, connection: "Connection", pong: "Pong", row: "Callable[[Interval], None]") -> Measured:
        way = "download" if self._download else "upload"
        output.note(_path_line(connection, pong))
        output.note(f"Starting a {format_duration(self._duration)} {way} test...")
        result = await connection.node.speedtest(
            connection.address, duration=self._duration, download=self._download, on_interval=row
        )
        if not result.total.bytes:
            raise CoderError("no data arrived while the test ran", remedy="Try again, longer, with --time.")
        return Measured(connection.path_json(pong.path, pong.latency), result)


def _nothing(_interval: "Interval") -> None: ...


async def _wait_for_direct(connection: "Connection", patience: float) -> "Pong":
    """Ping until the answer comes directly. Raises TimedOut."""
    try:
        async with asyncio.timeout(patience):
            while (pong := await connection.ping(patience)).path.kind != "direct":
                output.note(f"Waiting for a direct connection... ({_path_line(connection, pong)})")
                await asyncio.sleep(DIRECT_POLL)
            return pong
    except TimeoutError:
        raise TimedOut(
            f"no direct connection within {format_duration(patience)}",
            remedy="Leave out --direct to measure through the relay, or give it longer with --timeout.",
        ) from None


def _path_line(connection: "Connection", pong: "Pong") -> str:
    place = pong.path.endpoint if pong.path.kind == "direct" else connection.region_code(pong.path.region)
    return f"{pong.latency * 1e3:.0f}ms via {place}"


class Report:
    """The table, growing while the test runs, so its widths are settled at the start."""

    FASTEST = 1e4
    """Mbit/s up to which the columns stay straight."""

    def __init__(self, columns: Sequence[str], duration: float, *, to: Callable[[str], None] | None) -> None:
        self._columns = columns
        self._to = to
        longest = len(f"{duration:.2f}-{duration + 1:.2f} sec"), len(f"{duration * self.FASTEST:.4f} MBits")
        self._widths = {"interval": max(longest[0], 13), "transfer": max(longest[1], 15)}
        self._printed = 0

    def row(self, interval: "Interval") -> None:
        """Print a finished interval."""
        if not self._printed:
            headers = HEADERS if "transfer" in self._columns else PLAIN_HEADERS
            self._emit([headers[column].upper() for column in self._columns])
        self._emit(self._cells(interval))

    def finish(self, result: "SpeedtestResult") -> None:
        """Print the rule and the total; the rows too when none was shown while the test ran."""
        if not self._printed:
            for interval in result.intervals:
                self.row(interval)
        self._emit(["-" * self._printed])
        self._emit(self._cells(result.total))
        if result.retransmits is not None and self._to is not None:
            self._to(f"Retransmits: {result.retransmits}")

    def _emit(self, cells: Sequence[str]) -> None:
        widths = [self._widths.get(column, 0) for column in self._columns]
        text = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=False)).rstrip()
        self._printed = max(self._printed, len(text))
        if self._to is not None:
            self._to(text)

    def _cells(self, interval: "Interval") -> list[str]:
        cell = {
            "interval": f"{interval.start:.2f}-{interval.end:.2f} sec",
            "transfer": f"{_mbits(interval):.4f} MBits",
            "throughput": f"{_rate(interval):.4f} Mbits/sec",
        }
        return [cell[column] for column in self._columns]


def _mbits(interval: "Interval") -> float:
    return interval.bytes * 8 / 1e6


def _rate(interval: "Interval") -> float:
    seconds = interval.end - interval.start
    return _mbits(interval) / seconds if seconds > 0 else 0.0


def _print_comparison(results: "Sequence[Measured]", form: str) -> None:
    """Show both ways side by side."""
    if form == "json":
        output.out(output.json_text({one.path["kind"]: _json(one) for one in results}))
        return
    rows = [
        [
            one.path["kind"],
            str(one.path.get("endpoint") or one.path.get("region")),
            format_latency(one.path["latency_ms"] / 1e3),
            f"{_rate(one.result.total):.4f} Mbits/sec",
            str(one.result.retransmits),
        ]
        for one in results
    ]
    headers = ["path", "via", "round trip", "bandwidth", "retransmits"]
    shown = len(headers) if all(one.result.retransmits is not None for one in results) else len(headers) - 1
    output.out(output.table(headers[:shown], [row[:shown] for row in rows]))


def _json(measured: Measured) -> dict[str, Any]:
    def entry(interval: "Interval") -> dict[str, float]:
        return {
            "start_time_seconds": interval.start,
            "end_time_seconds": interval.end,
            "throughput_mbits": _rate(interval),
        }

    result = measured.result
    return {
        "overall": entry(result.total),
        "intervals": [entry(one) for one in result.intervals],
        "path": measured.path,
        "retransmits": result.retransmits,
    }
