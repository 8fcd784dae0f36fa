"""Users: the first one, login, logout, who may see whom."""

import pytest

from api.conftest import PASSWORD, TOKEN_HEADER, URL, Server

FIRST = {"email": "admin@example.com", "username": "admin", "password": PASSWORD}


async def test_a_new_deployment_asks_for_its_first_user(bare: Server):
    answer = await bare.call("GET", "/users/first")
    assert answer.status_code == 404
    assert answer.headers["X-Coder-Build-Version"].startswith("v2.26.0+py")


async def test_the_first_user_owns_the_deployment_and_there_is_only_one(bare: Server):
    made = await bare.call("POST", "/users/first", json=FIRST)
    assert made.status_code == 201
    assert set(made.json()) == {"user_id", "organization_id"}
    assert (await bare.call("POST", "/users/first", json=FIRST | {"username": "b"})).status_code == 409
    await bare.sign_in()
    me = await bare.get("/users/me")
    assert me["id"] == made.json()["user_id"]
    assert [role["name"] for role in me["roles"]] == ["owner"]


async def test_no_page_of_another_site_makes_the_first_user(bare: Server):
    for origin in ("http://evil.test:3000", "null", "https://coder.test:3000", "http://coder.test:30001"):
        answer = await bare.call("POST", "/users/first", json=FIRST, headers={"Origin": origin})
        assert answer.status_code == 403, origin
    answer = await bare.call("POST", "/users/first", json=FIRST, headers={"Origin": URL})
    assert answer.status_code == 201


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("password", "short"),
        ("password", "aaaaaaaaaaaaaaaaaaaaaaaa"),
        ("password", "x" * 60 + "Aa1!9"),
        ("username", "me"),
        ("username", "two--hyphens"),
        ("username", "x" * 33),
        ("email", "nobody"),
    ],
)
async def test_a_first_user_with_a_bad_field_is_told_which(bare: Server, field: str, value: str):
    answer = await bare.call("POST", "/users/first", json=FIRST | {field: value})
    assert answer.status_code == 400
    assert [each["field"] for each in answer.json()["validations"]] == [field]


async def test_login_gives_a_token_and_a_cookie_that_scripts_cannot_read(server: Server):
    answer = await server.call("POST", "/users/login", json={"email": "ADMIN@example.com", "password": PASSWORD})
    assert answer.status_code == 201
    assert f"coder_session_token={answer.json()['session_token']};" in answer.headers["Set-Cookie"]
    assert "HttpOnly" in answer.headers["Set-Cookie"]


@pytest.mark.parametrize(("email", "password"), [("admin@example.com", "wrong"), ("nobody@example.com", PASSWORD)])
async def test_a_wrong_password_and_an_unknown_user_look_the_same(server: Server, email: str, password: str):
    answer = await server.call("POST", "/users/login", json={"email": email, "password": password})
    assert answer.status_code == 401
    assert answer.json() == {"message": "The e-mail address or the password is wrong."}


async def test_logins_are_limited_by_account_and_open_again_later(server: Server):
    wrong = {"email": "admin@example.com", "password": "wrong"}
    answers = [await server.call("POST", "/users/login", json=wrong) for _ in range(20)]
    assert [answer.status_code for answer in answers] == [401] * 19 + [429]
    assert int(answers[-1].headers["Retry-After"]) > 0
    await server.clock.advance(61)
    await server.sign_in()


async def test_logout_ends_the_session_and_clears_the_cookie(server: Server):
    answer = await server.call("POST", "/users/logout")
    assert answer.status_code == 200
    assert "Max-Age=0" in answer.headers["Set-Cookie"]
    assert (await server.call("GET", "/users/me")).status_code == 401


async def test_a_member_sees_themselves_but_nobody_else(server: Server):
    bob = await server.member("bob")
    assert (await bob.get("/users/me"))["username"] == "bob"
    assert (await bob.get("/users/BOB"))["username"] == "bob"
    assert (await bob.call("GET", "/users/admin")).status_code == 404
    assert (await bob.call("POST", "/users", json=FIRST)).status_code == 403
    assert (await bob.call("PUT", "/users/admin/status/suspend")).status_code == 404
    assert (await server.get("/users/bob"))["username"] == "bob"


async def test_names_and_addresses_of_users_are_unique_whatever_their_case(server: Server):
    await server.member("bob")
    for taken in ({"username": "BOB", "email": "x@example.com"}, {"username": "x", "email": "Bob@example.com"}):
        answer = await server.call("POST", "/users", json=FIRST | taken)
        assert answer.status_code == 409


async def test_a_suspended_user_is_out_at_once(server: Server):
    bob = await server.member("bob")
    assert (await server.call("PUT", "/users/bob/status/suspend")).json()["status"] == "suspended"
    refused = await bob.call("GET", "/users/me")
    assert refused.status_code == 401
    assert "suspended" in refused.json()["detail"]
    login = await bob.call("POST", "/users/login", json={"email": "bob@example.com", "password": PASSWORD})
    assert login.status_code == 401
    await server.call("PUT", "/users/bob/status/activate")
    assert (await bob.call("GET", "/users/me")).status_code == 401
    await bob.sign_in("bob@example.com")
    assert (await bob.get("/users/me"))["status"] == "active"
    assert (await server.call("PUT", "/users/me/status/suspend")).status_code == 400


async def test_auth_methods_need_no_login(bare: Server):
    assert (await bare.get("/users/authmethods"))["password"] == {"enabled": True}


async def test_the_stored_password_is_a_hash(server: Server):
    async with server.deployment.store.read() as session:
        from coder.db import users

        user = await users.by_name(session, "admin")
    assert user.password_hash.startswith("$argon2id$")
    assert TOKEN_HEADER not in user.password_hash
