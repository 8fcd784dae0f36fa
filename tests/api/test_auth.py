"""Where a token is read, what is refused, and what other sites cannot do."""

import pytest

from api.conftest import TOKEN_HEADER, URL, Server
from coder.access import tokens

COOKIE = "coder_session_token"


@pytest.fixture
def places(server: Server) -> dict[str, dict]:
    token = server.headers.pop(TOKEN_HEADER)
    return {
        "cookie": {"headers": {"Cookie": f"{COOKIE}={token}"}},
        "query": {"params": {COOKIE: token}},
        "header": {"headers": {TOKEN_HEADER: token}},
        "bearer": {"headers": {"Authorization": f"Bearer {token}"}},
        "access_token": {"params": {"access_token": token}},
    }


@pytest.mark.parametrize("place", ["cookie", "query", "header", "bearer", "access_token"])
async def test_a_token_is_read_from_every_place(server: Server, places: dict, place: str):
    assert (await server.call("GET", "/users/me", **places[place])).status_code == 200


@pytest.mark.parametrize("place", ["header", "bearer", "access_token"])
@pytest.mark.parametrize("winner", ["cookie", "query"])
async def test_cookie_and_query_win_even_when_they_are_worth_nothing(
    server: Server, places: dict, place: str, winner: str
):
    bad = {"headers": {"Cookie": f"{COOKIE}=bad"}} if winner == "cookie" else {"params": {COOKIE: "bad"}}
    both = {key: places[place].get(key, {}) | bad.get(key, {}) for key in ("headers", "params")}
    assert (await server.call("GET", "/users/me", **both)).status_code == 401


@pytest.mark.parametrize(
    ("token", "detail"),
    [
        ("", "no token"),
        ("bad", "two parts"),
        ("short-short", "characters"),
        ("AAAAAAAAA!-BBBBBBBBBBBBBBBBBBBBBB", "letters and digits"),
        ("AAAAAAAAAA-BBBBBBBBBBBBBBBBBBBBBB", "not known"),
    ],
)
async def test_a_refused_token_is_told_why(server: Server, token: str, detail: str):
    answer = await server.call("GET", "/users/me", headers={TOKEN_HEADER: token})
    assert answer.status_code == 401
    assert detail in answer.json()["detail"]
    assert ("WWW-Authenticate" in answer.headers) == bool(token)


async def test_a_wrong_secret_of_a_known_token_is_refused(server: Server):
    known = server.headers[TOKEN_HEADER].partition("-")[0]
    answer = await server.call("GET", "/users/me", headers={TOKEN_HEADER: f"{known}-{'B' * 22}"})
    assert answer.status_code == 401
    assert "wrong" in answer.json()["detail"]


async def test_a_session_ends_a_day_after_its_last_use(server: Server):
    for _ in range(4):
        await server.clock.advance(20 * 3600)
        assert (await server.call("GET", "/users/me")).status_code == 200
    await server.clock.advance(24 * 3600)
    assert (await server.call("GET", "/users/me")).status_code == 401


async def test_a_token_ends_on_its_day_however_much_it_is_used(server: Server):
    lifetime = 2 * 3600 * 10**9
    made = await server.call("POST", "/users/me/keys/tokens", json={"lifetime": lifetime, "token_name": "ci"})
    mine = {"headers": {TOKEN_HEADER: made.json()["key"]}}
    await server.clock.advance(3600 + 1)
    assert (await server.call("GET", "/users/me", **mine)).status_code == 200
    await server.clock.advance(3600)
    assert (await server.call("GET", "/users/me", **mine)).status_code == 401


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.test", "http://coder.test:3001", "https://coder.test:3000"]
)
async def test_another_site_cannot_write_with_the_cookie(server: Server, places: dict, origin: str | None):
    cookie = places["cookie"]["headers"]
    headers = cookie | ({"Origin": origin} if origin else {})
    answer = await server.call("POST", "/users/me/keys", headers=headers)
    assert answer.status_code == 403


async def test_our_own_pages_can_write_with_the_cookie_and_anyone_may_read_with_it(server: Server, places: dict):
    cookie = places["cookie"]["headers"]
    assert (await server.call("POST", "/users/me/keys", headers=cookie | {"Origin": URL})).status_code == 201
    assert (await server.call("GET", "/users/me", headers=cookie | {"Origin": "http://x.test"})).status_code == 200


async def test_a_token_in_the_header_too_proves_that_no_browser_added_it(server: Server, places: dict):
    both = places["cookie"]["headers"] | places["header"]["headers"]
    assert (await server.call("POST", "/users/me/keys", headers=both)).status_code == 201


async def test_the_host_header_never_ends_up_in_a_url(server: Server):
    answer = await server.get("/buildinfo", headers={"Host": "evil.test", "X-Forwarded-Host": "evil.test"})
    assert answer["dashboard_url"] == URL
    assert "evil" not in str(await server.get("/regions", headers={"Host": "evil.test"}))


async def test_a_user_token_opens_nothing_of_agents_and_an_agent_token_nothing_of_users(server: Server):
    workspace = await server.workspace()
    assert (await server.call("GET", "/workspaceagents/me/reinit")).status_code == 401
    agent = {TOKEN_HEADER: workspace.agent_token}
    assert (await server.call("GET", "/users/me", headers=agent)).status_code == 401
    unknown = {TOKEN_HEADER: str(tokens.new_agent_token())}
    assert (await server.call("GET", "/workspaceagents/me/reinit", headers=unknown)).status_code == 401
    assert (await server.call("GET", "/workspaceagents/me/reinit", headers={TOKEN_HEADER: ""})).status_code == 401


async def test_a_token_for_apps_does_not_open_the_api(server: Server):
    made = await server.call("POST", "/users/me/keys/tokens", json={"scope": "application_connect"})
    answer = await server.call("GET", "/users/me", headers={TOKEN_HEADER: made.json()["key"]})
    assert answer.status_code == 401
