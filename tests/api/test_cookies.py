"""Cookies over HTTPS: what a page on a neighbouring host can plant in a browser counts for nothing."""

import re
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from api.conftest import PASSWORD, TOKEN_HEADER, Server
from coder.config import AppsSettings, DerpSettings, Settings

URL = "https://coder.test"
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
SAME = {"Sec-Fetch-Site": "same-origin", "Origin": URL}
BROWSERS = [{"User-Agent": AGENT}, {"Sec-Fetch-Site": "none"}, {"Origin": URL}]
HOST = "8080--main--dev--admin.coder.test"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    apps = AppsSettings(wildcard_access_url="*.coder.test")
    return Settings(state_dir=str(tmp_path / "state"), derp=DerpSettings(stun_port=-1), apps=apps)


@pytest.fixture
def access_url() -> str:
    return URL


@pytest.fixture
async def mallory(server: Server) -> str:
    """The token of somebody who wants others to work in their account."""
    other = await server.member("mallory")
    return other.headers[TOKEN_HEADER]


async def log_in(server: Server, **planted: str) -> httpx2.Response:
    """Sign the admin in with a form, in a browser that was given cookies by others."""
    server.http.headers["User-Agent"] = AGENT
    for name, value in planted.items():
        server.http.cookies.set(name, value)
    page = await server.http.get("/login")
    token = re.search(r'name="form_token" value="([0-9a-f]+)"', page.text)
    assert token, page.text
    fields = {"form_token": token[1], "email": "admin@example.com", "password": PASSWORD}
    return await server.http.post("/login", data=fields, headers=SAME)


async def test_a_login_gives_cookies_that_no_other_host_can_set(server: Server):
    answer = await log_in(server)
    assert answer.status_code == 303
    given = [line for line in answer.headers.get_list("Set-Cookie") if line.startswith("__Host-coder_session_token=")]
    assert len(given) == len(answer.headers.get_list("Set-Cookie")) == 1
    parts = set(given[0].split("; ")[1:])
    assert {"Path=/", "Secure", "HttpOnly", "SameSite=lax"} == parts
    assert server.http.cookies["__Host-coder_form"]
    left = await server.http.get("/workspaces")
    assert left.status_code == 200


async def test_a_planted_session_neither_signs_in_nor_replaces_ones_own(server: Server, mallory: str):
    server.headers.clear()
    for headers in BROWSERS:
        planted = headers | {"Cookie": f"coder_session_token={mallory}"}
        assert (await server.call("GET", "/users/me", headers=planted)).status_code == 401, headers
    answer = await log_in(server, coder_session_token=mallory)
    assert answer.status_code == 303
    assert (await server.get("/users/me"))["username"] == "admin"


async def test_a_page_does_not_take_a_planted_session_for_a_login(server: Server, mallory: str):
    server.http.cookies.set("coder_session_token", mallory)
    server.http.headers["User-Agent"] = AGENT
    assert (await server.http.get("/workspaces")).headers["Location"] == "/login?redirect=%2Fworkspaces"
    assert (await server.http.get("/login")).status_code == 200


async def test_a_form_is_not_bound_to_what_was_planted(server: Server, mallory: str):
    """Else whoever plants the cookie knows the token of its forms."""
    elsewhere = replace(server, http=httpx2.AsyncClient(transport=server.http._transport, base_url=URL))
    async with elsewhere.http as http:
        page = await http.get("/login")
        known = http.cookies["__Host-coder_form"]
        token = re.search(r'name="form_token" value="([0-9a-f]+)"', page.text)
    assert token
    fields = {"form_token": token[1], "email": "mallory@example.com", "password": PASSWORD}
    for planted in ({"coder_form": known}, {"coder_session_token": mallory}):
        server.http.cookies.clear()
        for name, value in planted.items():
            server.http.cookies.set(name, value)
        answer = await server.http.post("/login", data=fields, headers=SAME | {"User-Agent": AGENT})
        assert answer.status_code == 403, planted


@pytest.mark.parametrize("agent", ["coder-cli/2.26.0 (linux/amd64; workspace)", "Go-http-client/1.1", ""])
async def test_programs_go_on_with_the_protocols_own_cookie(server: Server, agent: str):
    token = server.headers.pop(TOKEN_HEADER)
    answer = await server.call(
        "GET", "/users/me", headers={"User-Agent": agent, "Cookie": f"coder_session_token={token}"}
    )
    assert answer.json()["username"] == "admin"
    for headers in ({TOKEN_HEADER: token}, {"Authorization": f"Bearer {token}"}):
        assert (await server.call("GET", "/users/me", headers=headers | {"User-Agent": AGENT})).status_code == 200


async def test_on_a_host_of_an_app_a_planted_session_opens_nothing(server: Server, mallory: str):
    asked = {
        "Coder-Edge-Secret": server.deployment.apps.secret.reveal(),
        "Coder-Edge-At": HOST,
        "Coder-Edge-Host": HOST,
        "Coder-Edge-Method": "GET",
        "Coder-Edge-Target": "/",
        "Cookie": f"coder_session_token={mallory}",
    }
    assert (await server.http.get("/-/edge/app", headers=asked)).status_code == 404  # signed in, and there is none
    for headers in BROWSERS[:2]:
        assert (await server.http.get("/-/edge/app", headers=asked | headers)).status_code == 303, headers


async def test_a_logout_takes_the_cookie(server: Server):
    await log_in(server)
    server.headers.clear()
    left = await server.call("POST", "/users/logout", headers=SAME)
    assert left.status_code == 200
    (line,) = left.headers.get_list("Set-Cookie")
    assert line.startswith('__Host-coder_session_token="";')
    assert "Secure" in line
