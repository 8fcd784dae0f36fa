"""Calls over a channel.

async with RpcClient(channel) as rpc:
    manifest = await rpc.unary("/coder.agent.v2.Agent/GetManifest", GetManifestRequest(), Manifest)
    async with rpc.stream("/coder.tailnet.v2.Tailnet/Coordinate", None, CoordinateResponse) as call:
        await call.send(CoordinateRequest(...))
        async for response in call:
            ...
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

from google.protobuf.message import DecodeError, Message

from coder.clock import Clock, SystemClock
from coder.errors import Closed, CoderError, PeerMisbehaved, RpcError, RpcUnimplemented
from coder.rpc.channel import Channel
from coder.rpc.mux import Mux, MuxStream
from coder.wire import drpc, yamux

_UNKNOWN_RPC = "protocol error: unknown rpc"  # how older servers word it, with code 0

Res = TypeVar("Res", bound=Message)


class RpcClient:
    """The calling end of a channel, which it owns: leaving the context closes it.

    Pings keep the channel honest: one every 30 s, and an end to everything when one is not answered within 10 s.
    """

    def __init__(self, channel: Channel, *, clock: Clock | None = None, limits: yamux.Limits | None = None) -> None:
        self._mux = Mux(channel, client=True, clock=clock or SystemClock(), limits=limits)
        self._task: asyncio.Task[CoderError | None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._mux.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all calls and the channel."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def check(self, patience: float) -> None:
        """Ask the other end for a sign of life: without one within `patience` seconds the channel ends.

        Raises `TimedOut` then, and `Closed` when it has ended already.
        """
        await self._mux.check(patience)

    async def wait_closed(self) -> CoderError | None:
        """Wait until the channel has ended, and return the fault that ended it, None for an ordinary end."""
        if self._task is None:
            return None
        await asyncio.wait([self._task])
        return None if self._task.cancelled() else self._task.result()

    async def unary(self, name: str, request: Message, response_type: type[Res]) -> Res:
        """Call and wait for the response; cancelling this cancels the call.

        Raises `RpcError` (`RpcUnimplemented` for a call the server does not know), `Closed` when the channel ends
        before the response, `PeerMisbehaved` when the answer is no answer.
        """
        async with self.stream(name, request, response_type) as call:
            async for response in call:
                return response
        raise Closed(f"{name} ended without a response")

    def stream(self, name: str, request: Message | None, response_type: type[Res]) -> "RpcStream[Res]":
        """Start a call with any number of responses. With a request given, it is the only one.

        Without one the call starts with the first `send` or the first response waited for. Raises `Closed` when the
        channel has ended and `TooMany` when too many calls wait for the server.
        """
        call = drpc.ClientCall()
        first = call.invoke(name)
        if request is not None:
            first += call.send(request.SerializeToString()) + call.close_send()
        stream = self._mux.open()
        if request is not None:
            first = first[stream.send_now(first) :]
        return RpcStream(stream, call, first, response_type)


class RpcStream(Generic[Res]):
    """One call with streams of messages. Iterate over it for the responses; close it, or use it as a context."""

    def __init__(self, stream: MuxStream, call: drpc.ClientCall, unsent: bytes, response_type: type[Res]) -> None:
        self._stream = stream
        self._call = call
        self._unsent = unsent
        self._type = response_type
        self._responses: deque[Res] = deque()
        self._writing = asyncio.Lock()
        self._finished = False
        self._error: RpcError | None = None
        self._broken = False  # a message went out in part

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Res:
        """Wait for the next response. Raises as `RpcClient.unary` does; the call is over then."""
        try:
            return await self._next()
        except (CoderError, StopAsyncIteration):
            self.close()
            raise

    async def send(self, message: Message) -> None:
        """Send a request, at the server's pace. Raises `Closed` when the call is over."""
        await self._write(lambda: self._call.send(message.SerializeToString()))

    async def close_send(self) -> None:
        """Say that no more requests follow."""
        await self._write(self._call.close_send)

    def close(self) -> None:
        """Give the call up or, when it is over, away. Safe to call again."""
        self._finished = True
        if self._unsent or self._broken:
            self._stream.reset()  # the server has seen nothing, or half a message: no goodbye would make sense to it
            return
        with contextlib.suppress(CoderError):  # the stream has ended from the other side: it knows
            self._stream.send_now(self._call.close())
        self._stream.finish()

    async def _next(self) -> Res:
        if self._unsent:
            await self._write(lambda: b"")
        while not self._responses:
            if self._error is not None:
                raise self._error
            if self._finished:
                raise StopAsyncIteration
            self._receive(await self._stream.receive())
        return self._responses.popleft()

    async def _write(self, make: Callable[[], bytes]) -> None:
        async with self._writing:
            if self._broken:
                raise Closed("a message was sent in part, nothing can follow it")
            data, self._unsent = self._unsent + make(), b""
            self._broken = True
            await self._stream.send(data)
            self._broken = False

    def _receive(self, data: bytes | None) -> None:
        if data is None:
            self._finished = True
            if not self._call.ended:
                raise Closed("the server ended the call without finishing it")
            return
        try:
            events = self._call.receive(data)
        except PeerMisbehaved:
            self._stream.reset()
            raise
        for event in events:
            match event:
                case drpc.Message(body):
                    self._responses.append(self._decode(body))
                case drpc.Failed(code, text):
                    self._error = _rpc_error(code, text)
                case _:
                    self._finished = True

    def _decode(self, body: bytes) -> Res:
        try:
            return self._type.FromString(body)
        except DecodeError:
            self._stream.reset()
            raise PeerMisbehaved(f"the server's answer is no {self._type.DESCRIPTOR.full_name}") from None


def _rpc_error(code: int, text: str) -> RpcError:
    if code == RpcUnimplemented.CODE or text.startswith(_UNKNOWN_RPC):
        return RpcUnimplemented(text)
    return RpcError(text, code=code)
