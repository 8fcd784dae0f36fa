"""Tickets that open one app for a minute, and codes that carry a login to the host of an app.

Both are a JWS in compact form (RFC 7515) with HMAC-SHA-512 (`HS512`, RFC 7518): header `alg` and `kid`, claims as JSON.
The edge reads tickets and only those, codes are read here. `vectors/app_tickets.json` keeps both sides together.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from coder.errors import Misuse
from coder.ids import Secret

TICKET_LIFETIME: Final = timedelta(seconds=60)
"""How long somebody who has lost the right to an app may go on using it, at most."""
CODE_LIFETIME: Final = timedelta(seconds=60)
_MAX: Final = 4096
_ALGORITHM: Final = "HS512"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What a ticket opens. Field names are the claims, beside `exp`."""

    at: str
    """Host name of the app, or its path `/@user/workspace.agent/apps/slug/`."""
    to: str
    """`[address]:port` inside the tunnel."""
    tls: bool
    """The app speaks TLS."""
    path: str
    """Path of the app's URL."""
    query: str
    """Query of the app's URL."""
    cors: bool
    """The app answers pages of other origins by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A login on its way to the host of an app; good for one use there."""

    id: str
    """Becomes the id of the app's session, so that there can be only one."""
    user: UUID
    parent: str
    """Id of the session or token it was made with."""
    host: str
    """Where it is good."""
    end: datetime
    """When the session it starts ends."""


class Signer:
    """Signs with the current key; reads what any of the keys has signed."""

    def __init__(self, keys: Mapping[str, bytes], current: str) -> None:
        self.replace(keys, current)

    def replace(self, keys: Mapping[str, bytes], current: str) -> None:
        """Take another set of keys."""
        if current not in keys:
            raise Misuse("the key that signs must be among the keys")
        self._keys, self._current = dict(keys), current

    @property
    def keys(self) -> Mapping[str, bytes]:
        """The keys by their ids: for the edge, and for nobody else."""
        return dict(self._keys)

    def __repr__(self) -> str:
        return f"Signer(current={self._current!r})"

    def ticket(self, ticket: Ticket, now: datetime) -> Secret:
        """Issue a ticket."""
        return self._sign(asdict(ticket) | {"exp": int((now + TICKET_LIFETIME).timestamp())})

    def code(self, code: Code, now: datetime) -> Secret:
        """Issue a code."""
        claims = {"jti": code.id, "sub": str(code.user), "par": code.parent, "aud": code.host}
        times = {"end": int(code.end.timestamp()), "exp": int((now + CODE_LIFETIME).timestamp())}
        return self._sign(claims | times)

    def read_code(self, text: str, host: str, now: datetime) -> Code | None:
        """Return what a code says; None unless it is ours, whole, for that host, and still good."""
        claims = self._read(text)
        if claims is None or claims.get("aud") != host or not isinstance(claims.get("exp"), int):
            return None
        if claims["exp"] <= now.timestamp():
            return None
        end = datetime.fromtimestamp(claims["end"], now.tzinfo)
        return Code(id=claims["jti"], user=UUID(claims["sub"]), parent=claims["par"], host=host, end=end)

    def _sign(self, claims: Mapping[str, Any]) -> Secret:
        signed = f"{_encode({'alg': _ALGORITHM, 'kid': self._current})}.{_encode(claims)}"
        return Secret(f"{signed}.{self._mark(self._current, signed)}")

    def _mark(self, key: str, signed: str) -> str:
        return _base64(hmac.digest(self._keys[key], signed.encode(), hashlib.sha512))

    def _read(self, text: str) -> dict[str, Any] | None:
        signed, _, mark = text.rpartition(".")
        header, _, claims = signed.partition(".")
        if len(text) > _MAX or not text.isascii():
            return None
        key = (_decode(header) or {}).get("kid")
        known = isinstance(key, str) and key in self._keys and _decode(header) == {"alg": _ALGORITHM, "kid": key}
        if not known or not hmac.compare_digest(self._mark(str(key), signed), mark):
            return None
        return _decode(claims)


def _encode(part: Mapping[str, Any]) -> str:
    return _base64(json.dumps(part, separators=(",", ":")).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> dict[str, Any] | None:
    try:
        part = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (ValueError, RecursionError, binascii.Error):
        return None
    return part if isinstance(part, dict) else None
