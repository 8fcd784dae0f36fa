"""Which proxy is used for what, and what is said when a way out is closed."""

import itertools
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from coder.errors import CoderError, Unreachable
from coder.ids import Secret
from coder.link_local import is_metadata
from coder.outbound import Outbound, Proxies, Proxy

LIST = "localhost, .corp.example ,10.0.0.1,relay.example:8443,[2001:db8::1],2001:db8::2,*.wild.example,:,.,"
LIST += "192.168.5.9/16,2001:db8:1::/48,/8,1.2.3.4/33,::/x"


@pytest.fixture
def environment(monkeypatch):
    def given(**values):
        for name in ("https_proxy", "http_proxy", "no_proxy", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        return Proxies.of_system()

    return given


@pytest.mark.parametrize(
    ("host", "direct"),
    [
        *((host, True) for host in ("localhost", "LOCALHOST", "corp.example", "a.b.Corp.example", "10.0.0.1")),
        *((host, True) for host in ("2001:db8::1", "2001:db8::2", "x.wild.example", "192.168.0.1")),
        ("2001:db8:1:ffff::1", True),
        *((host, False) for host in ("notcorp.example", "corp.example.org", "10.0.0.11", "2001:db8::3", "host", "")),
        ("192.169.0.1", False),
        ("1.2.3.4", False),
        ("relay.example", False),
    ],
)
def test_hosts_are_spared_by_the_rules_that_relays_have_too(environment, host, direct):
    proxies = environment(HTTPS_PROXY="http://secure:3128", NO_PROXY=LIST)
    assert (proxies.of("https", host, 443) is None) is direct
    assert proxies.of("http", host, 80) is None
    assert proxies.of("https", "relay.example", 8443) is None


def test_everything_can_be_spared(environment):
    assert environment(HTTPS_PROXY="secure", NO_PROXY="*").of("https", "host", 443) is None


def test_the_login_of_a_proxy(environment):
    proxies = environment(HTTPS_PROXY="http://us%40er:p%40ss%20word@[::1]:3128")
    proxy = proxies.of("https", "host", 443)
    assert proxy == Proxy("::1", 3128, "us@er", Secret("p@ss word"))
    assert (proxy.address, proxy.url()) == ("[::1]:3128", "http://us%40er:p%40ss%20word@[::1]:3128")
    assert proxy.authorization() == "Basic dXNAZXI6cEBzcyB3b3Jk"
    assert "p@ss" not in repr(proxies)


@pytest.mark.parametrize("address", ["socks5://proxy:1080", "ftp://hunter2@proxy", "http://", "http://hunter2@x:port"])
def test_what_is_no_http_proxy_is_refused_without_its_password(environment, address):
    with pytest.raises(CoderError, match="HTTPS_PROXY") as refused:
        environment(HTTPS_PROXY=address)
    assert "hunter2" not in f"{refused.value}{refused.value.remedy}"


def test_a_key_needs_a_certificate():
    with pytest.raises(CoderError, match="key without a certificate"):
        Outbound.of(None, "", "key.pem")
    assert Outbound.of("", "both.pem", None).identity == ("both.pem", "both.pem")
    assert Outbound.of("", None, "") == Outbound()


METADATA = ["169.254.169.254", "::ffff:169.254.169.254", "2002:a9fe:a9fe::", "fe80::1%2", "fd00:ec2::254"]


@pytest.mark.parametrize("address", [*METADATA, "100.100.100.200"])
def test_addresses_that_clouds_tell_secrets_at(address):
    assert is_metadata(address)
    assert not is_metadata("192.0.2.1")


@pytest.mark.parametrize("host", ["169.254.169.254", "0xA9FEA9FE", "2852039166", "[::ffff:169.254.169.254]"])
def test_a_proxy_is_not_asked_for_them_however_they_are_written(environment, host):
    outbound = Outbound(proxies=environment(HTTP_PROXY="http://127.0.0.1:1"))
    with pytest.raises(Unreachable, match="link-local"):
        outbound.fetch(f"http://{host}/latest", timeout=1, limit=1, link_local=False)
    with pytest.raises(Unreachable, match="proxy"):
        outbound.fetch(f"http://{host}/latest", timeout=1, limit=1)


@contextmanager
def answering(*pieces: bytes) -> Iterator[str]:
    """A server that answers one request with the first piece, then sends the others until nobody listens any more."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.recv(1 << 16)
            connection.sendall(pieces[0])
            for piece in itertools.cycle(pieces[1:]):
                connection.sendall(piece)
                select.select([connection], [], [], 0.01)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=serve)
        serving.start()
        yield f"http://user:hunter2@127.0.0.1:{listener.getsockname()[1]}/map"
        serving.join()


def refusal(url: str, timeout: float = 30) -> str:
    with pytest.raises(CoderError) as refused:
        Outbound(proxies=Proxies()).fetch(url, timeout=timeout, limit=100)
    text = f"{refused.value} {refused.value.remedy}"
    assert "hunter2" not in text
    return text


@pytest.mark.parametrize("begun", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"])
def test_a_document_that_comes_byte_by_byte_is_given_up(begun):
    with answering(begun, b" ") as url:
        assert "did not answer in time" in refusal(url, timeout=0.1)


def test_a_document_that_ends_too_early_is_none():
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}") as url:
        assert "does not answer as a web server does" in refusal(url)


def test_a_document_without_end_is_left_at_its_limit():
    with answering(b"HTTP/1.1 200 OK\r\n\r\n", b"0" * 1000) as url:
        assert len(Outbound(proxies=Proxies()).fetch(url, timeout=30, limit=100)) == 101


def test_what_is_no_url_is_told():
    assert "no URL" in refusal("http://[::1")
