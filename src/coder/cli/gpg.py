"""The GnuPG agent of this machine, for programs in a workspace."""

import shutil
import subprocess
from dataclasses import dataclass, field

from coder.errors import CoderError, NotFound

PATIENCE = 10.0
"""Seconds each question to gpg may take."""


@dataclass(frozen=True, slots=True)
class Agent:
    """What a workspace gets of the user's keys: no secret ones."""

    socket: str
    """The agent's socket for others: it signs and decrypts, and gives out no keys."""
    keys: bytes = field(repr=False)
    """The public keys …"""
    trust: bytes = field(repr=False)
    """… and the trust in them, both exported."""


def find() -> Agent:
    """Start the agent if need be, and ask for all this.

    Raises:
        NotFound: there is no gpg here.
        CoderError: it gives no answer.

    """
    if shutil.which("gpg") is None or shutil.which("gpgconf") is None:
        raise NotFound("--forward-gpg needs gpg and gpgconf on this machine", remedy="Install gnupg.")
    _ask("gpgconf", "--launch", "gpg-agent")
    path = _ask("gpgconf", "--list-dirs", "agent-extra-socket").decode(errors="replace").strip()
    if not path.startswith("/"):
        raise CoderError("gpgconf names no agent-extra-socket")
    return Agent(path, _ask("gpg", "--batch", "--armor", "--export"), _ask("gpg", "--batch", "--export-ownertrust"))


def _ask(*command: str) -> bytes:
    try:
        done = subprocess.run(  # noqa: S603 - commands of this module
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        raise CoderError(f"{command[0]} gives no answer") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise CoderError(f"{' '.join(command)}: {said[-1] if said else f'exit code {done.returncode}'}")
    return done.stdout
