"""The workspace's SSH server: streams go in, notices come out; no byte of a session is seen here."""

import asyncio
import itertools
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

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

    A client that answers nothing for `silence` seconds is given up; None: never.

    Raises:
        OSError: the system has no descriptor or thread to give.

    """

    def __init__(
        self,
        seed: bytes,
        policy: SshPolicy,
        on_notice: Callable[[SshBegan | SshEnded], None],
        *,
        silence: float | None = None,
    ) -> None:
        from coder.dataplane import _native  # noqa: PLC0415 - loading the library is most of what importing this costs

        self._native = _native.SshServer(seed, silence)
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
    """See `blocking.join_stdio`, which runs on a thread of its own. Raises StreamReset when the stream breaks."""
    from coder.dataplane import blocking  # noqa: PLC0415 - loaded by now

    try:
        await asyncio.to_thread(blocking.join_stdio, stream)
    except OSError as error:
        raise StreamReset(f"the SSH stream broke: {error}") from None


async def run_session(stream: socket.socket, **session: Any) -> tuple[int, str, str]:
    """See `blocking.ssh_session`, which runs on a thread of its own.

    Raises:
        PeerMisbehaved: the other side is no SSH server that accepts us.

    """
    from coder.dataplane import blocking  # noqa: PLC0415 - loaded by now

    try:
        return await asyncio.to_thread(blocking.ssh_session, stream, **session)
    except OSError as error:
        raise PeerMisbehaved(f"SSH: {error}") from None
