"""Logins through a provider: the way there and back, whom they let in, and the ways to cheat."""

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from fakes.provider import CLIENT, SECRET, FakeProvider
from joserfc import jwk
from structlog.testing import capture_logs

from api.conftest import PASSWORD, TOKEN_HEADER, URL, Server
from coder.clock import FakeClock
from coder.config import DerpSettings, OidcSettings, Settings

CALLBACK = "/users/oidc/callback"
PAGE = {"Accept": "text/html"}


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    made = FakeProvider(FakeClock().now().timestamp())
    yield made
    made.close()


@pytest.fixture
def oidc(tmp_path: Path, provider: FakeProvider) -> OidcSettings:
    (tmp_path / "secret").write_text(SECRET + "\n")
    return OidcSettings(issuer_url=provider.url, client_id=CLIENT, client_secret_file=str(tmp_path / "secret"))


@pytest.fixture
def settings(tmp_path: Path, oidc: OidcSettings) -> Settings:
    return Settings(state_dir=str(tmp_path / "state"), derp=DerpSettings(stun_port=-1), oidc=oidc)


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def part(value: dict) -> str:
    return encode(json.dumps(value).encode())


async def begin(server: Server, provider: FakeProvider, **query: str) -> dict[str, str]:
    server.http.cookies.clear()
    answer = await server.call("GET", CALLBACK, params=query)
    assert answer.status_code == 303
    return provider.authorized(answer.headers["Location"])


async def sign_in(server: Server, provider: FakeProvider, *, status: int = 303, **query: str):
    asked = await begin(server, provider, **query)
    server.headers.pop(TOKEN_HEADER, None)
    answer = await server.call("GET", CALLBACK, params={"code": "c", "state": asked["state"]})
    assert answer.status_code == status, answer.text
    return answer


async def whoami(server: Server, answer) -> dict:
    token = answer.cookies["coder_session_token"]
    server.http.cookies.clear()
    return await server.get("/users/me", headers={TOKEN_HEADER: token})


async def test_a_new_person_gets_an_account_and_comes_back_to_it(server, provider):
    answer = await sign_in(server, provider, redirect="/workspaces")
    assert answer.headers["Location"] == "/workspaces"
    assert "HttpOnly" in answer.headers["Set-Cookie"]
    first = await whoami(server, answer)
    assert (first["username"], first["email"], first["login_type"]) == ("ann", "ann@example.com", "oidc")
    provider.claims = {"email": "ann@new.example.com", "preferred_username": "other"}
    assert (await whoami(server, await sign_in(server, provider)))["id"] == first["id"]


async def test_the_code_is_traded_with_what_only_this_browser_and_server_know(server, provider):
    asked = await begin(server, provider)
    assert asked["redirect_uri"] == f"{URL}/api/v2{CALLBACK}"
    assert (asked["code_challenge_method"], asked["response_type"]) == ("S256", "code")
    assert set(asked["scope"].split()) == {"openid", "profile", "email"}
    await server.call("GET", CALLBACK, params={"code": "the-code", "state": asked["state"]})
    (_path, form, headers), *_ = provider.asked
    hashed = hashlib.sha256(form["code_verifier"].encode()).digest()
    assert base64.urlsafe_b64encode(hashed).rstrip(b"=").decode() == asked["code_challenge"]
    assert (form["code"], form["grant_type"]) == ("the-code", "authorization_code")
    name_and_secret = base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode()
    assert name_and_secret == f"{CLIENT}:s3cret%2Bwith%2Fsigns"
    assert SECRET not in json.dumps(form)


async def test_where_to_go_on_to_stays_on_this_site(server, provider):
    assert (await sign_in(server, provider, redirect="https://evil.example")).headers["Location"] == "/"
    assert (await sign_in(server, provider, redirect="//evil.example")).headers["Location"] == "/"


async def test_a_code_that_another_browser_began_opens_nothing(server, provider):
    asked = await begin(server, provider)
    server.http.cookies.clear()
    answer = await server.call("GET", CALLBACK, params={"code": "c", "state": asked["state"]})
    assert answer.status_code == 400
    await begin(server, provider)
    answer = await server.call("GET", CALLBACK, params={"code": "c", "state": asked["state"]}, headers=PAGE)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/login?done=oidc-state")
    assert provider.asked == []


async def test_an_account_with_a_password_is_not_taken_over_by_its_address(server, provider):
    await server.member("ann")
    assert "opened in another way" in (await sign_in(server, provider, status=403)).json()["message"]


async def test_an_account_made_for_it_is_linked_once(server, provider):
    new = {"email": "ann@example.com", "username": "annie", "login_type": "oidc"}
    assert (await server.call("POST", "/users", json=new)).status_code == 201
    assert (await whoami(server, await sign_in(server, provider)))["username"] == "annie"
    provider.claims = {"sub": "somebody-else"}
    await sign_in(server, provider, status=403)


async def test_no_password_opens_such_an_account(server, provider):
    await sign_in(server, provider)
    server.http.cookies.clear()
    for password in ("", PASSWORD):
        answer = await server.call("POST", "/users/login", json={"email": "ann@example.com", "password": password})
        assert answer.status_code == 401


async def test_a_suspended_person_stays_out(server, provider):
    owner = dict(server.headers)
    await sign_in(server, provider)
    server.http.cookies.clear()
    server.headers.update(owner)
    assert (await server.call("PUT", "/users/ann/status/suspend")).status_code == 200
    with capture_logs() as lines:
        assert "suspended" in (await sign_in(server, provider, status=403)).json()["message"]
    assert [line["who"] for line in lines if line["event"] == "oidc.not_let_in"] == ["ann@example.com"]


async def test_a_name_that_is_taken_gets_a_number(server, provider):
    await server.member("ann")
    provider.claims = {"email": "ann@elsewhere.example"}
    assert (await whoami(server, await sign_in(server, provider)))["username"] == "ann-2"


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "another-client"},
        {"aud": [CLIENT, "another"], "azp": "another"},
        {"iss": "https://evil.example"},
        {"exp": 1},
        {"exp": None},
        {"exp": "soon"},
        {"sub": None},
        {"email_verified": "true"},
        {"email_verified": None},
    ],
    ids=str,
)
async def test_a_token_that_proves_nothing_opens_nothing(server, provider, claims):
    provider.claims = claims
    await sign_in(server, provider, status=403)
    server.http.cookies.clear()
    await server.sign_in()
    assert (await server.get("/users"))["count"] == 1


async def test_a_token_without_a_signature_opens_nothing(server, provider):
    asked = await begin(server, provider)
    claims = {"iss": provider.url, "aud": CLIENT, "sub": "s-1", "iat": 1, "exp": 2**40, "nonce": asked["nonce"]}
    provider.token = f"{part({'alg': 'none'})}.{part(claims)}."
    assert (await server.call("GET", CALLBACK, params={"code": "c", "state": asked["state"]})).status_code == 403


async def test_a_token_signed_with_the_published_key_as_a_shared_secret_opens_nothing(server, provider):
    published = json.dumps(provider.key.as_dict(private=False)).encode()
    provider.header = {"alg": "HS256", "kid": "one"}
    provider.signing_key = jwk.OctKey.import_key(published)
    await sign_in(server, provider, status=403)


async def test_a_token_of_another_key_opens_nothing_even_under_a_known_name(server, provider):
    provider.signing_key = jwk.ECKey.generate_key("P-256", {"kid": "one"})
    await sign_in(server, provider, status=403)


async def test_a_token_with_a_demand_nobody_knows_opens_nothing(server, provider):
    asked = await begin(server, provider)
    claims = {"iss": provider.url, "aud": CLIENT, "sub": "s-1", "iat": int(provider.now), "nonce": asked["nonce"]}
    header = {"alg": "ES256", "kid": "one", "crit": ["bork"], "bork": True}
    signed = f"{part(header)}.{part(claims | {'exp': int(provider.now) + 300})}"
    r, s = decode_dss_signature(provider.key.private_key.sign(signed.encode(), ECDSA(SHA256())))
    provider.token = f"{signed}.{encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"
    answer = await server.call("GET", CALLBACK, params={"code": "c", "state": asked["state"]})
    assert answer.status_code == 403, answer.text


async def test_new_keys_of_the_provider_are_found(server, provider):
    await sign_in(server, provider)
    await server.clock.advance(120)
    provider.now += 120
    provider.key = jwk.ECKey.generate_key("P-256", {"kid": "two"})
    provider.header = {"alg": "ES256", "kid": "two"}
    await sign_in(server, provider)


async def test_an_address_that_only_the_userinfo_tells_counts_for_the_same_subject(server, provider):
    provider.claims = {"email": None, "email_verified": None}
    provider.userinfo = {"sub": "another", "email": "ann@example.com", "email_verified": True}
    await sign_in(server, provider, status=403)
    provider.userinfo["sub"] = "s-1"
    assert (await whoami(server, await sign_in(server, provider)))["email"] == "ann@example.com"


async def test_a_provider_that_calls_itself_otherwise_is_not_used(server, provider):
    provider.issuer_said = "https://evil.example"
    answer = await server.call("GET", CALLBACK)
    assert answer.status_code == 502
    assert "--oidc-issuer-url" not in answer.text


async def test_a_provider_that_is_away_is_told(server, provider):
    provider.close()
    server.http.cookies.clear()
    answer = await server.call("GET", CALLBACK, headers=PAGE)
    assert answer.headers["Location"] == "/login?done=oidc-provider"


async def test_a_provider_that_refuses_is_told_without_its_words(server, provider):
    asked = await begin(server, provider)
    query = {"error": "access_denied", "error_description": "<b>hi</b>", "state": asked["state"]}
    answer = await server.call("GET", CALLBACK, params=query, headers=PAGE)
    assert answer.headers["Location"] == "/login?done=oidc-refused"


async def test_such_a_session_is_not_extended_by_use(server, provider):
    token = (await sign_in(server, provider)).cookies["coder_session_token"]
    server.http.cookies.clear()
    server.headers[TOKEN_HEADER] = token
    await server.clock.advance(23 * 3600)
    await server.get("/users/me")
    await server.clock.advance(2 * 3600)
    assert (await server.call("GET", "/users/me")).status_code == 401


async def test_the_login_stands_in_the_audit_log(server, provider):
    await sign_in(server, provider)
    server.http.cookies.clear()
    await server.sign_in()
    logged = (await server.get("/audit", params={"q": "action:login"}))["audit_logs"]
    assert any(entry["user"]["username"] == "ann" for entry in logged if entry["user"])


class TestWithoutSignUps:
    @pytest.fixture
    def oidc(self, oidc: OidcSettings) -> OidcSettings:
        return replace(oidc, allow_signups=False, email_domain=("example.com",))

    async def test_nobody_new_comes_in(self, server, provider):
        assert "no account" in (await sign_in(server, provider, status=403)).json()["message"]

    async def test_who_was_made_an_account_does(self, server, provider):
        new = {"email": "ann@example.com", "username": "annie", "login_type": "oidc"}
        assert (await server.call("POST", "/users", json=new)).status_code == 201
        await sign_in(server, provider)

    async def test_another_domain_does_not(self, server, provider):
        provider.claims = {"email": "ann@evilexample.com"}
        assert "evilexample.com" in (await sign_in(server, provider, status=403)).json()["message"]


async def test_the_methods_are_told(server):
    assert (await server.get("/users/authmethods"))["oidc"]["enabled"] is True
