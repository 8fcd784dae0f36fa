"""Asks the API on behalf of a page's user, in the same process."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote, urlencode

from starlette.requests import Request
from starlette.types import Message

PREFIX = "/api/v2"
AUTHCHECK = "/authcheck"
"""The one route that only answers although it is posted to, so that pages may ask it whatever was sent to them."""
_PASSED_ON = frozenset({b"host", b"cookie", b"origin", b"user-agent", b"sec-fetch-site"})


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API answered."""

    status: int
    body: Any
    cookies: list[str] = field(default_factory=list, repr=False)
    """Its Set-Cookie lines."""


class Refused(Exception):  # noqa: N818  it is an answer, told to a person
    """The API's refusal, in the words it gives clients."""

    def __init__(self, status: int, body: Any, headers: Mapping[str, str]) -> None:
        body = body if isinstance(body, dict) else {}
        self.status = status
        self.message = str(body.get("message") or "The server could not answer.")
        self.detail = str(body.get("detail") or "")
        self.faults = {str(each.get("field")): str(each.get("detail")) for each in body.get("validations") or ()}
        self.retry_after = headers.get("retry-after", "")
        super().__init__(self.message)


def path(*parts: object) -> str:
    """Join the parts of a path, each quoted."""
    return "".join(f"/{quote(str(part), safe='')}" for part in parts)


async def call(
    request: Request, method: str, route: str, body: Any = None, query: Mapping[str, Any] | None = None
) -> Answer:
    """Ask one route of the API with the cookies of a page's request. Raises Refused for a status of 400 and above."""
    content = b"" if body is None else json.dumps(body).encode()
    answer = _Collected()
    await request.app(_scope(request, method, route, content, query), _sender(content), answer.take)
    parsed = answer.parsed()
    if answer.status >= 400:
        raise Refused(answer.status, parsed, answer.headers)
    return Answer(answer.status, parsed, answer.cookies)


def _scope(
    request: Request, method: str, route: str, content: bytes, query: Mapping[str, Any] | None
) -> dict[str, Any]:
    outer = request.scope
    headers = [pair for pair in outer["headers"] if pair[0] in _PASSED_ON]
    if route == AUTHCHECK:
        own: str = request.scope["coder.origin"]
        headers = [pair for pair in headers if pair[0] != b"origin"] + [(b"origin", own.encode())]
    headers += [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    raw = PREFIX + route
    return {
        "type": "http",
        "asgi": outer["asgi"],
        "http_version": "1.1",
        "method": method,
        "scheme": outer["scheme"],
        "path": unquote(raw),
        "raw_path": raw.encode("ascii"),
        "root_path": "",
        "query_string": urlencode({key: value for key, value in (query or {}).items() if value != ""}).encode(),
        "headers": headers,
        "client": outer.get("client"),
        "server": outer.get("server"),
        "state": {"request_id": outer.get("state", {}).get("request_id", "")},
    }


def _sender(content: bytes) -> Any:
    sent = False

    async def receive() -> Message:
        nonlocal sent
        if sent:
            return {"type": "http.disconnect"}
        sent = True
        return {"type": "http.request", "body": content, "more_body": False}

    return receive


class _Collected:
    """The answer as it comes in."""

    def __init__(self) -> None:
        self.status = 500
        self.headers: dict[str, str] = {}
        self.cookies: list[str] = []
        self._parts: list[bytes] = []

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            for name, value in message.get("headers", ()):
                if name.lower() == b"set-cookie":
                    self.cookies.append(value.decode("latin-1"))
                else:
                    self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")
        elif message["type"] == "http.response.body":
            self._parts.append(message.get("body", b""))

    def parsed(self) -> Any:
        text = b"".join(self._parts)
        try:
            return json.loads(text) if text else None
        except ValueError:
            return None
