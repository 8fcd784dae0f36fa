"""HTTPS through a tunnel, also one of a proxy that is spoken to in TLS itself: TLS within TLS."""

import http.client
import io
import ssl
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Buffer

T = TypeVar("T")

_READ = 1 << 16


def connection_for(
    host: str, context: ssl.SSLContext, at: str, at_port: int | None, timeout: float
) -> http.client.HTTPSConnection:
    """Prepare an HTTPS connection to `host` that begins at a place, which may be a proxy's."""

    class Secured(http.client.HTTPSConnection):
        """Asks for the certificate of `host`, where the library takes what stands in the tunnel's request for it."""

        def connect(self) -> None:
            http.client.HTTPConnection.connect(self)
            below: Any = self.sock
            if isinstance(below, ssl.SSLSocket):
                self.sock = TlsWithin(below, context, host)
            else:
                self.sock = context.wrap_socket(below, server_hostname=host)

    return Secured(at, at_port, timeout=timeout, context=context)


class TlsWithin:
    """A TLS connection to `host` over the connected `below`, which belongs to it from now on.

    Like a socket it stays open for the files made of it. Raises `OSError` where a socket would.
    """

    def __init__(self, below: ssl.SSLSocket, context: ssl.SSLContext, host: str) -> None:
        self.below = below
        """The connection to the proxy."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._files, self._closed = 0, False
        self._carry(self._tls.do_handshake)

    def getpeercert(self) -> Any:
        """Return the server's certificate, as a TLS socket does."""
        return self._tls.getpeercert()

    def sendall(self, data: "Buffer") -> None:
        """Send all of it."""
        left = memoryview(data).cast("B")
        while left:
            left = left[self._carry(partial(self._tls.write, left)) :]

    def recv_into(self, buffer: "Buffer") -> int:
        """Read what is there, waiting for it; 0 at the end."""
        try:
            read: Any = self._tls.read  # with a buffer it returns how much it has put there
            return int(self._carry(partial(read, memoryview(buffer).nbytes, buffer)))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return 0

    def makefile(self, _mode: str = "rb") -> io.BufferedReader:
        """Return a file to read from; the connection outlives its own closing until that is closed too."""
        self._files += 1
        return io.BufferedReader(_File(self))

    def close(self) -> None:
        """Close the connection, once its files are closed."""
        self._closed = True
        if not self._files:
            self.below.close()

    def file_closed(self) -> None:
        """Note that a file of this connection was closed."""
        self._files -= 1
        if self._closed:
            self.close()

    def _carry(self, step: Callable[[], T]) -> T:
        """Take a step of the inner TLS, with what it reads and writes on the way."""
        while True:
            try:
                done = step()
            except ssl.SSLWantReadError:
                self._flush()
                if received := self.below.recv(_READ):
                    self._incoming.write(received)
                else:
                    self._incoming.write_eof()
            except ssl.SSLError:
                self._flush()  # the alert that says why
                raise
            else:
                self._flush()
                return done

    def _flush(self) -> None:
        if written := self._outgoing.read():
            self.below.sendall(written)


class _File(io.RawIOBase):
    """The receiving half, as a file."""

    def __init__(self, connection: TlsWithin) -> None:
        super().__init__()
        self._connection = connection

    def readable(self) -> bool:
        """Say so."""
        return True

    def readinto(self, buffer: "Buffer") -> int:
        """Read what is there."""
        return self._connection.recv_into(buffer)

    def close(self) -> None:
        """Let go of the connection."""
        if not self.closed:
            super().close()
            self._connection.file_closed()
