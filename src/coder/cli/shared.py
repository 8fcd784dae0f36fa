"""Connections that an earlier command keeps open for the next, as OpenSSH's ControlMaster does.

A background process (`coder.cli.commands.share`) holds the tunnel to one workspace and listens on a Unix socket that
only its user can reach. Whoever connects gets a stream to the workspace's SSH server, as a descriptor, and keeps the
connection to the process open for as long as it uses the stream. Little is imported here: this way has to be short.
"""

import hashlib
import os
import socket
import stat
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coder.cli.context import Globals

PATIENCE = 5.0
"""Seconds the process has to open a stream; without one the command makes a connection of its own."""
GIVEN = b"+"
"""Comes with a descriptor."""
_CREDENTIALS = struct.Struct("iII")


def directory() -> Path | None:
    """Return the directory of the sockets, made if need be; None where it would not be ours alone."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(runtime, "coder") if runtime else Path(os.environ.get("TMPDIR") or "/tmp", f"coder-{os.getuid()}")  # noqa: S108 - it is checked
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError:
        return None
    private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
    return path if private else None


def place(flags: "Globals", workspace: str) -> Path | None:
    """Return the socket for a workspace as this user reaches it with these flags; None where there can be none.

    Another token, another way out or other headers are another connection.
    """
    where = directory()
    if where is None or not hasattr(socket, "SO_PEERCRED"):
        return None
    token = flags.token.reveal() if flags.token is not None else flags.config.read("keyring")
    told = (
        workspace, flags.url, token, sorted(flags.given_headers.items()), flags.header_command, flags.disable_direct,
        flags.map_ports, flags.outbound, flags.prefer_region, sys.executable,
    )  # fmt: skip
    return where / f"ssh-{hashlib.sha256(repr(told).encode()).hexdigest()[:32]}"


def is_ours(connection: socket.socket) -> bool:
    """Whether the other end of a Unix socket is a process of this user."""
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(told)
    return bool(user == os.getuid())


def take(path: Path) -> tuple[socket.socket, socket.socket] | None:
    """Ask for a stream: the stream, and a connection to be kept open meanwhile. None if nobody gives one."""
    held = socket.socket(socket.AF_UNIX)
    try:
        held.settimeout(PATIENCE)
        held.connect(str(path))
        if is_ours(held):
            answer, descriptors, _, _ = socket.recv_fds(held, 1, 1)
            if answer == GIVEN and descriptors:
                return socket.socket(fileno=descriptors[0]), held
    except OSError:
        pass
    held.close()
    return None


def start(environment: Mapping[str, str], workspace: str, path: Path, idle: float) -> None:
    """Start the process that keeps a connection.

    `environment` has the global flags in it, which keeps secrets out of argument lists.
    """
    import subprocess

    words = [sys.executable, "-m", "coder.cli.start", "share", "--socket", str(path), "--idle", str(idle)]
    subprocess.Popen(  # noqa: S603 - this program
        [*words, "--", workspace],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
