"""Which address a request should have come to, and what browsers are told about HTTPS."""

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coder.config import Settings

EDGE = "/-/edge/app"
"""Where the edge asks about requests for apps, whose hosts are others."""
_ALWAYS = frozenset({"/healthz", "/latency-check", EDGE})
"""Paths that are answered wherever they are asked for: probes know addresses, not names."""


class Transport:
    """ASGI middleware: sends requests on to the access URL, and says Strict-Transport-Security (RFC 6797)."""

    def __init__(self, app: ASGIApp, settings: Settings, access_url: str) -> None:
        self._app = app
        self._url = access_url
        self._parts = urlsplit(access_url)
        self._strict = settings.http.redirect_to_access_url
        tls = settings.tls
        self._secure_only = tls.enable and tls.redirect_http and self._parts.scheme == "https"
        options = "".join(f"; {option}" for option in tls.strict_transport_security_options)
        seconds = tls.strict_transport_security
        self._hsts = f"max-age={seconds}{options}" if seconds else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif self._astray(scope):
            query = scope["query_string"].decode("latin-1")
            path = scope.get("raw_path", scope["path"].encode()).decode("latin-1").lstrip("/")
            where = f"{self._url}/{path}" + (f"?{query}" if query else "")
            await RedirectResponse(where, status_code=307)(scope, receive, send)
        else:
            await self._app(scope, receive, self._telling(send) if scope["scheme"] == "https" else send)

    def _astray(self, scope: Scope) -> bool:
        if scope["path"] in _ALWAYS or not (self._strict or self._secure_only):
            return False
        if self._parts.scheme == "https" and scope["scheme"] != "https":
            return True
        host = urlsplit(f"//{Headers(scope=scope).get('host', '')}").hostname
        return self._strict and host != self._parts.hostname

    def _telling(self, send: Send) -> Send:
        hsts = self._hsts
        if hsts is None:
            return send

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Strict-Transport-Security"] = hsts
            await send(message)

        return telling
