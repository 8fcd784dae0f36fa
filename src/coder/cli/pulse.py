"""What is told of a connection while a session runs: that it is back after an outage, and figures for editors."""

import contextlib
import functools
import json
import os
import secrets
import string
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coder.cli import output
from coder.cli.options import format_duration
from coder.cli.store import write_private
from coder.cli.threads import in_thread
from coder.clock import Clock
from coder.errors import CoderError

if TYPE_CHECKING:
    from coder.cli.connect import Connection
    from coder.dataplane.engine import NodeStats, Pong

BEAT = 5.0
"""Seconds between two pings of a connection that answers …"""
FAST_BEAT = 1.0
"""… and of one that does not."""
NOTICEABLE = 8.0
"""Seconds of silence that a user wants to hear of."""
USAGE = 60.0
"""Seconds between two words to the server that the workspace is in use."""
PATIENCE = 5.0
"""Seconds each ping may take."""


async def tell_usage(note: Callable[[str | None], None], app: str | None, clock: Clock) -> None:
    """Tell the server each minute that the workspace is in use; what it makes of that is its affair. For ever."""
    while True:
        with contextlib.suppress(CoderError):
            await in_thread(functools.partial(note, app))
        await clock.sleep(USAGE)


async def tell_outages(
    ping: Callable[[], Awaitable[object]], clock: Clock, say: Callable[[str], None], *, lost: str = ""
) -> None:
    """Say once, after each outage, how long it was; for ever. `lost` is said while it lasts."""
    silent_since: float | None = None
    told = False
    while True:
        began = clock.monotonic()
        try:
            await ping()
        except CoderError:
            silent_since = began if silent_since is None else silent_since
            if lost and not told and clock.monotonic() - silent_since >= NOTICEABLE:
                told = True
                say(lost)
            await clock.sleep(FAST_BEAT)
            continue
        if silent_since is not None and (silence := clock.monotonic() - silent_since) >= NOTICEABLE:
            say(f"The connection is back after {format_duration(round(silence))}.")
        silent_since, told = None, False
        await clock.sleep(BEAT)


def made(directory: str) -> Path:
    """Make a directory, unless it is there. Raises OSError."""
    path = Path(directory).expanduser()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


async def write_figures(connection: "Connection", directory: Path, interval: float, clock: Clock) -> None:
    """Replace `<parent's process number>.json` in the directory, again and again; editors read it. For ever.

    Raises:
        OSError: it cannot be written.

    """
    path = directory / f"{os.getppid()}.json"
    before, then = connection.node.stats(), clock.monotonic()
    while True:
        with contextlib.suppress(CoderError):
            pong = await connection.ping(PATIENCE)
            now = connection.node.stats()
            seconds = max(clock.monotonic() - then, 1e-3)
            write_private(path, json.dumps(figures(connection, pong, before, now, seconds)))
            before, then = now, clock.monotonic()
        await clock.sleep(interval)


def figures(
    connection: "Connection", pong: "Pong", before: "NodeStats", now: "NodeStats", seconds: float
) -> dict[str, Any]:
    """Say how the connection does: latencies in milliseconds, rates in bytes a second."""
    state = connection.peering.state()
    return {
        "p2p": pong.path.kind == "direct",
        "latency": round(pong.latency * 1e3, 3),
        "preferred_derp": connection.region_name(state.home),
        "derp_latency": _by_region(connection, state.latencies),
        "upload_bytes_sec": round((now.tx_bytes - before.tx_bytes) / seconds),
        "download_bytes_sec": round((now.rx_bytes - before.rx_bytes) / seconds),
        "using_coder_connect": False,
    }


def _by_region(connection: "Connection", latencies: Mapping[str, float]) -> dict[str, float]:
    """Return the lower of the two families' latencies by the region's name."""
    found: dict[str, float] = {}
    for key, seconds in latencies.items():
        number = key.partition("-")[0]
        name = connection.region_name(int(number)) if number.isdecimal() else key
        found[name] = min(round(seconds * 1e3, 3), found.get(name, float("inf")))
    return found


class LogFile:
    """One session's own log, for editors that show it. Lines that cannot be written are lost in silence."""

    def __init__(self, directory: Path, *, stdio: bool) -> None:
        """Name and make the file. Raises OSError."""
        letters = "".join(secrets.choice(string.ascii_letters) for _ in range(5))
        parent = f"-{os.getppid()}" if stdio else ""
        self.path = directory / f"coder-ssh-{datetime.now().astimezone():%Y%m%d-%H%M%S}-{letters}{parent}.log"
        self._number = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)

    def write(self, text: str) -> None:
        """Add a line with the time in front."""
        clean = output.printable(text)
        with contextlib.suppress(OSError):
            os.write(
                self._number, f"{datetime.now().astimezone().isoformat(timespec='milliseconds')} {clean}\n".encode()
            )

    def close(self) -> None:
        """Close the file; what is written stays."""
        os.close(self._number)
