"""Sessions on standard input and output, for callers without an event loop: to import one takes time."""

import socket
from collections.abc import Sequence


def join_stdio(stream: socket.socket) -> None:
    """Carry bytes between a stream and standard input and output until the stream ends; takes the stream over.

    Raises:
        OSError: the stream broke.

    """
    from coder.dataplane import _native  # noqa: PLC0415 - loading the library is most of what importing this costs

    _native.join_stdio(stream.detach())


def ssh_session(
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

    `terminal` is its type, to have one at the other end; `agent` the socket of a key agent to forward, `display` an X
    server (its socket, or else host and port; screen; cookie), `gpg` a GnuPG agent (its socket, public keys, trust in
    them). Return the exit code; `status`, `signal`, `disconnected` (by the user), `unread` (nobody reads our output any
    more) or `lost`; and the name of the signal that ended the process.

    Raises:
        OSError: the other side is no SSH server that accepts us, or the stream broke.

    """
    from coder.dataplane import _native  # noqa: PLC0415 - loading the library is most of what importing this costs

    return _native.ssh_session(
        stream.detach(),
        command=command,
        terminal=terminal,
        variables=variables,
        agent=agent,
        display=display,
        gpg=gpg,
    )
