"""Services of this machine, as a workspace has them, and ports for them."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

PATIENCE = 30.0

DRAW = """
import os, socket, struct, sys
sys.path.insert(0, {src!r})
from coder.cli import x11
screen = x11.find(os.environ)
cookie = bytes(16) if "wrong" in sys.argv else screen.cookie
with socket.create_connection((screen.host, screen.port), 30) as server:
    name = x11.PROTOCOL + bytes(-len(x11.PROTOCOL) % 4)
    server.sendall(struct.pack("<cxHHHHxx", b"l", 11, 0, len(x11.PROTOCOL), len(cookie)) + name + cookie + b"draw")
    print(os.environ["DISPLAY"], server.recv(100).decode())
"""
"""A program that draws on the screen there is; `src` is where this project's package lies."""


def free_ports(count: int = 1) -> list[int]:
    """Consecutive TCP ports that nobody had a moment ago, on either loopback address."""
    while True:
        with contextlib.ExitStack() as held:
            first = held.enter_context(_bound("127.0.0.1", 0))
            start = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                for port in range(start + 1, start + count):
                    held.enter_context(_bound("127.0.0.1", port))
                return list(range(start, start + count))


def _bound(host: str, port: int) -> socket.socket:
    made = socket.socket()
    try:
        made.bind((host, port))
    except BaseException:
        made.close()
        raise
    return made


def read_all(connection: socket.socket) -> bytes:
    """Everything until the other side finishes."""
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


@contextlib.contextmanager
def service(answer: Callable[[socket.socket], None], host: str = "127.0.0.1") -> Iterator[int]:
    """Serve each connection with `answer`, in a thread; the value is the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listening:

        def one(connection: socket.socket) -> None:
            connection.settimeout(PATIENCE)
            with connection, contextlib.suppress(OSError):
                answer(connection)

        def run() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)


def reverse_all(connection: socket.socket) -> None:
    """Read to the end, only then answer: all of it backwards."""
    connection.sendall(read_all(connection)[::-1])


def echo(connection: socket.socket) -> None:
    """Send back what comes."""
    while part := connection.recv(1 << 16):
        connection.sendall(part)


@contextlib.contextmanager
def datagram_service(host: str = "127.0.0.1") -> Iterator[int]:
    """Answer each UDP datagram with its bytes backwards, in a thread; the value is the port."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as serving:
        serving.bind((host, 0))

        def run() -> None:
            while True:
                payload, sender = serving.recvfrom(1 << 16)
                if payload == b"":
                    return
                serving.sendto(payload[::-1], sender)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield serving.getsockname()[1]
        serving.sendto(b"", serving.getsockname())
        thread.join(PATIENCE)


def ask_udp(port: int, payload: bytes, host: str = "127.0.0.1", tries: int = 20) -> bytes | None:
    """Send a datagram until it is answered: none is promised to arrive."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as caller:
        caller.settimeout(PATIENCE / tries)
        caller.connect((host, port))
        for _ in range(tries):
            with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                caller.send(payload)
                return caller.recv(1 << 16)
    return None
