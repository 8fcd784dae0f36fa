"""Speaks to the provider of an OpenID Connect login: what it offers, its keys, and what a code is worth."""

import asyncio
import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import quote, urlencode

from coder.access.oidc import NotLetInError
from coder.errors import CoderError
from coder.outbound import Outbound

TIMEOUT: Final = 10.0
"""Seconds for each request to the provider."""
MOST: Final = 1 << 20
"""Bytes of an answer."""
FRESH: Final = timedelta(hours=1)
"""How long what the provider says of itself is believed."""
AGAIN: Final = timedelta(minutes=1)
"""How soon an unknown key makes its keys be fetched again."""
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures with a public key only: with a shared one, whoever can check a token could make it."""
LEEWAY: Final = 60
"""Seconds by which the clocks may differ."""


class ProviderError(CoderError):
    """The provider answers, but not as the standard says."""

    remedy = "Check --oidc-issuer-url, and what the provider has written down of this client."


@dataclass(frozen=True, slots=True)
class Client:
    """What the provider knows this deployment as."""

    issuer: str
    id: str
    secret: str = field(repr=False)
    redirect_uri: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Attempt:
    """The secrets of one login; they stay in the browser that began it."""

    state: str
    nonce: str
    verifier: str = field(repr=False)


class Provider:
    """One provider, by its issuer URL (OpenID Connect Discovery 1.0)."""

    def __init__(self, client: Client, outbound: Outbound, now: Callable[[], datetime]) -> None:
        self.client = client
        self._outbound = outbound
        self._now = now
        self._found: tuple[datetime, dict[str, Any]] | None = None
        self._keys: tuple[datetime, Any] | None = None
        self._busy = asyncio.Lock()

    async def address(self, attempt: Attempt) -> str:
        """Return where the browser goes to sign in. Raises CoderError."""
        from authlib.oauth2.rfc6749.parameters import prepare_grant_uri  # noqa: PLC0415 - most servers have no provider
        from authlib.oauth2.rfc7636 import create_s256_code_challenge  # noqa: PLC0415

        endpoint = _endpoint(await self._discovered(), "authorization_endpoint")
        return str(
            prepare_grant_uri(
                endpoint,
                client_id=self.client.id,
                response_type="code",
                redirect_uri=self.client.redirect_uri,
                scope=" ".join(self.client.scopes),
                state=attempt.state,
                nonce=attempt.nonce,
                code_challenge=create_s256_code_challenge(attempt.verifier),
                code_challenge_method="S256",
            )
        )

    async def claims(self, code: str, attempt: Attempt) -> dict[str, Any]:
        """Trade a code for the claims of its person. Raises CoderError, of which NotLetInError is about the person."""
        found = await self._discovered()
        answer = await self._trade(found, code, attempt)
        token, access = answer.get("id_token"), answer.get("access_token")
        if not isinstance(token, str) or not isinstance(access, str):
            raise ProviderError("the provider sent no identity token")
        claims = await self._verified(token, access, attempt.nonce)
        if "email" not in claims and "userinfo_endpoint" in found:
            more = await self._ask(_endpoint(found, "userinfo_endpoint"), headers={"Authorization": f"Bearer {access}"})
            if more.get("sub") != claims["sub"]:
                raise NotLetInError("The provider answered for somebody else.", remedy="Sign in again.")
            claims = more | claims
        return claims

    async def _trade(self, found: dict[str, Any], code: str, attempt: Attempt) -> dict[str, Any]:
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.client.redirect_uri,
            "code_verifier": attempt.verifier,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        ways = found.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if self.client.secret and "client_secret_basic" in ways:
            headers["Authorization"] = _basic(self.client.id, self.client.secret)
        else:
            fields |= {"client_id": self.client.id} | (
                {"client_secret": self.client.secret} if self.client.secret else {}
            )
        return await self._ask(_endpoint(found, "token_endpoint"), body=urlencode(fields).encode(), headers=headers)

    async def _verified(self, token: str, access: str, nonce: str) -> dict[str, Any]:
        from authlib.oidc.core import CodeIDToken  # noqa: PLC0415 - most servers have no provider
        from joserfc import jwt  # noqa: PLC0415
        from joserfc.errors import InvalidKeyIdError, JoseError  # noqa: PLC0415

        try:
            try:
                read = jwt.decode(token, await self._key_set(), algorithms=list(ALGORITHMS))
            except InvalidKeyIdError:
                read = jwt.decode(token, await self._key_set(renewed=True), algorithms=list(ALGORITHMS))
            options = {
                "iss": {"essential": True, "value": self.client.issuer},
                "aud": {"essential": True, "value": self.client.id},
            }
            params = {"nonce": nonce, "client_id": self.client.id, "access_token": access}
            claims = CodeIDToken(read.claims, read.header, options, params)
            claims.validate(now=int(self._now().timestamp()), leeway=LEEWAY)
        except (JoseError, ValueError, KeyError, TypeError) as fault:
            raise NotLetInError(
                f"The provider's identity token is not valid ({type(fault).__name__}).", remedy="Sign in again."
            ) from fault
        return dict(read.claims)

    async def _discovered(self) -> dict[str, Any]:
        async with self._busy:
            now = self._now()
            if self._found is None or now - self._found[0] > FRESH:
                where = self.client.issuer.rstrip("/") + "/.well-known/openid-configuration"
                found = await self._ask(where)
                if found.get("issuer") != self.client.issuer:
                    raise ProviderError(f"the provider at {self.client.issuer} calls itself {found.get('issuer')!r}")
                self._found = (now, found)
            return self._found[1]

    async def _key_set(self, *, renewed: bool = False) -> Any:
        from joserfc.jwk import KeySet  # noqa: PLC0415 - most servers have no provider

        found = await self._discovered()
        async with self._busy:
            now = self._now()
            age = FRESH if not renewed else AGAIN
            if self._keys is None or now - self._keys[0] > age:
                document = await self._ask(_endpoint(found, "jwks_uri"))
                if not isinstance(document.get("keys"), list):
                    raise ProviderError("the provider lists no keys")
                self._keys = (now, KeySet.import_key_set(document))  # type: ignore[arg-type]
            return self._keys[1]

    async def _ask(
        self, url: str, *, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        answer = await asyncio.to_thread(
            self._outbound.fetch, url, timeout=TIMEOUT, limit=MOST, link_local=False, body=body, headers=headers or {}
        )
        try:
            document = json.loads(answer)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise ProviderError(f"{url} answered with something that is no JSON object")
        return document


def _endpoint(found: dict[str, Any], name: str) -> str:
    url = found.get(name)
    if not isinstance(url, str) or not url.startswith(("https://", "http://")):
        raise ProviderError(f"the provider names no {name}")
    return url


def _basic(name: str, secret: str) -> str:
    """Encode a client's name and secret (RFC 6749, section 2.3.1: as in forms first)."""
    return "Basic " + b64encode(f"{quote(name, safe='')}:{quote(secret, safe='')}".encode()).decode()
