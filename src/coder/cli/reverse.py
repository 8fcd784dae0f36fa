"""Ports of a workspace that lead to this machine: OpenSSH's remote forwarding through a tunnel of our own."""

import asyncio
import os
import random
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
from click.core import ParameterSource

from coder.cli import output
from coder.cli.forwards import Forward, join
from coder.errors import CoderError, NotFound

FIRST_RETRY = 1.0
LAST_RETRY = 30.0
GRACE = 2.0
"""Seconds the SSH client has to end when told to; some overlook it."""

OPTIONS = (
    "BatchMode=yes",
    "ExitOnForwardFailure=yes",
    "LogLevel=ERROR",
    "ServerAliveCountMax=10",
    "ServerAliveInterval=30",
    "StrictHostKeyChecking=no",
    "UserKnownHostsFile=/dev/null",
)


def program() -> str:
    """Return the path of the SSH client. Raises NotFound."""
    found = shutil.which("ssh")
    if found is None:
        raise NotFound("--reverse needs OpenSSH's client, and there is no 'ssh'", remedy="Install openssh-client.")
    return found


def spec(forward: Forward) -> str:
    """Write a forward as OpenSSH's `-R` takes it."""
    return f"{join(forward.bind or 'localhost', forward.local)}:127.0.0.1:{forward.remote}"


def check(specs: Sequence[str]) -> None:
    """Have OpenSSH read what `-R` is to be. Raises CoderError for what it does not understand."""
    words = ("-F", "none", "-G", *(word for text in specs for word in ("-R", text)), "workspace")
    complaint = complaint_of([program(), *words])
    if complaint:
        raise CoderError(f"--remote-forward: {complaint}", remedy="Write it like 8080:localhost:3000.")


def complaint_of(command: Sequence[str]) -> str:
    """Return what OpenSSH has against a configuration that it is only to read (`-G`); nothing if it fits."""
    import subprocess

    try:
        done = subprocess.run(  # noqa: S603 - a program of this machine, its words each in its place
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""  # whoever uses it later hears of it
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return output.printable(lines[-1].strip().rstrip(".")) if done.returncode and lines else ""


def arguments(workspace: str, specs: Sequence[str]) -> list[str]:
    """Return what the client is called with, to forward what `-R` of OpenSSH would by these texts."""
    # The name stays out of OpenSSH's hands: it expands and refuses host names by rules of its own.
    words = [sys.executable, "-m", "coder.cli.start", "ssh", "--stdio", "--", workspace]
    proxy = " ".join(shlex.quote(word) for word in words).replace("%", "%%")
    return [
        *("-F", "none", "-N", "-T"),
        *(word for option in (*OPTIONS, f"ProxyCommand={proxy}") for word in ("-o", option)),
        *(word for text in specs for word in ("-R", text)),
        "workspace",
    ]


def environment(context: click.Context) -> dict[str, str]:
    """Return this process's environment with the global flags in it, which keeps secrets out of argument lists."""
    root, made = context.find_root(), dict(os.environ)
    for param in root.command.params:
        given = root.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE
        if given and isinstance(param.envvar, str):
            made[param.envvar] = _text(root.params[param.name or ""])
    return made


def _text(value: Any) -> str:
    """Write a flag's value as its variable holds it."""
    if isinstance(value, tuple):
        return ",".join("=".join(one) if isinstance(one, tuple) else str(one) for one in value)
    return str(int(value)) if isinstance(value, bool) else str(value)


async def keep(variables: Mapping[str, str], workspace: str, specs: Sequence[str], note: Callable[[str], None]) -> None:
    """Keep the ports open, trying again when they are lost; for ever. `variables` are of `environment`.

    Raises:
        NotFound: there is no SSH client.

    """
    from coder.peering.backoff import Backoff

    client, backoff = program(), Backoff(FIRST_RETRY, LAST_RETRY, random.Random())  # noqa: S311 - no secret
    told = ""
    while True:
        text = await _once([client, *arguments(workspace, specs)], variables)
        if text != told:
            note(f"The workspace's ports are not open, trying again: {text or 'the connection ended'}")
        told = text
        await asyncio.sleep(backoff.delay())


async def _once(command: Sequence[str], variables: Mapping[str, str]) -> str:
    """Run the client until it ends; return the last line it said."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=variables,
        start_new_session=True,  # Ctrl-C is ours to answer
    )
    said = b""
    try:
        if process.stderr is not None:
            while part := await process.stderr.read(4096):
                said = (said + part)[-4096:]
        await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(GRACE):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
    lines = said.decode(errors="replace").split("\n")
    return next((text.strip() for text in reversed(lines) if text.strip()), "")
