"""Of several addresses of a server, one that answers is enough."""

import contextlib
import errno
import socket
import threading

import pytest

from coder.cli import racing


@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()


@pytest.fixture
def mute():
    """An address where connections stay unanswered: its queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.2", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()


@pytest.fixture
def refused():
    """An address where nothing listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.3", 0))
        yield held.getsockname()


@pytest.fixture
def resolve(monkeypatch):
    def to(*addresses):
        found = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address) for address in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    return to


def test_an_address_that_refuses_and_one_that_is_mute_are_passed_over(resolve, server, mute, refused):
    resolve(refused, mute, server)
    with racing.create_connection(("host", 1), 20) as connection:
        assert connection.getpeername() == server
        assert connection.gettimeout() == 20


def test_the_first_failure_is_told(resolve, refused):
    resolve(refused, refused)
    with pytest.raises(ConnectionRefusedError) as raised:
        racing.create_connection(("host", 1), 20)
    assert raised.value.errno == errno.ECONNREFUSED


def test_nothing_but_silence_is_a_timeout(resolve, mute):
    resolve(mute)
    with pytest.raises(TimeoutError):
        racing.create_connection(("host", 1), 0.01)


def test_families_alternate_in_the_order_of_the_resolver(monkeypatch, server):
    tried = []
    six, four = (socket.AF_INET6, *([0] * 2), "", ("six",)), (socket.AF_INET, *([0] * 2), "", ("four",))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [six, six, four, four])

    def attempt(found, selector, source):
        tried.append(found[4][0])
        raise OSError(errno.ENETUNREACH, "no way")

    monkeypatch.setattr(racing, "_attempt", attempt)
    with pytest.raises(OSError, match="no way"):
        racing.create_connection(("host", 1), 1)
    assert tried == ["six", "four", "six", "four"]


def test_no_socket_is_left_open(resolve, server, mute):
    before = threading.active_count()
    resolve(mute, server)
    racing.create_connection(("host", 1), 20).close()  # an unclosed socket would be a warning, and so an error
    assert threading.active_count() == before
