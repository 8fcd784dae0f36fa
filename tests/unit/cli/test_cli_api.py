import http.client
import socket
from email.message import Message

import pytest
from fakes.server import SESSION, USER, Call, FakeServer, workspace

from coder.cli.api import Api
from coder.cli.errors import ApiError, line
from coder.errors import CoderError, NotSignedIn, Unreachable
from coder.ids import Secret


def test_sends_token_and_headers_and_reads_json():
    with FakeServer({"GET /api/v2/users/me": (200, USER)}) as server:
        with Api(server.url, token=Secret(SESSION), headers={"X-Extra": "1"}) as api:
            assert api.me() == USER
        [call] = server.calls
        assert call.headers["Coder-Session-Token"] == SESSION
        assert call.headers["X-Extra"] == "1"


def test_keeps_the_connection_between_calls():
    with FakeServer({"GET /api/v2/users/me": (200, USER)}) as server, Api(server.url, token=Secret(SESSION)) as api:
        api.me()
        first = api._connection
        api.me()
        assert api._connection is first


def test_a_connection_the_server_closed_is_opened_again():
    with FakeServer({"GET /api/v2/users/me": (200, USER)}) as server, Api(server.url, token=Secret(SESSION)) as api:
        api.me()
        api._connection.sock.shutdown(socket.SHUT_RDWR)
        assert api.me() == USER


def test_first_user_is_told_from_a_foreign_server_by_its_build_header():
    with FakeServer() as server, Api(server.url) as api:
        assert api.has_first_user() is False
        server.build = None
        with pytest.raises(ApiError):
            api.has_first_user()


def test_401_without_a_token_is_the_servers_answer_and_with_one_an_invalid_session():
    with FakeServer({"POST /api/v2/users/login": (401, {"message": "Wrong."})}) as server:
        with Api(server.url) as api, pytest.raises(ApiError, match="Wrong") as caught:
            api.sign_in("a@b.c", "x")
        assert caught.value.code == 401
        with Api(server.url, token=Secret(SESSION)) as api, pytest.raises(NotSignedIn, match="expired") as refused:
            api.sign_in("a@b.c", "x")
        assert f"coder login {server.url}" in line(refused.value)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"message": "It failed.", "validations": [{"field": "name", "detail": "Taken."}]}, "failed: name: Taken"),
        ({"message": "No.", "detail": "Because\nof this"}, "No: Because of this"),
        ({"message": "Just no."}, "Just no."),
        ([], "answered with status 400"),
    ],
)  # fmt: skip
def test_error_bodies_become_one_line(body, text):
    with FakeServer({"GET /api/v2/users/me": (400, body)}) as server, Api(server.url) as api:
        with pytest.raises(ApiError) as caught:
            api.me()
        assert text in str(caught.value)
        assert "\n" not in line(caught.value)


def test_a_page_where_json_is_expected_is_no_server_of_ours():
    with (
        FakeServer({"GET /api/v2/users/me": (200, b"<html>hello</html>")}) as server,
        Api(server.url) as api,
        pytest.raises(Unreachable, match="does not answer like"),
    ):
        api.me()


def test_nothing_listens():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with Api(f"http://127.0.0.1:{port}") as api, pytest.raises(Unreachable, match="nothing listens there"):
        api.me()


def test_a_name_that_does_not_resolve(monkeypatch):
    def unknown(*args, **kwargs):
        raise socket.gaierror(-2, "unknown")

    monkeypatch.setattr(socket, "create_connection", unknown)
    with Api("http://nowhere.invalid") as api, pytest.raises(Unreachable, match="host name is not known"):
        api.me()


def test_tls_to_a_port_that_speaks_http():
    with (
        FakeServer() as server,
        Api(server.url.replace("http", "https")) as api,
        pytest.raises(Unreachable, match="does not speak TLS"),
    ):
        api.me()


def test_a_server_that_talks_nonsense():
    with FakeServer() as server, Api(server.url) as api:
        api._connection = _Nonsense()
        with pytest.raises(Unreachable, match="does not answer like"):
            api.me()
        assert api._connection is None


class _Nonsense:
    def request(self, *args, **kwargs):
        raise http.client.BadStatusLine("x")

    def close(self): ...


def test_goes_through_the_proxy_of_the_environment(monkeypatch):
    with FakeServer({"GET /api/v2/users/me": (200, USER)}) as server:
        seen = []
        real = http.client.HTTPConnection.set_tunnel
        monkeypatch.setattr(
            http.client.HTTPConnection, "set_tunnel", lambda self, *a, **k: seen.append((a, k)) or real(self, *a, **k)
        )
        monkeypatch.setenv("http_proxy", server.url.replace("://", "://me:secret@"))
        monkeypatch.delenv("no_proxy", raising=False)
        with Api("http://coder.example.com") as api, pytest.raises(CoderError):
            api.me()
        [((host, port), options)] = seen
        assert (host, port) == ("coder.example.com", 80)
        assert options["headers"]["Proxy-Authorization"].startswith("Basic ")


def test_a_new_workspace_comes_with_its_token_apart():
    def create(call: Call):
        return 201, workspace(name=call.body["name"]) | {"agent_token": "33333333-3333-4333-8333-333333333333"}

    with FakeServer({"POST /api/v2/users/me/workspaces": create}) as server, Api(server.url) as api:
        made, tokens = api.create_workspace("box")
        assert made["name"] == "box"
        assert "agent_token" not in made
        assert tokens["main"].reveal().startswith("33333333")


def test_prints_no_secret():
    api = Api("http://x", token=Secret(SESSION))
    assert SESSION not in repr(api)


def test_a_page_that_is_not_there_on_somebody_elses_server():
    api = Api("https://elsewhere.test")
    with pytest.raises(Unreachable, match="does not answer like a Coder server"):
        api._parse(404, Message(), b"<html>")
    ours = Message()
    ours["X-Coder-Build-Version"] = "v1"
    with pytest.raises(ApiError):
        api._parse(404, ours, b"")
