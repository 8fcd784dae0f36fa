"""`coder speedtest`."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from coder.cli import output
from coder.cli.context import Globals
from coder.cli.options import Duration, column_option, format_duration, output_option
from coder.errors import CoderError, TimedOut

if TYPE_CHECKING:
    from coder.cli.connect import Connection
    from coder.dataplane.engine import Interval, Pong, SpeedtestResult

COLUMNS = ("interval", "transfer", "throughput")
HEADERS = {"interval": "interval", "transfer": "transfer", "throughput": "bandwidth"}
PLAIN_HEADERS = {"interval": "interval", "throughput": "throughput"}
"""Headers of the two-column form, which other clients of the protocol print."""

DIRECT_POLL = 1.0
"""Seconds between two pings while a direct path is awaited."""


@click.command("speedtest")
@click.argument("workspace")
@click.option("-t", "--time", "duration", type=Duration(), default="5s", show_default=True, help="How long to measure.")
@click.option("--direction", type=click.Choice(["up", "down"]), default="down", show_default=True, help="Which way.")
@click.option("-d", "--direct", is_flag=True, help="Wait for a direct connection first.")
@click.option(
    "--timeout", type=Duration(), default="30s", show_default=True,
    help="How long to wait for the agent, and with --direct for a direct connection.",
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
    form: str,
    chosen: str | None,
) -> None:
    """Measure the throughput to a workspace."""
    if direct and flags.disable_direct:
        raise click.UsageError("--direct (-d) is incompatible with --disable-direct-connections")
    if duration <= 0:
        raise click.BadParameter("measure for some time", param_hint="--time")
    columns = output.pick(COLUMNS, chosen, COLUMNS)
    report = Report(columns, duration, to=output.out if form == "table" else output.note if flags.watched else None)
    result, path = asyncio.run(
        _measure(
            flags, workspace, duration, download=direction == "down", direct=direct, patience=timeout, report=report
        )
    )
    if form == "json":
        output.out(output.json_text(_json(result, path)))
    else:
        report.finish(result)


async def _measure(
    flags: Globals,
    workspace: str,
    duration: float,
    *,
    download: bool,
    direct: bool,
    patience: float,
    report: "Report",
) -> tuple["SpeedtestResult", dict[str, Any]]:
    from coder.cli.connect import connect

    async with connect(flags, workspace, patience=patience) as connection:
        await connection.reach(patience)
        pong = await (_wait_for_direct(connection, patience) if direct else connection.ping(patience))
        output.note(_path_line(connection, pong))
        output.note(f"Starting a {format_duration(duration)} {'download' if download else 'upload'} test...")
        result = await connection.node.speedtest(
            connection.address, duration=duration, download=download, on_interval=report.row
        )
        if not result.total.bytes:
            raise CoderError("no data arrived while the test ran", remedy="Try again, longer, with --time.")
        return result, connection.path_json(pong.path, pong.latency)


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


def _json(result: "SpeedtestResult", path: dict[str, Any]) -> dict[str, Any]:
    def entry(interval: "Interval") -> dict[str, float]:
        return {
            "start_time_seconds": interval.start,
            "end_time_seconds": interval.end,
            "throughput_mbits": _rate(interval),
        }

    return {"overall": entry(result.total), "intervals": [entry(one) for one in result.intervals], "path": path}
