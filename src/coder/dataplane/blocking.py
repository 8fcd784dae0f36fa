"""Standard input and output joined to a stream, for callers without an event loop: to import one takes time."""

import socket
from typing import Any

from coder.errors import StreamReset


def join_stdio(stream: socket.socket) -> None:
    """Carry bytes between a stream and standard input and output until the stream ends; takes the stream over.

    Raises:
        StreamReset: the stream broke.

    """
    from coder.dataplane import _native  # noqa: PLC0415 - loading the library is most of what importing this costs

    try:
        _native.join_stdio(stream.detach())
    except OSError as error:
        raise StreamReset(f"the SSH stream broke: {error}") from None


def run_session(stream: socket.socket, **asked: Any) -> tuple[int, str, str]:
    """Do as `coder.dataplane.ssh.run_session` does, which says what can be asked for and what comes of it.

    Raises:
        StreamReset: the other side is no SSH server that accepts us, or the stream broke.

    """
    from coder.dataplane import _native  # noqa: PLC0415 - loading the library is most of what importing this costs

    try:
        return _native.ssh_session(stream.detach(), **asked)
    except OSError as error:
        raise StreamReset(f"SSH: {error}") from None
