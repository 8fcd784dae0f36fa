"""Answers the calls that arrive over a channel. One peer's misbehaviour ends its own channel and nothing else."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Mapping

from google.protobuf.message import DecodeError, Message

from coder.clock import Clock, SystemClock
from coder.errors import CoderError, RpcError, TooMany
from coder.rpc.channel import Channel
from coder.rpc.handlers import Context, Handler, ServerStreaming, Streaming, Unary
from coder.rpc.mux import Mux, MuxStream, OnPing
from coder.wire import drpc, yamux

_MAX_WAITING = 32  # requests of one call that wait for its handler
_MAX_WAITING_BYTES = 1 << 20
_MAX_HELD = 12 << 20  # bytes of requests, complete or not, that one channel may make us hold; one has 4 MiB at most
_GRACE = 1.0  # seconds for a handler to take what came before its caller hung up
_MAX_ERROR = 500  # characters of an error's text that travel

_log = logging.getLogger(__name__)


async def serve(
    channel: Channel,
    handlers: Mapping[str, Handler],
    *,
    ping_every: float | None = None,
    on_ping: OnPing | None = None,
    clock: Clock | None = None,
    limits: yamux.Limits | None = None,
    pinger: "Pinger | None" = None,
) -> CoderError | None:
    """Answer calls until the channel ends; return the fault that ended it, None for an ordinary end.

    With `ping_every` the peer is pinged that often (seconds) beside the usual keepalive; `on_ping` is awaited with the
    round trip's seconds after each answer, and what it raises ends the channel. A `pinger` can ask for a sign of life
    meanwhile. The channel is closed at the end.
    """
    async with asyncio.TaskGroup() as tasks:
        server = _Server(handlers, tasks)
        mux = Mux(
            channel,
            client=False,
            clock=clock or SystemClock(),
            limits=limits,
            on_opened=server.opened,
            ping_every=ping_every,
            on_ping=on_ping,
        )
        server.mux = mux
        if pinger is not None:
            pinger.mux = mux
        return await mux.run()


class Pinger:
    """Asks the peer of a channel that is being served for a sign of life."""

    mux: Mux | None = None

    async def alive(self, patience: float) -> bool:
        """Say whether the peer answers within `patience` seconds; the channel of one that does not is ended.

        A channel that is only being opened counts as one that answers.
        """
        if self.mux is None:
            return True
        try:
            await self.mux.check(patience)
        except CoderError:
            return False
        return True


class _Server:
    """What the calls of one channel share."""

    mux: Mux

    def __init__(self, handlers: Mapping[str, Handler], tasks: asyncio.TaskGroup) -> None:
        self.handlers = handlers
        self._tasks = tasks
        self._held = 0

    def opened(self, stream: MuxStream) -> None:
        """Start a call for a stream; it ends with the stream."""
        self._tasks.create_task(_Call(self, stream).run())

    def hold(self, change: int) -> None:
        """Count bytes held for the peer; too many of them end the channel."""
        self._held += change
        if self._held > _MAX_HELD:
            self.mux.fail(TooMany(f"one channel made us hold more than {_MAX_HELD} bytes of requests"))


class _Call:
    """One stream: reads requests, runs the handler, writes what it says."""

    def __init__(self, server: _Server, stream: MuxStream) -> None:
        self._server = server
        self._stream = stream
        self._call = drpc.ServerCall()
        self._requests = _Requests(server, stream)
        self._partial = 0
        self._writing = asyncio.Lock()
        self._handler: asyncio.Task[None] | None = None

    async def run(self) -> None:
        try:
            await self._read()
        except CoderError as fault:
            _log.debug("rpc.call_broken", extra={"stream": self._stream.number, "fault": str(fault)})
            self._stream.reset()
        finally:
            await self._hang_up()
            self._server.hold(-self._partial)
            self._stream.finish()

    async def _read(self) -> None:
        while True:
            await self._requests.room()
            data = await self._stream.receive()
            if data is None:
                return
            for event in self._call.receive(data):
                self._take(event)
            self._server.hold(self._call.buffered - self._partial)
            self._partial = self._call.buffered

    def _take(self, event: drpc.Event) -> None:
        match event:
            case drpc.Invoked(rpc):
                self._handler = asyncio.create_task(self._handle(rpc))
            case drpc.Message(data):
                self._requests.put(data)
            case drpc.SendClosed():
                self._requests.end()
            case drpc.CallClosed() | drpc.Failed():
                self._stream.hang_up()

    async def _hang_up(self) -> None:
        """Let the handler take what came before the end, then end it."""
        self._requests.end()
        if self._handler is None:
            return
        try:
            async with asyncio.timeout(_GRACE):
                await self._requests.drained()
        except TimeoutError:
            pass
        self._handler.cancel()
        await asyncio.gather(self._handler, return_exceptions=True)
        self._requests.drop()

    # --- the handler's side

    async def _handle(self, rpc: str) -> None:
        handler = self._server.handlers.get(rpc)
        context = Context(rpc, self._stream.number)
        try:
            match handler:
                case None:
                    last = self._call.fail(drpc.UNIMPLEMENTED, "Unimplemented")
                case Unary():
                    await self._send(await handler.call(context, await self._only(handler.request)))
                    last = self._call.close_send()
                case ServerStreaming():
                    await handler.call(context, await self._only(handler.request), self._send)
                    last = self._call.close()
                case Streaming():
                    await handler.call(context, self._each(handler.request), self._send)
                    last = self._call.close()
        except Exception as error:  # noqa: BLE001 - whatever a handler does, it fails this call only
            last = self._fail(rpc, error)
        self._requests.drop()
        with contextlib.suppress(CoderError):  # the caller has gone
            await self._stream.send(last)

    def _fail(self, rpc: str, error: Exception) -> bytes:
        if isinstance(error, RpcError):
            return self._call.fail(error.code, error.text[:_MAX_ERROR])
        if isinstance(error, CoderError):
            _log.debug("rpc.refused", extra={"rpc": rpc, "error": str(error)})
            return self._call.fail(0, str(error)[:_MAX_ERROR])
        _log.error("rpc.handler_failed", extra={"rpc": rpc}, exc_info=error)
        return self._call.fail(0, "internal error")

    async def _send(self, message: Message) -> None:
        async with self._writing:  # a handler may send from several tasks
            await self._stream.send(self._call.send(message.SerializeToString()))

    async def _only(self, kind: type[Message]) -> Message:
        async for request in self._each(kind):
            return request
        raise RpcError("the call ended without a request")

    async def _each(self, kind: type[Message]) -> AsyncIterator[Message]:
        while (data := await self._requests.next()) is not None:
            try:
                request = kind.FromString(data)
            except DecodeError:
                raise RpcError(f"the request is no {kind.DESCRIPTOR.full_name}") from None
            yield request


class _Requests:
    """The requests of one call between the task that reads the stream and the handler."""

    def __init__(self, server: _Server, stream: MuxStream) -> None:
        self._server = server
        self._stream = stream
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._dropped = False
        self._arrived = asyncio.Event()
        self._drained = asyncio.Event()

    def put(self, data: bytes) -> None:
        if self._ended or self._dropped:
            return
        self._waiting.append(data)
        self._drained.clear()
        self._count(len(data))
        self._arrived.set()

    def end(self) -> None:
        self._ended = True
        self._arrived.set()

    def drop(self) -> None:
        """Forget everything: the handler takes no more."""
        self._dropped = True
        self._waiting.clear()
        self._count(-self._size)
        self._drained.set()
        self._stream.poke()

    async def room(self) -> None:
        """Wait until another request may be read, or the caller has hung up."""
        while self._full() and not self._stream.hung_up:
            await self._stream.change()

    async def drained(self) -> None:
        """Wait until the handler has taken every request."""
        if self._waiting:
            await self._drained.wait()

    async def next(self) -> bytes | None:
        while not self._waiting:
            if self._ended:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        data = self._waiting.popleft()
        self._count(-len(data))
        if not self._waiting:
            self._drained.set()
        self._stream.poke()
        return data

    def _full(self) -> bool:
        return len(self._waiting) >= _MAX_WAITING or self._size >= _MAX_WAITING_BYTES

    def _count(self, change: int) -> None:
        self._size += change
        self._server.hold(change)
