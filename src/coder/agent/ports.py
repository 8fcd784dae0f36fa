"""What listens on this machine, for the list of ports a workspace offers. From Linux's /proc; elsewhere: nothing."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LOWEST = 9
"""Smallest port shown; those below are the agent's own in the tunnel."""

_LISTEN = "0A"  # TCP_LISTEN of the kernel's tcp_states.h, as /proc/net/tcp prints it


@dataclass(frozen=True, slots=True, order=True)
class ListeningPort:
    """A TCP port something listens on; the process's name is empty when we may not know it."""

    port: int
    process: str


def listening(proc: Path = Path("/proc")) -> list[ListeningPort]:
    """Return the listening TCP ports of this machine, each once, in order. Blocks for as long as /proc takes."""
    inodes: dict[str, int] = {}
    for name in ("tcp", "tcp6"):
        try:
            text = (proc / "net" / name).read_text()
        except OSError:
            continue
        inodes.update(_sockets(text))
    names = _owners(proc, set(inodes))
    by_port: dict[int, str] = {}
    for inode, port in inodes.items():
        by_port[port] = by_port.get(port) or names.get(inode, "")
    return sorted(ListeningPort(port, process) for port, process in by_port.items())


def _sockets(text: str) -> Iterator[tuple[str, int]]:
    """Yield inode and port of each listening line of /proc/net/tcp."""
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == _LISTEN:
            port = int(fields[1].rpartition(":")[2], 16)
            if port >= LOWEST:
                yield fields[9], port


def _owners(proc: Path, inodes: set[str]) -> dict[str, str]:
    """Find the process behind each socket, among those we may look into."""
    found: dict[str, str] = {}
    for process in proc.iterdir():
        if process.name.isdigit():
            for inode in _held(process) & inodes:
                found[inode] = _name(process)
    return found


def _held(process: Path) -> set[str]:
    """Return the inodes of a process's sockets; none for what is gone meanwhile, or another user's."""
    found = set()
    with contextlib.suppress(OSError):
        for entry in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                link = str(entry.readlink())
                if link.startswith("socket:["):
                    found.add(link[len("socket:[") : -1])
    return found


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return ""
