"""What requests send: how much of it is read, and from whom."""

import dataclasses
import json
from collections.abc import AsyncIterator

import httpx2
import pytest

from api.conftest import PASSWORD, TOKEN_HEADER, URL, Server
from coder.access.limits import Limit, LoginLimits, Pace
from coder.server.app import create_app
from coder.server.asking import MAX_OF_STRANGERS
from coder.server.bodies import MAX_BODY

JSON = {"Content-Type": "application/json"}
LOGIN = {"email": "admin@example.com", "password": PASSWORD}


class Sent:
    """A chunked body that knows how much of it was taken."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.taken < self.size:
            self.taken += 1 << 16
            yield b" " * (1 << 16)


def client(server: Server, **parts: object) -> httpx2.AsyncClient:
    app = create_app(dataclasses.replace(server.deployment, **parts))
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url=f"{URL}/api/v2")


async def test_a_body_that_is_announced_too_large_is_not_read(server: Server):
    answer = await server.call("POST", "/users/login", content=b"x" * (MAX_BODY + 1))
    assert answer.status_code == 413
    assert answer.json() == {"message": "The request body is too large."}


async def test_a_body_of_unknown_length_is_read_up_to_the_bound(live: Server):
    headers = {"Content-Type": "application/json"}
    answer = await live.call("PUT", "/users/me/profile", content=Sent(MAX_BODY + 1), headers=headers)
    assert answer.status_code == 413
    assert answer.json() == {"message": "The request body is too large."}


async def test_a_body_of_just_that_size_is_read(server: Server):
    body = json.dumps({"username": "admin"}).ljust(MAX_BODY)
    answer = await server.call("PUT", "/users/me/profile", content=body, headers=JSON)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/users"),
        ("PUT", "/users/me/profile"),
        ("POST", "/users/me/keys/tokens"),
        ("POST", "/users/me/workspaces"),
        ("POST", "/authcheck"),
    ],
)
async def test_nothing_is_read_of_a_caller_who_is_not_known(bare: Server, method: str, path: str):
    read = False

    async def receive() -> dict[str, object]:
        nonlocal read
        read = True
        return {"type": "http.request", "body": b"{}", "more_body": False}

    said: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        said.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": f"/api/v2{path}",
        "query_string": b"",
        "headers": [(b"host", b"coder.test:3000"), (b"content-type", b"application/json")],
        "client": ("192.0.2.1", 1),
        "server": ("coder.test", 3000),
    }
    await create_app(bare.deployment)(scope, receive, send)
    assert said[0]["status"] == 401
    assert not read


async def test_who_is_verified_before_the_body_is_counted_once(server: Server):
    async with client(server, api_limits=Pace(Limit(2, 60.0))) as http:
        asked = [await http.post("/authcheck", json={"checks": {}}, headers=server.headers) for _ in range(3)]
    assert [answer.status_code for answer in asked] == [200, 200, 429]


@pytest.mark.parametrize("field", ["email", "password"])
async def test_a_login_has_short_fields(server: Server, field: str):
    answer = await server.call("POST", "/users/login", json=LOGIN | {field: "x@" * 200})
    assert answer.status_code == 400
    assert [each["field"] for each in answer.json()["validations"]] == [field]


async def test_what_is_no_address_is_refused_before_it_counts(server: Server):
    limits = LoginLimits(Limit(1, 60.0))
    async with client(server, login_limits=limits) as http:
        asked = [(await http.post("/users/login", json=LOGIN | {"email": email})).status_code for email in "abc"]
        assert asked == [400, 400, 400]
        assert (await http.post("/users/login", json=LOGIN)).status_code == 201


async def test_an_address_that_used_up_its_allowance_is_not_looked_up(server: Server, monkeypatch: pytest.MonkeyPatch):
    token = {"Coder-Session-Token": "aaaaaaaaaa-bbbbbbbbbbbbbbbbbbbbbb"}
    agent = {"Coder-Session-Token": "33333333-3333-4333-8333-333333333333"}
    async with client(server, api_limits=Pace(Limit(2, 60.0))) as http:
        assert [(await http.get("/users/me", headers=token)).status_code for _ in range(2)] == [401, 401]
        with monkeypatch.context() as without:
            without.setattr(type(server.deployment.store), "read", None)
            assert (await http.get("/users/me", headers=token)).status_code == 429
            assert (await http.get("/workspaceagents/me/rpc", headers=agent)).status_code == 429
        assert (await http.get("/users/me", headers=server.headers)).status_code == 200


@pytest.mark.parametrize(("url", "secure"), [(URL, False), ("https://coder.test", True)])
async def test_the_cookie_of_an_https_server_goes_over_https_only(server: Server, url: str, secure: bool):
    async with client(server, access_url=url) as http:
        answer = await http.post("/users/login", json=LOGIN)
    assert ("Secure" in answer.headers["Set-Cookie"]) is secure


async def test_the_body_of_a_stranger_is_small(server: Server):
    for size, status in ((MAX_OF_STRANGERS // 2, 400), (MAX_OF_STRANGERS + 1, 413)):
        body = json.dumps({"email": "x" * size, "password": "x"})
        answer = await server.call("POST", "/users/login", content=body, headers=JSON)
        assert answer.status_code == status, size
    sent = Sent(MAX_BODY)
    assert (await server.call("POST", "/users/login", content=sent, headers=JSON)).status_code == 413
    assert sent.taken <= 1 << 17


async def test_half_a_character_is_the_senders_fault(live: Server):
    workspace = await live.workspace()
    body = json.dumps({"username": "admin", "name": "\ud800"})
    answer = await live.call("PUT", "/users/me/profile", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["message"]) == (400, "The request holds text that is not Unicode.")
    lines = {"logs": [{"created_at": "2030-01-01T00:00:00Z", "output": "\ud800"}]}
    headers = JSON | {TOKEN_HEADER: workspace.agent_token}
    answer = await live.call("PATCH", "/workspaceagents/me/logs", content=json.dumps(lines), headers=headers)
    assert answer.status_code == 400


async def test_a_line_is_of_a_time_that_is_one(live: Server):
    headers = {TOKEN_HEADER: (await live.workspace()).agent_token}
    times = {"0001-01-01T00:00:00+14:00": 400, "9999-12-31T23:59:59-14:00": 400, "2030-01-01T00:00:00": 200}
    for time, status in times.items():
        body = {"logs": [{"created_at": time, "output": "x"}]}
        answer = await live.call("PATCH", "/workspaceagents/me/logs", json=body, headers=headers)
        assert answer.status_code == status, time


async def test_a_failure_of_ours_is_logged_under_its_number_and_ends_no_connection(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("coder.db.users.search", broken)
    transport = httpx2.ASGITransport(app=create_app(server.deployment))  # raises what the application lets out
    async with httpx2.AsyncClient(transport=transport, base_url=URL) as http:
        answer = await http.get("/api/v2/users", headers=server.headers)
    assert answer.status_code == 500
    assert answer.headers["X-Coder-Request-Id"] in answer.json()["detail"]
    [line] = [line for line in capsys.readouterr().out.splitlines() if "request.failed" in line]
    assert answer.headers["X-Coder-Request-Id"] in line
