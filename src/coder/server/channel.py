"""A call channel over a WebSocket that a client opened to us."""

import contextlib
from typing import Final

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from coder.errors import Closed

NORMAL, GOING_AWAY, UNSUPPORTED_DATA, INTERNAL_ERROR = 1000, 1001, 1003, 1011
"""Close codes of RFC 6455, section 7.4.1."""

_MAX_REASON: Final = 123  # bytes of a close frame's text


class ServerChannel:
    """The bytes of all binary messages, in order. Their borders mean nothing."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def recv(self) -> bytes | None:
        """Return the next bytes, None at the end. A text message ends the connection with status 1003."""
        if self._websocket.client_state is WebSocketState.DISCONNECTED:
            return None
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        data = message.get("bytes")
        if data is None:
            await self.close(UNSUPPORTED_DATA)
            return None
        return bytes(data)

    async def send(self, data: bytes) -> None:
        """Send one binary message. Raises Closed."""
        await self._send({"bytes": data})

    async def send_text(self, text: str) -> None:
        """Send one text message. Raises Closed."""
        await self._send({"text": text})

    async def _send(self, message: dict[str, object]) -> None:
        try:
            await self._websocket.send({"type": "websocket.send"} | message)
        except (WebSocketDisconnect, RuntimeError):
            raise Closed("the connection has ended") from None

    async def close(self, code: int = NORMAL) -> None:
        """Close the WebSocket, unless it is closed already."""
        await close(self._websocket, code)


async def close(websocket: WebSocket, code: int, reason: str = "") -> None:
    """Close a WebSocket, unless it is closed already. Of the reason goes what a close frame can hold."""
    if WebSocketState.DISCONNECTED in {websocket.client_state, websocket.application_state}:
        return
    text = reason.encode()[:_MAX_REASON].decode(errors="ignore")
    with contextlib.suppress(WebSocketDisconnect, RuntimeError, Closed):  # the other end was faster
        await websocket.close(code, text)
