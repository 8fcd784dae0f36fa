"""A server that means harm: one clear line comes of it, no memory is used up, and nobody else gets the token."""

import contextlib
import resource
import socket
import threading

import pytest

from coder.errors import UpgradeRefused
from coder.rpc.websocket import connect

SECRET = "Ab3dE6gH9k-0123456789abcdefghijkl"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Coder-Build-Version: v2.26.0\r\n"


class Raw:
    """A listener that answers each connection with pieces of bytes until the other end has had enough."""

    def __init__(self, pieces):
        self.pieces, self.heard = pieces, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection):
        with connection, contextlib.suppress(OSError):
            self.heard.append(connection.recv(65536))
            for piece in self.pieces():
                connection.sendall(piece)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()


@pytest.fixture
def hostile():
    """Start servers that answer so."""
    with contextlib.ExitStack() as stack:

        def start(pieces):
            server = Raw(pieces)
            stack.callback(server.close)
            return server

        yield start


def endless_body():
    yield HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    while True:
        yield b"10000\r\n" + b"[" * 65536 + b"\r\n"


def huge_body():
    yield HEAD + b"Content-Length: 9999999999999\r\n\r\n"
    while True:
        yield b" " * 65536


def endless_head():
    yield HEAD
    while True:
        yield b"X-More: " + b"x" * 60000 + b"\r\n"


def endless_line():
    while True:
        yield b"x" * 65536


def nested():
    body = b'{"a":' * 200_000
    yield HEAD + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body


def escapes():
    body = b'{"message":"\\u001b[2J\\u001b]0;owned\\u0007\\r\\nerror: \\u202eno","detail":"\\u009b2J"}'
    yield (
        HEAD.replace(b"200 OK", b"400 Bad\x1b[2J")
        + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
        + body
    )


ANSWERS = [endless_body, huge_body, endless_head, endless_line, nested, escapes]


@pytest.mark.parametrize("words", [("list",), ("whoami",), ("ssh", "dev", "true"), ("tokens", "create")], ids=" ".join)
@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.__name__)
def test_no_answer_is_read_without_end_or_told_raw(coder, hostile, answer, words):
    server = hostile(answer)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run = coder("--url", server.url, "--token", SECRET, *words)
    assert run.code in {1, 255}
    assert run.err.strip()
    assert "Traceback" not in run.err
    assert not {"\x1b", "\x9b", "\x07", "\r", "\u202e"} & set(run.out + run.err)
    assert SECRET not in run.out + run.err
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 * 1024  # KiB


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("words", [("list",), ("ping", "dev"), ("tokens", "create"), ("login",)], ids=" ".join)
def test_a_redirect_takes_the_token_nowhere(coder, hostile, status, words):
    thief = hostile(lambda: iter(()))

    def redirect():
        yield b"HTTP/1.1 %d Over there\r\nLocation: %s/api/v2/x\r\n" % (status, thief.url.encode())
        yield b"X-Coder-Build-Version: v2.26.0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    server = hostile(redirect)
    run = coder("--url", server.url, "--token", SECRET, *words)
    assert run.code == 1
    assert server.heard
    assert thief.heard == []


@pytest.mark.parametrize("scheme", ["http", "ws"])
@pytest.mark.parametrize("status", [301, 307])
async def test_a_redirected_socket_takes_the_token_nowhere(hostile, status, scheme):
    thief = hostile(lambda: iter(()))
    place = f"{scheme}://127.0.0.1:{thief.port}"

    def redirect():
        yield b"HTTP/1.1 %d Over there\r\nLocation: %s/x\r\nContent-Length: 0\r\n\r\n" % (status, place.encode())

    server = hostile(redirect)
    with pytest.raises(UpgradeRefused):
        await connect(f"{server.url}/api/v2/x", {"Coder-Session-Token": SECRET})
    assert thief.heard == []
