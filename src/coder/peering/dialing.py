"""Opening the coordination channel, and which refusals are final."""

import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from coder.errors import CoderError, UpgradeRefused
from coder.ids import Secret
from coder.outbound import Outbound
from coder.rpc.channel import Channel
from coder.rpc.websocket import connect

Dial = Callable[[str | None], Awaitable[Channel]]
"""Opens the channel, presenting a resume token when one is given."""

TOKEN_HEADER = "Coder-Session-Token"  # noqa: S105 - a header's name


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSocketDial:
    """A `Dial` to a path of the server, as the owner of a token."""

    url: str
    path: str
    version: str
    """Version of the calls we are going to make; the server refuses what is newer than itself."""
    token: Secret
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    outbound: Outbound = field(default_factory=Outbound)

    async def __call__(self, resume: str | None) -> Channel:
        """Open the channel. Raises what `rpc.websocket.connect` does."""
        return await self._open(resume, None)

    async def over(self, sock: socket.socket) -> Channel:
        """Open the channel over a TCP connection to the server, which is the channel's then. Raises as a call does."""
        return await self._open(None, sock)

    async def _open(self, resume: str | None, sock: socket.socket | None) -> Channel:
        query = {"version": self.version} | ({"resume_token": resume} if resume else {})
        return await connect(
            f"{self.url}{self.path}?{urlencode(query)}",
            {**self.headers, TOKEN_HEADER: self.token.reveal()},
            outbound=self.outbound,
            sock=sock,
        )


FINAL = frozenset({400, 401, 403, 404, 409, 500})
"""Statuses of a first answer that trying again will not change. Later, all is retried: the server may be restarting."""


def is_permanent(error: CoderError) -> bool:
    """Whether a first dial that failed like this is not worth repeating."""
    return isinstance(error, UpgradeRefused) and error.http_status in FINAL and not refuses_resume_token(error)


def takes_right_away(error: CoderError) -> bool:
    """Whether the server says, in its own words, that somebody it had let in may not be there now."""
    return (
        isinstance(error, UpgradeRefused)
        and error.http_status in {401, 403, 404}
        and not refuses_resume_token(error)
        and bool(answer(error).get("message"))  # what stands in front of a server that restarts has other words
    )


def refuses_resume_token(error: CoderError) -> bool:
    """Whether the server took everything but the resume token, so that dialling without it may do."""
    if not isinstance(error, UpgradeRefused) or error.http_status != 401:
        return False
    fields = answer(error).get("validations")
    return isinstance(fields, list) and any(
        isinstance(one, Mapping) and one.get("field") == "resume_token" for one in fields
    )


def answer(error: UpgradeRefused) -> dict[str, Any]:
    """Return the JSON object the server refused with; {} when it sent none."""
    try:
        value = json.loads(error.body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def reason(error: CoderError) -> str:
    """Say why the server refused, in its own words where it gave any."""
    if not isinstance(error, UpgradeRefused):
        return str(error)
    body = answer(error)
    said = ": ".join(str(body[key]).rstrip(".") for key in ("message", "detail") if body.get(key))
    return f"the server answered {error.http_status}" + (f": {' '.join(said.split())[:300]}" if said else "")
