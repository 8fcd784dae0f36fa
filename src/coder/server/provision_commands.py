"""Runs the programs of provisioners: without a shell, their secrets on standard input, their output into the log."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from coder.ids import Secret
from coder.server.provision import ProvisionError, Say

PATIENCE = 900.0
"""Seconds a program may take; images are large."""
LONGEST_LINE = 4096
"""Bytes of a line; what is longer becomes several."""
_MOST_LINES = 10_000
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "USER", "LOGNAME", "TZ", "TMPDIR")


def inherited(*names: str) -> dict[str, str]:
    """Return the few variables of the server's that its programs need; the others may hold its secrets."""
    return {name: os.environ[name] for name in (*_ENVIRONMENT, *names) if name in os.environ}


async def to_the_end(work: Coroutine[Any, Any, Any]) -> None:
    """Do something to its end even when this is cancelled meanwhile; the cancellation is obeyed then."""
    task, canceled = asyncio.ensure_future(work), False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            canceled = True
    if canceled:
        task.exception()  # heard of, though nobody waits for it
        raise asyncio.CancelledError
    task.result()


async def run(
    command: Sequence[str],
    *,
    say: Say,
    environment: Mapping[str, str],
    stdin: bytes = b"",
    secrets: Iterable[Secret] = (),
    remedy: str = "",
    accept: Iterable[int] = (0,),
    patience: float = PATIENCE,
) -> tuple[int, str]:
    """Run a program and return its exit status and output. Raises ProvisionError with its last line when it fails."""
    hidden, loop = [secret.reveal() for secret in secrets], asyncio.get_running_loop()
    lines: list[str] = []

    def heard(raw: bytes) -> None:
        if len(lines) < _MOST_LINES:
            line = readable(raw, hidden)
            lines.append(line)
            loop.call_soon_threadsafe(say, line)

    process = _spawn(command, environment)
    with ThreadPoolExecutor(1) as thread:
        talking = loop.run_in_executor(thread, _talk, process, stdin, heard)
        try:
            async with asyncio.timeout(patience):
                status = await asyncio.shield(talking)
        except TimeoutError:
            raise ProvisionError(f"{command[0]} took longer than {patience:.0f} seconds", remedy=remedy) from None
        finally:
            if not talking.done():
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await talking
    if status not in set(accept):
        last = next((line for line in reversed(lines) if line), "it said nothing")
        raise ProvisionError(f"{command[0]} ended with status {status}: {last}", remedy=remedy)
    return status, "\n".join(lines)


def _spawn(command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    # Not the loop's own subprocesses: uvloop lets a program's descriptors leak into the next one's children, and what
    # stays running behind a program that has ended would then hold its output open.
    try:
        return subprocess.Popen(  # noqa: S603 - no shell, and the settings in it have been checked
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
        )
    except OSError as fault:
        raise ProvisionError(f"{command[0]} cannot be run: {fault.strerror}", remedy=f"Install {command[0]}.") from None


def _talk(process: "subprocess.Popen[bytes]", stdin: bytes, heard: Callable[[bytes], None]) -> int:
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdout as output:
        with suppress(BrokenPipeError), process.stdin as given:  # it may end without reading
            given.write(stdin)
        while line := output.readline(LONGEST_LINE):
            heard(line)
    return process.wait()


def readable(raw: bytes, hidden: Sequence[str] = ()) -> str:
    """Return a line as a log may hold it; of one that was written over and over, the last words."""
    line = raw.decode(errors="replace").rstrip("\r\n").rpartition("\r")[2]
    for secret in hidden:
        line = line.replace(secret, "<redacted>")
    return "".join(sign if sign.isprintable() else "?" for sign in line)
