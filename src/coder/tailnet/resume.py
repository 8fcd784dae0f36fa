"""Resume tokens: with one a client that dials again gets its old peer id back, so its tunnels find it.

A token is a JWS in compact form (RFC 7515) with HMAC-SHA-512 (`HS512`, RFC 7518): header `alg` and `kid`, claims `sub`
(the peer id), `own` (the user it was given to) and `exp` (seconds since 1970). Only this server reads it; clients keep
it as it is.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from coder.errors import Misuse, NotSignedIn
from coder.ids import Secret

LIFETIME: Final = timedelta(hours=24)
REFRESH: Final = timedelta(hours=12)
KEY_SIZE: Final = 64
_MAX_TOKEN: Final = 1024
_ALGORITHM: Final = "HS512"


@dataclass(frozen=True, slots=True)
class ResumeToken:
    """A token for a client, and when it has to be renewed."""

    token: Secret
    refresh_in: timedelta
    expires_at: datetime


class InvalidResumeToken(NotSignedIn):
    """The token is damaged, foreign or too old. The client should dial again without it."""

    remedy = ""


class ResumeTokens:
    """Issues and reads tokens. Keys are random 64 bytes by key id; old ones stay readable while they are listed."""

    def __init__(self, keys: Mapping[str, bytes], current: str) -> None:
        self.replace(keys, current)

    def replace(self, keys: Mapping[str, bytes], current: str) -> None:
        """Take another set of keys: what `current` names signs, all of them verify."""
        if current not in keys or any(len(key) != KEY_SIZE for key in keys.values()):
            raise Misuse(f"resume tokens need keys of {KEY_SIZE} bytes and a current one among them")
        self._keys = dict(keys)
        self._current = current

    def __repr__(self) -> str:
        return f"ResumeTokens(current={self._current!r})"

    def issue(self, peer: UUID, now: datetime, owner: UUID | None = None) -> ResumeToken:
        """Make a token for a peer id, good for connections of `owner` only; `now` carries a time zone."""
        expires_at = now + LIFETIME
        header = _encode_part({"alg": _ALGORITHM, "kid": self._current})
        owned = {"own": str(owner)} if owner else {}
        claims = _encode_part({"sub": str(peer), "exp": int(expires_at.timestamp())} | owned)
        signed = f"{header}.{claims}"
        signature = _encode(self._sign(self._current, signed))
        return ResumeToken(Secret(f"{signed}.{signature}"), REFRESH, expires_at)

    def peer(self, token: str, now: datetime, owner: UUID | None = None) -> UUID | None:
        """Return the peer id that a token stands for, None for one that names no key (the peer gets a fresh id).

        Raises `InvalidResumeToken` for every other token that is not ours, not whole or not valid any more.
        """
        if len(token) > _MAX_TOKEN:
            raise InvalidResumeToken("the token is too long")
        signed, _, signature = token.rpartition(".")
        header_text, _, claims_text = signed.partition(".")
        header = _decode_part(header_text)
        key = header.get("kid")
        if key is None:
            return None
        if header.get("alg") != _ALGORITHM or not isinstance(key, str) or key not in self._keys:
            raise InvalidResumeToken("the token names an unknown key")
        if not hmac.compare_digest(self._sign(key, signed), _decode(signature)):
            raise InvalidResumeToken("the token's signature is wrong")
        claims = _decode_part(claims_text)
        if claims.get("own") != (str(owner) if owner else None):
            raise InvalidResumeToken("the token is another user's")
        return _read_claims(claims, now)

    def _sign(self, key: str, signed: str) -> bytes:
        return hmac.digest(self._keys[key], signed.encode(), hashlib.sha512)


def _read_claims(claims: dict[str, Any], now: datetime) -> UUID:
    expires, subject = claims.get("exp"), claims.get("sub")
    if not isinstance(expires, int) or not isinstance(subject, str):
        raise InvalidResumeToken("the token lacks its claims")
    if expires <= now.timestamp():
        raise InvalidResumeToken("the token has expired")
    try:
        return UUID(subject)
    except ValueError:
        raise InvalidResumeToken("the token names no peer") from None


def _encode_part(part: Mapping[str, Any]) -> str:
    return _encode(json.dumps(part, separators=(",", ":")).encode())


def _decode_part(text: str) -> dict[str, Any]:
    try:
        part = json.loads(_decode(text))
    except (ValueError, RecursionError):
        raise InvalidResumeToken("the token is damaged") from None
    if not isinstance(part, dict):
        raise InvalidResumeToken("the token is damaged")
    return part


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    """Decode base64url without padding, in its one canonical form only."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise InvalidResumeToken("the token is damaged") from None
    if _encode(data) != text:
        raise InvalidResumeToken("the token is damaged")
    return data
