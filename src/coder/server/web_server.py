"""The web servers of the process: one for the edge to talk to, one that shows numbers."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request

from coder.errors import Unreachable

_MAX_MESSAGE = 4 * 2**20 + 64 * 1024
_SMALL_MESSAGE = 64 * 1024
_OF_LARGE_MESSAGES = ("/coordinate", "/pty", "/rpc", "/speedtest", "/tailnet")
"""How the paths end on which something large is to come; the others are for anybody, or for who only listens."""
_MOST_PARTS = 4096
"""Fragments of one message; clients that send in pieces make them of some kilobytes."""
_WEBSOCKET_PING = 15.0
_WEBSOCKET_PONG = 30.0


class _WebServer(uvicorn.Server):
    """The web server, without signal handling of its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _WebSocket(WebSocketsSansIOProtocol):
    """The web server's WebSocket: a refusal with a body is an answer too; a message has few parts, and its place."""

    def handle_connect(self, event: Request) -> None:
        """Begin a connection. What of a message has come is held until the rest comes, so nobody unknown sends much."""
        if not event.path.partition("?")[0].endswith(_OF_LARGE_MESSAGES):
            self.conn.max_message_size = _SMALL_MESSAGE
        super().handle_connect(event)

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True

    def handle_cont(self, event: Frame) -> None:
        """Take a further part of a message. Each costs memory beside its bytes, and the library counts only these."""
        if len(self.frames) >= _MOST_PARTS:
            self.frames = []
            self.conn.fail(CloseCode.POLICY_VIOLATION, "too many fragments")
            self.handle_parser_exception()
        elif event.data or event.fin:
            super().handle_cont(event)


def web_server(app: ASGIApp) -> uvicorn.Server:
    """Build the web server. Only the edge talks to it, so the forwarded headers it sets are believed."""
    return _WebServer(
        uvicorn.Config(
            app,
            http="httptools",
            ws=_WebSocket,
            ws_max_size=_MAX_MESSAGE,
            ws_ping_interval=_WEBSOCKET_PING,
            ws_ping_timeout=_WEBSOCKET_PONG,
            ws_per_message_deflate=False,
            proxy_headers=True,
            forwarded_allow_ips="*",
            server_header=False,
            access_log=False,
            log_config=None,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
    )


@asynccontextmanager
async def shown(app: ASGIApp, host: str, port: int) -> AsyncIterator[str]:
    """Serve an application for the operator while the block runs; gives its host:port. Raises Unreachable."""
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as fault:
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise Unreachable(f"cannot listen on {place}: {fault.strerror}", remedy="Choose another address.") from fault
    with listener:
        server = _WebServer(
            uvicorn.Config(
                app,
                ws="none",
                server_header=False,
                access_log=False,
                log_config=None,
                lifespan="off",
                timeout_graceful_shutdown=1,
            )
        )
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        bound = listener.getsockname()
        try:
            yield f"[{bound[0]}]:{bound[1]}" if ":" in host else f"{bound[0]}:{bound[1]}"
        finally:
            server.should_exit = True
            await serving
