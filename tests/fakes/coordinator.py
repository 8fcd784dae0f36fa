"""A coordinator on a channel in memory that says what a test makes it say."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from coder.clock import FakeClock
from coder.errors import Closed, RpcUnimplemented
from coder.rpc.handlers import Context, Handler, Send, Streaming, Unary
from coder.rpc.server import serve
from coder.wire.proto import tailnet_pb2 as pb

SERVICE = "/coder.tailnet.v2.Tailnet/"


class MemoryChannel:
    """One end of a pair; what one sends the other receives, unless it gets `lost`."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.other: MemoryChannel
        self.closed = False
        self.lost = False

    async def recv(self) -> bytes | None:
        return await self.inbox.get()

    async def send(self, data: bytes) -> None:
        if self.closed or self.other.closed:
            raise Closed("the channel has ended")
        if not self.lost:
            self.other.inbox.put_nowait(data)

    async def close(self) -> None:
        self.closed = True
        self.other.inbox.put_nowait(None)


def memory_channels() -> tuple[MemoryChannel, MemoryChannel]:
    one, two = MemoryChannel(), MemoryChannel()
    one.other, two.other = two, one
    return one, two


class Coordinator:
    """Serves one connection in a task of its own."""

    def __init__(self, channel: MemoryChannel, clock: FakeClock, more: dict[str, Handler] | None = None) -> None:
        self.requests: list[pb.CoordinateRequest] = []
        self.hang_up = True
        self.token_requests = 0
        self._clock = clock
        self._say: asyncio.Queue[pb.CoordinateResponse | None] = asyncio.Queue()
        self._maps: asyncio.Queue[pb.DERPMap] = asyncio.Queue()
        self._token: asyncio.Future[pb.RefreshResumeTokenResponse] = asyncio.get_running_loop().create_future()
        handlers: dict[str, Handler] = {
            SERVICE + "Coordinate": Streaming(pb.CoordinateRequest, self._coordinate),
            SERVICE + "StreamDERPMaps": Streaming(pb.StreamDERPMapsRequest, self._derp_maps),
            SERVICE + "RefreshResumeToken": Unary(pb.RefreshResumeTokenRequest, self._refresh),
            SERVICE + "PostTelemetry": Unary(pb.TelemetryRequest, self._telemetry),
        }
        self._task = asyncio.ensure_future(serve(channel, handlers | (more or {}), clock=clock))

    def cancel(self) -> None:
        """Cut the connection."""
        self._task.cancel()

    async def say(self, response: pb.CoordinateResponse) -> None:
        self._say.put_nowait(response)
        await self._clock.advance(0)

    async def send_map(self, derp_map: pb.DERPMap) -> None:
        self._maps.put_nowait(derp_map)
        await self._clock.advance(0)

    async def end_call(self) -> None:
        self._say.put_nowait(None)
        await self._clock.advance(0)

    async def give_token(self, token: str, clock: FakeClock, *, refresh: float = 3600, expires: float = 7200) -> None:
        response = pb.RefreshResumeTokenResponse(token=token)
        response.refresh_in.FromTimedelta(timedelta(seconds=refresh))
        response.expires_at.FromDatetime(clock.now() + timedelta(seconds=expires))
        self._token.set_result(response)
        await self._clock.advance(0)

    def refuse_tokens(self) -> None:
        self._token.set_exception(RpcUnimplemented())

    async def _coordinate(self, ctx: Context, incoming: AsyncIterator[Any], send: Send) -> None:
        listening = asyncio.ensure_future(self._listen(incoming))
        while (response := await self._next(listening)) is not None:
            await send(response)
        listening.cancel()

    async def _next(self, listening: asyncio.Future[None]) -> pb.CoordinateResponse | None:
        said = asyncio.ensure_future(self._say.get())
        await asyncio.wait({said, listening}, return_when=asyncio.FIRST_COMPLETED)
        if said.done():
            return said.result()
        said.cancel()
        return None

    async def _listen(self, incoming: AsyncIterator[Any]) -> None:
        async for request in incoming:
            self.requests.append(request)
            if request.HasField("disconnect") and self.hang_up:
                return

    async def _derp_maps(self, ctx: Context, incoming: AsyncIterator[Any], send: Send) -> None:
        while True:
            await send(await self._maps.get())

    async def _refresh(self, ctx: Context, request: Any) -> pb.RefreshResumeTokenResponse:
        self.token_requests += 1
        return await asyncio.shield(self._token)

    async def _telemetry(self, ctx: Context, request: Any) -> pb.TelemetryResponse:
        return pb.TelemetryResponse()
