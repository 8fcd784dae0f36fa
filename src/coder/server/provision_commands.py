"""Runs the programs of provisioners: without a shell, their secrets on standard input, their output into the log."""

import asyncio
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from coder.ids import Secret
from coder.server.provision import ProvisionError, Say

PATIENCE = 900.0
"""Seconds a program may take; images are large."""
_LONGEST_LINE = 4096
_MOST_OUTPUT = 1 << 20
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "USER", "LOGNAME", "TZ", "TMPDIR")


def inherited(*names: str) -> dict[str, str]:
    """Return the few variables of the server's that its programs need; the others may hold its secrets."""
    return {name: os.environ[name] for name in (*_ENVIRONMENT, *names) if name in os.environ}


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
    hidden = [secret.reveal() for secret in secrets]
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
        )
    except OSError as fault:
        raise ProvisionError(f"{command[0]} cannot be run: {fault.strerror}", remedy=f"Install {command[0]}.") from None
    try:
        async with asyncio.timeout(patience):
            lines = await _talk(process, stdin, say, hidden)
            status = await process.wait()
    except TimeoutError:
        raise ProvisionError(f"{command[0]} took longer than {patience:.0f} seconds", remedy=remedy) from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if status not in set(accept):
        last = next((line for line in reversed(lines) if line), "it said nothing")
        raise ProvisionError(f"{command[0]} ended with status {status}: {last}", remedy=remedy)
    return status, "\n".join(lines)


async def _talk(process: asyncio.subprocess.Process, stdin: bytes, say: Say, hidden: Sequence[str]) -> list[str]:
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(ConnectionError):  # it may end without reading
        process.stdin.write(stdin)
        await process.stdin.drain()
        process.stdin.close()
    lines, kept, partial = [], 0, b""
    while chunk := await process.stdout.read(65536):
        *whole, partial = (partial + chunk).split(b"\n")
        partial = partial[:_LONGEST_LINE]
        for line in whole:
            if kept < _MOST_OUTPUT:
                lines.append(_heard(line, say, hidden))
                kept += len(line) + 1
    if partial:
        lines.append(_heard(partial, say, hidden))
    return lines


def _heard(raw: bytes, say: Say, hidden: Sequence[str]) -> str:
    line = raw[:_LONGEST_LINE].decode(errors="replace").rstrip("\r").rpartition("\r")[2]
    for secret in hidden:
        line = line.replace(secret, "<redacted>")
    line = "".join(sign if sign.isprintable() else "?" for sign in line)
    say(line)
    return line
