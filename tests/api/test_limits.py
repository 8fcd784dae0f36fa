"""How often one may ask, and the keys of resume tokens."""

import dataclasses
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from api.conftest import PASSWORD, TOKEN_HEADER, Server
from coder.access.limits import Limit, Pace
from coder.config import HttpSettings
from coder.db import signing
from coder.server import resume_keys
from coder.server.run import assemble
from coder.tailnet.resume import LIFETIME, InvalidResumeToken

BUDGET = 12


@pytest.fixture
def limited(server: Server) -> Server:
    """Set the limit after the set-up, which asks too."""
    deployment = dataclasses.replace(server.deployment, api_limits=Pace(Limit(BUDGET, 60.0)))
    server.http._transport.app._app._app.state.deployment = deployment
    return server


async def statuses(server: Server, path: str, count: int, **headers: str) -> list[int]:
    return [(await server.call("GET", path, headers=headers)).status_code for _ in range(count)]


@pytest.mark.parametrize("path", ["/users/me", "/workspaces", "/tailnet"])
async def test_a_user_may_ask_so_often_and_again_after_a_while(limited: Server, path: str):
    allowed = await statuses(limited, path, BUDGET)
    assert 429 not in allowed
    refused = await limited.call("GET", path)
    assert refused.status_code == 429
    assert str(BUDGET) in refused.json()["message"]
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    await limited.clock.advance(int(refused.headers["Retry-After"]))
    assert (await limited.call("GET", path)).status_code == allowed[0]


async def test_users_do_not_use_up_each_others_share(server: Server, limited: Server):
    await statuses(limited, "/users/me", BUDGET)
    member_token = (await _member(limited))[TOKEN_HEADER]
    assert (await limited.call("GET", "/users/me", headers={TOKEN_HEADER: member_token})).status_code == 200


async def _member(server: Server) -> dict[str, str]:
    bypass = {"X-Coder-Bypass-Ratelimit": "true"}
    new = {"email": "bob@example.com", "username": "bob", "password": PASSWORD}
    assert (await server.call("POST", "/users", json=new, headers=bypass)).status_code == 201
    answer = await server.call("POST", "/users/login", json={"email": new["email"], "password": PASSWORD})
    server.http.cookies.clear()
    return {TOKEN_HEADER: answer.json()["session_token"]}


async def test_owners_may_pass_the_limit_and_members_may_not(limited: Server):
    member = await _member(limited)
    bypass = {"X-Coder-Bypass-Ratelimit": "true"}
    assert set(await statuses(limited, "/users/me", BUDGET + 3, **bypass)) == {200}
    assert 429 in await statuses(limited, "/users/me", BUDGET + 3, **bypass, **member)


@pytest.mark.parametrize("token", ["", "aaaaaaaaaa-bbbbbbbbbbbbbbbbbbbbbb"])
async def test_an_address_without_a_good_token_is_one_subject_whatever_it_asks(limited: Server, token: str):
    seen = []
    for number in range(BUDGET + 2):
        path = ("/buildinfo", "/users/first", "/workspaces", "/workspaceagents/me/rpc")[number % 4]
        seen.append((await limited.call("GET", path, headers={TOKEN_HEADER: token})).status_code)
    assert 429 not in seen[:BUDGET]
    assert seen[BUDGET:] == [429, 429]
    assert (await limited.call("GET", "/users/me")).status_code == 200


async def test_an_agent_has_a_share_of_its_own(limited: Server):
    workspace = await limited.workspace()
    token = {TOKEN_HEADER: workspace.agent_token}
    assert set(await statuses(limited, "/workspaceagents/me/rpc", BUDGET, **token)) == {426}
    assert (await limited.call("GET", "/workspaceagents/me/rpc", headers=token)).status_code == 429
    assert (await limited.call("GET", "/users/me")).status_code == 200


@pytest.mark.parametrize("how", [{"api_rate_limit": 0}, {"api_rate_limit": -1}, {"disable_rate_limits": True}])
async def test_limits_can_be_turned_off(server: Server, how: dict):
    old = server.deployment
    settings = dataclasses.replace(old.settings, http=HttpSettings(**how))
    unlimited = await assemble(settings, old.store, old.access_url, (), old.clock)
    assert not any(unlimited.api_limits.hit("x", 0.0) for _ in range(2000))
    logins = [unlimited.login_limits.hit("x", "y", 0.0) for _ in range(100)]
    assert any(logins) == ("disable_rate_limits" not in how)


async def test_a_resume_token_outlives_the_key_that_signed_it_as_the_newest(server: Server):
    deployment = server.deployment
    tokens, peer = deployment.resume, UUID(int=7)
    now = deployment.clock.now()
    await deployment.clock.advance((signing.RENEW_AFTER - timedelta(hours=1)).total_seconds())
    old = tokens.issue(peer, deployment.clock.now()).token.reveal()
    await deployment.clock.advance(3600)
    renewed = await resume_keys.load(deployment.store, deployment.clock)
    assert renewed.peer(old, deployment.clock.now()) == peer
    new = renewed.issue(peer, deployment.clock.now()).token.reveal()
    with pytest.raises(InvalidResumeToken):
        tokens.peer(new, deployment.clock.now())
    await deployment.clock.advance(LIFETIME.total_seconds())
    later = await resume_keys.load(deployment.store, deployment.clock)
    with pytest.raises(InvalidResumeToken, match="unknown key"):
        later.peer(old, now)
    assert later.peer(new, now) == peer


async def test_a_restarted_server_reads_the_tokens_of_all_its_keys(server: Server):
    deployment, peer = server.deployment, uuid4()
    first = deployment.resume.issue(peer, deployment.clock.now()).token.reveal()
    again = await resume_keys.load(deployment.store, deployment.clock)
    assert again.peer(first, deployment.clock.now()) == peer
