"""A channel over a WebSocket (RFC 6455) that we open: binary messages without compression."""

import asyncio
import logging
import socket
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidURI,
    ProxyError,
)
from websockets.frames import Frame, Opcode
from websockets.protocol import Event
from websockets.typing import Origin

from coder.errors import Closed, Malformed, TimedOut, Unreachable, UpgradeRefused
from coder.outbound import Outbound, Proxy, failure, proxy_refused, tls_failure
from coder.rpc import racing

MAX_MESSAGE = (4 << 20) + 64 * 1024
"""Bytes of one WebSocket message: the largest call message (4 MiB) and its framing."""
_UNSUPPORTED_DATA = 1003
_CLOSE_TIMEOUT = 0.3
"""Seconds the server has to answer that we close; the connection may be dead, and another is waited for."""
_BODY = 64 * 1024
_MOST_PARTS = 4096
"""Fragments of one message."""
_SCHEMES = {"http://": "ws://", "https://": "wss://", "ws://": "ws://", "wss://": "wss://"}

# The library's debug log repeats headers, and these carry credentials.
_quiet = logging.getLogger(f"{__name__}.frames")
_quiet.setLevel(logging.INFO)


class WebSocketChannel:
    """A `Channel` over an open connection of the `websockets` library."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def recv(self) -> bytes | None:
        """Return the next binary message, None at the end. A text message makes this end close with 1003."""
        try:
            message = await self._connection.recv()
        except ConnectionClosed:
            return None
        if isinstance(message, str):
            await self._connection.close(_UNSUPPORTED_DATA)
            return None
        return message

    async def send(self, data: bytes) -> None:
        """Send one binary message. Raises `Closed`."""
        try:
            await self._connection.send(data)
        except ConnectionClosed:
            raise Closed("the connection has ended") from None

    async def close(self) -> None:
        """Close with status 1000."""
        await self._connection.close()


async def connect(
    url: str,
    headers: Mapping[str, str] | None = None,
    *,
    outbound: Outbound | None = None,
    origin: str | None = None,
    sock: socket.socket | None = None,
    timeout: float = 30.0,  # noqa: ASYNC109 - the library's own deadline for the whole opening
) -> WebSocketChannel:
    """Open a WebSocket to an `http(s)` or `ws(s)` URL.

    `sock` is a TCP connection to the server, open already; a failure closes it. `timeout` is in seconds and covers
    everything up to the server's answer. Raises `UpgradeRefused` when the server answers otherwise, `TimedOut`,
    `Unreachable`, `Malformed` for a URL that is none, and `CoderError` for files of `outbound` that cannot be used.
    """
    scheme, separator, rest = url.partition("://")
    if (target := _SCHEMES.get(f"{scheme.lower()}{separator}")) is None:
        raise Malformed("expected a URL that starts with http:// or https://", where="url")
    outbound = outbound or Outbound()
    secure = target == "wss://"
    proxy = _proxy(outbound, target + rest, secure=secure) if sock is None else None
    context = outbound.context() if secure else None
    server, made = _origin(url), _Made()
    try:
        async with asyncio.timeout(timeout):
            if proxy is None and sock is None:
                sock = await racing.connect(*_address(target + rest, secure=secure))
            place: dict[str, Any] = {} if sock is None else {"sock": sock}  # else the library finds the proxy
            connection = await _Opening(
                target + rest,
                additional_headers=headers,
                compression=None,
                max_size=MAX_MESSAGE,
                open_timeout=None,
                close_timeout=_CLOSE_TIMEOUT,
                ping_interval=None,  # the session above keeps itself alive
                origin=None if origin is None else Origin(origin),
                ssl=context,
                create_connection=cast("type[ClientConnection]", made),
                user_agent_header="coder",
                logger=_quiet,
                **place,
                **by_proxy(outbound, proxy),
            )
    except InvalidURI:
        raise Malformed("this is no URL", where="url") from None
    except InvalidStatus as refused:
        raise UpgradeRefused(refused.response.status_code, bytes(refused.response.body or b"")[:_BODY]) from None
    except TimeoutError:
        raise TimedOut("the server did not answer the request for a connection") from None
    except InvalidProxyStatus as refused:
        raise proxy_refused(proxy, str(refused.response.status_code)) from None
    except ProxyError as error:
        raise proxy_refused(proxy, str(error)) from None
    except InvalidHandshake as error:
        told = tls_failure(server, error) or tls_failure(server, made.lost)
        raise told or Unreachable(f"the server does not speak WebSocket: {error}") from None
    except OSError as error:
        or_proxy = f" (or of the proxy {proxy.address})" if proxy and proxy.secure else ""
        raise failure(server + or_proxy, proxy, error) from None
    return WebSocketChannel(connection)


def by_proxy(outbound: Outbound, proxy: Proxy | None) -> dict[str, Any]:
    """Return what the `websockets` library is to be told of a proxy; without one, that there is none."""
    if proxy is None:
        return {"proxy": None}
    return {"proxy": proxy.url()} | ({"proxy_ssl": outbound.context()} if proxy.secure else {})


class _Opening(open_websocket):
    """Follows no redirect: the headers carry credentials, which are for the server that was named alone."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Let the answer be the refusal it is."""
        return exc


class _Connection(ClientConnection):
    """Remembers how it was lost: the error of a failed opening does not tell. Bounds the parts of a message."""

    lost: Exception | None = None
    _parts = 0

    def process_event(self, event: Event) -> None:
        """Take a frame. Each part of a message costs memory beside its bytes, which are all that the library counts."""
        if isinstance(event, Frame) and event.opcode is Opcode.CONT:
            self._parts += 1
            if self._parts > _MOST_PARTS:
                self.transport.abort()
            if self._parts > _MOST_PARTS or not (event.data or event.fin):
                return
        elif isinstance(event, Frame) and event.opcode in {Opcode.BINARY, Opcode.TEXT}:
            self._parts = 0
        super().process_event(event)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the transport's last word."""
        self.lost = exc
        super().connection_lost(exc)


class _Made:
    """Makes the connection, and keeps it for those who ask why it failed."""

    def __init__(self) -> None:
        self._connection: _Connection | None = None

    def __call__(self, *arguments: Any, **options: Any) -> ClientConnection:
        self._connection = _Connection(*arguments, **options)
        return self._connection

    @property
    def lost(self) -> Exception | None:
        """The transport's last word."""
        return None if self._connection is None else self._connection.lost


def _proxy(outbound: Outbound, url: str, *, secure: bool) -> Proxy | None:
    return outbound.proxies.of("https" if secure else "http", *_address(url, secure=secure))


def _address(url: str, *, secure: bool) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise Malformed("this is no URL", where="url") from None
    if not host:
        raise Malformed("this is no URL", where="url")
    return host, port or (443 if secure else 80)


def _origin(url: str) -> str:
    """Return the URL's beginning: what follows may hold tokens."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0].rpartition('@')[2]}"
