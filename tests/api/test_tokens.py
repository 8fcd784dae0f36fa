"""Session keys and tokens."""

import pytest

from api.conftest import TOKEN_HEADER, Server

TOKENS = "/users/me/keys/tokens"


async def test_a_token_is_shown_once_and_listed_without_its_secret(server: Server):
    made = await server.call("POST", TOKENS, json={"token_name": "ci", "lifetime": 3600 * 10**9, "scope": ""})
    assert made.status_code == 201
    key, _, secret = made.json()["key"].partition("-")
    listed = await server.get(f"{TOKENS}?include_all=false")
    assert [(each["id"], each["token_name"], each["scope"]) for each in listed] == [(key, "ci", "all")]
    assert listed[0]["lifetime_seconds"] == 3600
    assert secret not in str(listed)
    assert (await server.get(f"{TOKENS}/ci"))["id"] == key
    assert (await server.get(f"/users/me/keys/{key}"))["token_name"] == "ci"


async def test_deleting_a_token_ends_it(server: Server):
    made = (await server.call("POST", TOKENS, json={"token_name": "ci"})).json()["key"]
    path = f"/users/me/keys/{made.partition('-')[0]}"
    assert (await server.call("DELETE", path)).status_code == 204
    assert (await server.call("DELETE", path)).status_code == 404
    assert (await server.call("GET", f"{TOKENS}/ci")).status_code == 404
    assert (await server.call("GET", "/users/me", headers={TOKEN_HEADER: made})).status_code == 401


async def test_names_of_tokens_are_unique_for_each_user(server: Server):
    assert (await server.call("POST", TOKENS, json={"token_name": "ci"})).status_code == 201
    assert (await server.call("POST", TOKENS, json={"token_name": "ci"})).status_code == 409
    bob = await server.member("bob")
    assert (await bob.call("POST", TOKENS, json={"token_name": "ci"})).status_code == 201


@pytest.mark.parametrize(
    "wanted",
    [
        {"lifetime": 2**63 - 1},
        {"lifetime": 10**30},
        {"lifetime": -1},
        {"scope": "root"},
        {"token_name": "a b"},
        {"lifetime": "x"},
    ],
)
async def test_what_a_token_cannot_be(server: Server, wanted: dict):
    answer = await server.call("POST", TOKENS, json=wanted)
    assert answer.status_code == 400
    assert answer.json()["validations"][0]["field"] == next(iter(wanted))


async def test_the_longest_lifetime_is_told(server: Server):
    answer = await server.get(f"{TOKENS}/tokenconfig")
    assert answer == {"max_token_lifetime": 876_600 * 3600 * 10**9}


async def test_a_session_key_is_another_login_and_no_token(server: Server):
    made = await server.call("POST", "/users/me/keys")
    assert made.status_code == 201
    assert (await server.call("GET", "/users/me", headers={TOKEN_HEADER: made.json()["key"]})).status_code == 200
    assert await server.get(TOKENS) == []


async def test_owners_see_all_tokens_but_start_nobody_elses_session(server: Server):
    bob = await server.member("bob")
    made = (await bob.call("POST", TOKENS, json={"token_name": "b"})).json()["key"]
    assert [each["username"] for each in await server.get(f"{TOKENS}?include_all=true")] == ["bob"]
    assert await bob.get(f"{TOKENS}?include_all=true") == await bob.get(TOKENS)
    assert (await server.call("POST", "/users/bob/keys")).status_code == 403
    admin_key = server.headers[TOKEN_HEADER].partition("-")[0]
    assert (await bob.call("GET", f"/users/me/keys/{admin_key}")).status_code == 404
    assert (await bob.call("DELETE", f"/users/me/keys/{admin_key}")).status_code == 404
    assert (await server.call("DELETE", f"/users/bob/keys/{made.partition('-')[0]}")).status_code == 204


async def test_what_a_token_makes_ends_when_it_does_and_is_listed(server: Server):
    made = (await server.call("POST", TOKENS, json={"token_name": "ci", "lifetime": 3600 * 10**9})).json()["key"]
    answer = await server.call("POST", "/users/me/keys", headers={TOKEN_HEADER: made})
    further = answer.json()["key"]
    assert further.partition("-")[0] in {each["id"] for each in await server.get(TOKENS)}
    await server.clock.advance(3500)
    assert (await server.call("GET", "/users/me", headers={TOKEN_HEADER: further})).status_code == 200
    await server.clock.advance(101)
    assert (await server.call("GET", "/users/me", headers={TOKEN_HEADER: further})).status_code == 401
