"""What every answer carries, and what every request is rid of, before any route is looked for."""

import re
import time
from collections.abc import Callable
from uuid import uuid4

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coder import BUILD_VERSION

log = structlog.get_logger(__name__)

_SLASHES = re.compile("/{2,}")
_STARTS = ("http.response.start", "websocket.accept", "websocket.http.response.start")


Observe = Callable[[Scope, int, float], None]
"""Takes a request, and its answer's status and seconds."""


class Envelope:
    """ASGI middleware: build version, no sniffing, a request id; repeated slashes collapse to one."""

    def __init__(self, app: ASGIApp, observe: Observe | None = None) -> None:
        self._app = app
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        request_id = str(uuid4())
        scope["path"] = _SLASHES.sub("/", scope["path"])
        scope.setdefault("state", {})["request_id"] = request_id
        began, status = time.perf_counter(), 0

        async def enveloped(message: Message) -> None:
            nonlocal status
            if message["type"] in _STARTS:
                status = message.get("status", 101)
                headers = MutableHeaders(scope=message)
                headers["X-Coder-Build-Version"] = BUILD_VERSION
                headers["X-Coder-Request-Id"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, enveloped)
            except Exception:
                # The answer has gone out. Raised further, it would end the connection, under somebody's next request.
                if not status or scope["type"] != "http":
                    raise
                log.exception("request.failed", method=scope.get("method", "GET"), path=scope["path"])
            method, seconds = scope.get("method", "GET"), time.perf_counter() - began
            if self._observe and scope["type"] == "http":
                self._observe(scope, status, seconds)
            log.debug("request", method=method, path=scope["path"], status=status, ms=round(seconds * 1e3, 1))
