"""A call channel over a WebSocket that a client opened to us."""

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from coder.errors import Closed

NORMAL, GOING_AWAY, UNSUPPORTED_DATA = 1000, 1001, 1003
"""Close codes of RFC 6455, section 7.4.1."""


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
        if DISCONNECTED in {self._websocket.client_state, self._websocket.application_state}:
            return
        try:
            await self._websocket.close(code)
        except (WebSocketDisconnect, RuntimeError):
            return  # the other end was faster


DISCONNECTED = WebSocketState.DISCONNECTED
