"""Web apps through a real edge, the server's own node and a real agent."""

import base64
import contextlib
import functools
import hashlib
import http.client
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator

import pytest
from websockets.sync.client import connect as open_websocket
from websockets.sync.server import serve as serve_websockets

from e2e.deployment import PASSWORD, PATIENCE, running, wait_until
from e2e.services import free_ports, service

BIG = 192 << 20
PIECE = bytes(range(256)) * 4096


class Site:
    """A deployment whose apps have hosts below `apps.test`, and its owner's session."""

    def __init__(self, deployment) -> None:
        self.deployment = deployment
        self.address, self.port = deployment.url.removeprefix("http://").split(":")
        body = json.dumps({"email": "a@example.com", "password": PASSWORD}).encode()
        request = urllib.request.Request(
            f"{deployment.url}/api/v2/users/login", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            self.token = json.load(answer)["session_token"]
        self.held = contextlib.ExitStack()

    def host(self, app) -> str:
        return f"{app}--main--dev--admin.apps.test:{self.port}"

    def ask(self, app, path="/", *, method="GET", body=None, **headers):
        """Ask as a program with the owner's token does; names of headers have underscores."""
        connection = http.client.HTTPConnection(self.address, int(self.port), timeout=PATIENCE)
        sent = {"Host": self.host(app), "Coder-Session-Token": self.token}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        self.held.callback(connection.close)
        connection.request(method, path, body=body, headers=sent)
        return self.held.enter_context(connection.getresponse())


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("apps"), "--wildcard-access-url", "*.apps.test") as made:
        yield Site(made)


@pytest.fixture(autouse=True)
def nothing_left_open(site) -> Iterator[None]:
    yield
    site.held.close()


@contextlib.contextmanager
def web(handler) -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join(PATIENCE)


class Quiet(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args) -> None:
        pass


def test_a_plain_file_server_with_a_browsers_way_in(site, tmp_path):
    """Signed out, the browser is sent to the dashboard and comes back with a session for the app."""
    (tmp_path / "hello.txt").write_text("hello from the workspace")
    (port,) = free_ports()
    files = subprocess.Popen(
        [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until("the file server", lambda: site.ask(port, "/hello.txt").status == 200)
        away = site.ask(port, "/hello.txt", Coder_Session_Token="")
        assert away.status == 303
        where = away.headers["Location"].removeprefix(site.deployment.url)
        assert where.startswith("/api/v2/applications/auth-redirect?")
        back = site.ask("x", where, Host=f"{site.address}:{site.port}", Cookie=f"coder_session_token={site.token}")
        there = back.headers["Location"]
        assert there.startswith(f"http://{site.host(port)}/hello.txt?")
        path = "/" + there.split("/", 3)[3]
        session = site.ask(port, path, Coder_Session_Token="")
        assert (session.status, session.headers["Location"]) == (303, "/hello.txt")
        cookie = session.headers["Set-Cookie"].split(";")[0]
        found = site.ask(port, "/hello.txt", Coder_Session_Token="", Cookie=cookie)
        assert found.read() == b"hello from the workspace"
        ticket = found.headers["Set-Cookie"].split(";")[0]
        assert site.ask(port, "/hello.txt", Coder_Session_Token="", Cookie=ticket).read().startswith(b"hello")
        assert site.ask(port, "/none").status == 404
    finally:
        files.terminate()
        files.wait(PATIENCE)
    down = site.ask(port, "/hello.txt", Cookie=ticket)
    assert down.status == 503
    assert b"Nothing listens" in down.read()


def test_gigabytes_pass_both_ways_unchanged(site):
    class Bulk(Quiet):
        def do_GET(self) -> None:
            start, _, end = self.headers.get("Range", f"bytes=0-{BIG - 1}").removeprefix("bytes=").partition("-")
            start, end = int(start), int(end)
            self.send_response(206 if "Range" in self.headers else 200)
            self.send_header("Content-Length", str(end - start + 1))
            self.end_headers()
            left, place = end - start + 1, start % len(PIECE)
            while left:
                part = PIECE[place : place + left]
                self.wfile.write(part)
                left, place = left - len(part), 0

        def do_PUT(self) -> None:
            digest, left = hashlib.sha256(), int(self.headers["Content-Length"])
            while left:
                part = self.rfile.read(min(left, 1 << 20))
                digest.update(part)
                left -= len(part)
            body = digest.hexdigest().encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    expected = hashlib.sha256()
    for _ in range(BIG // len(PIECE)):
        expected.update(PIECE)
    with web(Bulk) as port:
        answer, found = site.ask(port), hashlib.sha256()
        while part := answer.read(1 << 20):
            found.update(part)
        assert found.digest() == expected.digest()
        answer = site.ask(port, Range="bytes=1000-1255")
        assert (answer.status, answer.read()) == (206, (PIECE * 2)[1000:1256])
        pieces = (PIECE for _ in range(BIG // len(PIECE)))
        answer = site.ask(port, method="PUT", body=pieces, Content_Length=str(BIG), Expect="")
        assert answer.read().decode() == expected.hexdigest()


def test_events_come_one_by_one(site):
    turn = threading.Semaphore(0)

    class Events(Quiet):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for number in range(3):
                self.wfile.write(f"data: {number}\n\n".encode())
                assert turn.acquire(timeout=PATIENCE)
            self.close_connection = True

    with web(Events) as port:
        answer = site.ask(port)
        assert answer.headers["Content-Type"] == "text/event-stream"
        for number in range(3):
            assert answer.readline() == f"data: {number}\n".encode()
            assert answer.readline() == b"\n"
            turn.release()
        assert answer.read() == b""


def test_websockets_work_and_other_sites_get_none(site):
    def echo(websocket) -> None:
        for message in websocket:
            websocket.send(message)

    with serve_websockets(echo, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.socket.getsockname()[1]
        raw = socket.create_connection((site.address, int(site.port)))
        with open_websocket(
            f"ws://{site.host(port)}/", sock=raw, additional_headers={"Coder-Session-Token": site.token}
        ) as websocket:
            for message in ("text", b"bytes", os.urandom(300_000)):
                websocket.send(message)
                assert websocket.recv(timeout=PATIENCE) == message
        handshake = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec_WebSocket_Version": "13",
            "Sec_WebSocket_Key": base64.b64encode(bytes(16)).decode(),
            "Coder_Session_Token": "",
        }
        for origin in ("https://evil.test", "null", f"http://{site.host('x').replace('admin', 'eve')}"):
            cookie = f"coder_session_token={site.token}"
            assert site.ask(port, Origin=origin, Cookie=cookie, **handshake).status == 403, origin
        assert site.ask(port, **handshake).status == 401


def test_an_app_sees_its_own_headers_and_none_of_ours(site):
    seen: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += connection.recv(4096)
        seen.append(request)
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n")

    with service(answer) as port:
        cookie = f"mine=1; coder_session_token={site.token}"
        got = site.ask(port, "/a?b", Cookie=cookie, Authorization="Bearer mine", X_Forwarded_For="6.6.6.6")
    assert (got.status, got.headers["Location"]) == (302, "http://elsewhere/")
    (request,) = seen
    assert request.startswith(b"GET /a?b HTTP/1.1\r\n")
    assert site.token.encode() not in request
    lines = request.decode().lower().split("\r\n")
    assert "authorization: bearer mine" in lines
    assert "cookie: mine=1" in lines
    assert f"host: {site.host(port)}" in lines
    assert "x-forwarded-for: 127.0.0.1" in lines


def test_ports_are_shared_by_the_command_line(site):
    """Ports are shared and unshared; then nobody needs to sign in, and then everybody again."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory="/nonexistent")
    with web(handler) as port:
        assert site.ask(port, Coder_Session_Token="").status == 303
        site.deployment.ok("port-share", "set", "dev", str(port), "--level", "public")
        assert [each["port"] for each in site.deployment.json("port-share", "list", "dev")] == [port]
        assert site.ask(port, Coder_Session_Token="").status == 404  # the app's own answer
        site.deployment.ok("port-share", "delete", "dev", str(port))
        assert site.ask(port, Coder_Session_Token="").status == 303
