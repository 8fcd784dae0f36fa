"""How large the body of a request may be."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from coder.server.problems import too_large

MAX_BODY = 1 << 20
"""Bytes of a request's body. Agents send more, but over their socket."""

_DIGITS = len(str(MAX_BODY))


class AnnouncedLength:
    """ASGI middleware that refuses bodies whose announced length is too much, before anything is read or asked.

    Those without a length (RFC 9112, section 7.1) are counted by the web framework while they are read.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        length = Headers(scope=scope).get("content-length", "").lstrip("0") if scope["type"] == "http" else ""
        if len(length) > _DIGITS or (length.isdecimal() and int(length) > MAX_BODY):
            await too_large().response()(scope, receive, send)
        else:
            await self._app(scope, receive, send)
