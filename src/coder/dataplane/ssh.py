"""The workspace's SSH server: streams go in, notices come out; no byte of a session is seen here."""

import asyncio
import itertools
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from coder.errors import PeerMisbehaved, StreamReset


@dataclass(frozen=True, slots=True, kw_only=True)
class SshPolicy:
    """What a session's processes find."""

    shell: str
    """The user's login shell."""
    home: str
    """The user's home directory, where file transfers start."""
    directory: str
    """Where a process starts."""
    defaults: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Environment that a client may override …"""
    overrides: Mapping[str, str] = field(default_factory=dict, repr=False)
    """… and that it may not. Either may hold secrets."""
    banners: tuple[str, ...] = ()
    motd: str | None = None
    """File shown after the banners, before a login shell."""
    open_files: int | None = None
    """How many files a process may have open unless it asks for more; None: as many as this one."""
    block_file_transfer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SshBegan:
    """A session runs its first process."""

    session: int
    kind: str
    """`ssh`, `vscode` or `jetbrains`, as the client says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SshEnded:
    """A session is over."""

    session: int
    status: int | None
    """Exit code of its last process, if it had one."""
    reason: str
    """What went wrong, if anything did."""


class SshServer:
    """One SSH server; made and used in a running event loop. Never give it a stream from outside the tunnel.

    Raises:
        OSError: the system has no descriptor or thread to give.

    """

    def __init__(self, seed: bytes, policy: SshPolicy, on_notice: Callable[[SshBegan | SshEnded], None]) -> None:
        from coder.dataplane import _native  # noqa: PLC0415 - loading the library is most of what importing this costs

        self._native = _native.SshServer(seed)
        self._on_notice = on_notice
        self._numbers = itertools.count(1)
        self._loop = asyncio.get_running_loop()
        self.set_policy(policy)
        self._loop.add_reader(self._native.fileno(), self._drain)

    def set_policy(self, policy: SshPolicy) -> None:
        """Replace the policy for processes that start from now on."""
        self._native.set_policy(
            shell=policy.shell,
            home=policy.home,
            directory=policy.directory,
            defaults=list(policy.defaults.items()),
            overrides=list(policy.overrides.items()),
            banners=policy.banners,
            motd=policy.motd,
            open_files=policy.open_files,
            block_file_transfer=policy.block_file_transfer,
        )

    def serve(self, stream: socket.socket) -> int:
        """Serve a client; takes the stream over. Return the session's number."""
        number = next(self._numbers)
        self._native.serve(stream.detach(), number)
        return number

    @property
    def sessions(self) -> int:
        """How many are open."""
        return self._native.sessions()

    async def close(self) -> None:
        """End all sessions; what they still have to say is heard."""
        await asyncio.to_thread(self._native.close)
        self._loop.remove_reader(self._native.fileno())
        self._drain()

    def _drain(self) -> None:
        from coder.dataplane import _native as native  # noqa: PLC0415 - loaded by now

        for notice in self._native.notices():
            if isinstance(notice, native.SshBegan):
                self._on_notice(SshBegan(session=notice.session, kind=notice.kind))
            else:
                self._on_notice(SshEnded(session=notice.session, status=notice.status, reason=notice.reason))


async def join_stdio(stream: socket.socket) -> None:
    """Carry bytes between a stream and standard input and output until the stream ends; takes the stream over.

    Raises:
        StreamReset: the stream broke.

    """
    from coder.dataplane import _native  # noqa: PLC0415 - loaded by now

    try:
        await asyncio.to_thread(_native.join_stdio, stream.detach())
    except OSError as error:
        raise StreamReset(f"the SSH stream broke: {error}") from None


async def run_session(
    stream: socket.socket,
    *,
    command: str | None,
    terminal: str | None,
    variables: Sequence[tuple[str, str]],
    agent: str | None,
    display: tuple[str | None, str, int, int, bytes] | None = None,
    gpg: tuple[str, bytes, bytes] | None = None,
) -> tuple[int, str, str]:
    """Run an SSH session on standard input and output; takes the stream over.

    `terminal` is its type, to have one at the other end; `agent` the socket of a key agent to forward,
    `display` an X server (its socket, or else host and port; screen; cookie), `gpg` a GnuPG agent (its socket, public
    keys, trust in them). Return the exit
    code; `status`, `signal`, `disconnected` (by the user) or `lost`; and the name of the signal that ended the process.

    Raises:
        PeerMisbehaved: the other side is no SSH server that accepts us.

    """
    from coder.dataplane import _native  # noqa: PLC0415 - loaded by now

    try:
        return await asyncio.to_thread(
            _native.ssh_session,
            stream.detach(),
            command=command,
            terminal=terminal,
            variables=variables,
            agent=agent,
            display=display,
            gpg=gpg,
        )
    except OSError as error:
        raise PeerMisbehaved(f"SSH: {error}") from None
