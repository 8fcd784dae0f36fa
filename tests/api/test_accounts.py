"""Accounts: lists, roles, passwords, and what ends with them."""

import asyncio
from dataclasses import replace

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed

from api.conftest import PASSWORD, TOKEN_HEADER, URL, Server
from coder.access.limits import Limit, LoginLimits
from coder.access.roles import OWNER
from coder.db import keys, users
from coder.server.app import create_app

NEW = PASSWORD + " 2"


async def with_roles(server: Server, name: str, *roles: str) -> Server:
    other = await server.member(name)
    answer = await server.call("PUT", f"/users/{name}/roles", json={"roles": list(roles)})
    assert answer.status_code == 200, answer.text
    return other


async def names(server: Server, query: str = "") -> list[str]:
    return [user["username"] for user in (await server.get("/users", params={"q": query}))["users"]]


async def test_users_are_listed_to_those_who_may_see_them(server: Server):
    bob = await server.member("bob")
    eve = await with_roles(server, "eve", "auditor")
    await server.call("PUT", "/users/bob/status/suspend")
    assert await names(server) == await names(eve) == ["admin", "bob", "eve"]
    assert await names(server, "status:suspended") == ["bob"]
    assert await names(server, "role:auditor") == ["eve"]
    assert await names(server, "ADM") == ["admin"]
    assert await names(server, "%") == []
    await server.call("PUT", "/users/bob/status/activate")
    await bob.sign_in("bob@example.com")
    assert await names(bob) == ["bob"]
    page = await server.get("/users?limit=1&offset=1")
    assert ([user["username"] for user in page["users"]], page["count"]) == (["bob"], 3)


@pytest.mark.parametrize("query", ["status:gone", "role:king", "x:y", 'a "b'])
async def test_a_search_for_users_that_cannot_be_read_is_refused(server: Server, query: str):
    assert (await server.call("GET", "/users", params={"q": query})).status_code == 400


async def test_roles_are_given_taken_and_shown(server: Server):
    bob = await with_roles(server, "bob", "auditor", "user-admin", "member")
    shown = await bob.get("/users/me")
    assert [role["name"] for role in shown["roles"]] == ["auditor", "user-admin"]
    assert (await bob.get("/users/me/roles"))["roles"] == ["auditor", "user-admin"]
    assignable = {role["name"]: role["assignable"] for role in await bob.get("/users/roles")}
    assert assignable == {"owner": False, "user-admin": False, "auditor": False}
    assert all(role["assignable"] for role in await server.get("/users/roles"))
    assert (await server.call("PUT", "/users/bob/roles", json={"roles": ["king"]})).status_code == 400
    assert (await server.call("PUT", "/users/me/roles", json={"roles": []})).status_code == 400
    await server.call("PUT", "/users/bob/roles", json={"roles": []})
    assert (await bob.get("/users/me"))["roles"] == []


async def test_a_user_admin_touches_nobody_with_more_than_they_have(server: Server):
    eve = await with_roles(server, "eve", "user-admin")
    await with_roles(server, "carl", "auditor")
    for name in ("admin", "carl"):
        for method, path, body in (
            ("PUT", "password", {"password": NEW}),
            ("PUT", "status/suspend", None),
            ("PUT", "roles", {"roles": []}),
            ("PUT", "profile", {"username": "x"}),
            ("DELETE", "", None),
        ):
            answer = await eve.call(method, f"/users/{name}/{path}".rstrip("/"), json=body)
            assert answer.status_code == 403, (name, path)
    await server.member("bob")
    assert (await eve.call("PUT", "/users/bob/roles", json={"roles": ["user-admin"]})).status_code == 403
    assert (await eve.call("PUT", "/users/bob/password", json={"password": NEW})).status_code == 204


async def test_of_two_owners_who_remove_each_other_one_stays(server: Server):
    eve = await with_roles(server, "eve", OWNER)
    first, second = await asyncio.gather(
        server.call("PUT", "/users/eve/roles", json={"roles": []}),
        eve.call("PUT", "/users/admin/roles", json={"roles": []}),
    )
    assert 200 in {first.status_code, second.status_code}
    async with server.deployment.store.read() as session:
        assert await users.has_active_owner(session)


async def test_a_password_change_ends_all_sessions_and_tokens_but_the_one_it_was_made_with(server: Server):
    bob = await server.member("bob")
    other = replace(bob, headers={})
    await other.sign_in("bob@example.com")
    made = (await bob.call("POST", "/users/me/keys/tokens", json={"token_name": "ci"})).json()["key"]
    wrong = await bob.call("PUT", "/users/me/password", json={"old_password": "wrong", "password": NEW})
    assert wrong.json()["validations"][0]["field"] == "old_password"
    weak = await bob.call("PUT", "/users/me/password", json={"old_password": PASSWORD, "password": "short"})
    assert weak.json()["validations"][0]["field"] == "password"
    changed = await bob.call("PUT", "/users/me/password", json={"old_password": PASSWORD, "password": NEW})
    assert changed.status_code == 204
    assert (await bob.get("/users/me"))["username"] == "bob"
    assert (await other.call("GET", "/users/me")).status_code == 401
    assert (await bob.call("GET", "/users/me", headers={TOKEN_HEADER: made})).status_code == 401
    old = await server.call("POST", "/users/login", json={"email": "bob@example.com", "password": PASSWORD})
    assert old.status_code == 401


async def test_guessing_the_old_password_with_a_stolen_session_is_limited_like_logins(server: Server):
    guess = {"old_password": "wrong", "password": NEW}
    answers = [await server.call("PUT", "/users/me/password", json=guess) for _ in range(20)]
    assert answers[0].status_code == 400
    assert answers[-1].status_code == 429


async def test_a_deleted_user_is_gone_and_their_name_is_free(server: Server):
    bob = await server.member("bob")
    workspace = await bob.workspace()
    refused = await server.call("DELETE", "/users/bob")
    assert (refused.status_code, "workspaces" in refused.json()["message"]) == (409, True)
    await bob.call("DELETE", f"/workspaces/{workspace.id}")
    assert (await server.call("DELETE", "/users/bob")).status_code == 200
    assert (await bob.call("GET", "/users/me")).status_code == 401
    assert (await server.call("GET", "/users/bob")).status_code == 404
    assert await names(server) == ["admin"]
    login = await bob.call("POST", "/users/login", json={"email": "bob@example.com", "password": PASSWORD})
    assert login.status_code == 401
    again = await server.member("bob")
    assert (await again.get("/workspaces"))["count"] == 0
    assert (await server.call("DELETE", "/users/me")).status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/users/bob/status/suspend", None),
        ("DELETE", "/users/bob", None),
        ("PUT", "/users/bob/password", {"password": NEW}),
        ("PUT", "/users/bob/roles", {"roles": ["auditor"]}),
    ],
)
async def test_what_a_user_has_open_ends_with_their_account(live: Server, method: str, path: str, body: dict | None):
    bob = await live.member("bob")
    async with await bob.open("/tailnet") as socket:
        assert (await live.call(method, path, json=body)).status_code in {200, 204}
        with pytest.raises(ConnectionClosed):
            await socket.recv()
    assert live.deployment.sockets.count(bob.headers[TOKEN_HEADER].partition("-")[0]) == 0


async def test_a_password_change_leaves_open_what_its_own_session_opened(live: Server):
    bob = await live.member("bob")
    async with await bob.open("/derp-map") as socket:
        await socket.recv()
        change = {"old_password": PASSWORD, "password": NEW}
        assert (await bob.call("PUT", "/users/me/password", json=change)).status_code == 204
        assert live.deployment.sockets.count(bob.headers[TOKEN_HEADER].partition("-")[0]) == 1


async def test_a_login_that_was_compared_before_a_change_starts_no_session_after_it(server: Server):
    from coder.server.problems import Problem
    from coder.server.routes.users import new_session

    await server.member("bob")
    async with server.deployment.store.read() as session:
        before = await users.by_name(session, "bob")
    await server.call("PUT", "/users/bob/password", json={"password": NEW})
    with pytest.raises(Problem):
        await new_session(server.deployment, before)
    async with server.deployment.store.write() as session:
        assert await keys.end(session, before.id) == []


async def test_logins_are_limited_by_address_and_by_account_from_there(server: Server):
    limits = LoginLimits(Limit(3, 60.0), Limit(2, 60.0))
    app = create_app(replace(server.deployment, login_limits=limits))

    async def tries(address: str, *accounts: str) -> list[int]:
        transport = httpx2.ASGITransport(app=app, client=(address, 1))
        async with httpx2.AsyncClient(transport=transport, base_url=URL) as http:
            bodies = [{"email": f"{account}@example.com", "password": "wrong"} for account in accounts]
            return [(await http.post("/api/v2/users/login", json=body)).status_code for body in bodies]

    assert await tries("192.0.2.1", "a", "b", "c", "d") == [401, 401, 401, 429]
    assert await tries("192.0.2.2", "a", "a", "a") == [401, 401, 429]
    assert await tries("192.0.2.3", "a") == [401]


async def test_profiles_change_and_names_stay_unique(server: Server):
    bob = await server.member("bob")
    assert (await bob.call("PUT", "/users/me/profile", json={"username": "Rob", "name": "R"})).json()["name"] == "R"
    assert (await bob.get("/users/rob"))["username"] == "Rob"
    assert (await bob.call("PUT", "/users/me/profile", json={"username": "ADMIN"})).status_code == 409
    assert (await bob.call("PUT", "/users/me/profile", json={"username": "me"})).status_code == 400
