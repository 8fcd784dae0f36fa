"""A TCP proxy that keeps all that passes, in both directions: what somebody at the server's door would see."""

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Self


class Recorder:
    """Listens on a free port of the loopback; `upstream` says where to connect to, asked for every connection."""

    def __init__(self, upstream: Callable[[], tuple[str, int]]) -> None:
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._pieces: list[bytearray] = []
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        # Only a shutdown wakes a thread that waits in accept or recv.
        for end in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in (self._listener, *self._ends):
            end.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def seen(self) -> list[bytes]:
        """One entry for each direction of each connection."""
        with self._lock:
            return [bytes(piece) for piece in self._pieces]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                try:
                    far = socket.create_connection(self._upstream())
                except OSError:
                    near.close()
                    continue
                self._ends += (near, far)
                for source, sink in ((near, far), (far, near)):
                    piece = bytearray()
                    with self._lock:
                        self._pieces.append(piece)
                    self._threads.append(threading.Thread(target=self._carry, args=(source, sink, piece)))
                    self._threads[-1].start()

    def _carry(self, source: socket.socket, sink: socket.socket, piece: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                with self._lock:
                    piece += data
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
