"""yamux over a channel: the loop that joins `coder.wire.yamux` to asyncio, for both ends."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from coder.clock import Clock
from coder.errors import Closed, CoderError, PeerMisbehaved, StreamReset, TimedOut
from coder.rpc.channel import Channel
from coder.wire import yamux

_ROOM = 256 * 1024  # bytes that may wait for the carrier before senders wait too; also the largest piece written
_SLICE = 4096  # bytes handled before others get a turn: up to 341 frames, each of which makes work
_IDLE = 60.0  # seconds between looks at the deadlines of a session that sends no pings
_LAST_WORDS = 1.0  # seconds for the carrier to take what is queued when the session ends

OnOpened = Callable[["MuxStream"], None]
OnPing = Callable[[float], Awaitable[None]]


class MuxStream:
    """One stream of a `Mux`. One task reads, any may write."""

    def __init__(self, mux: "Mux", number: int) -> None:
        self.number = number
        self.hung_up = False
        """Whether the peer has finished or reset the stream, or the session has ended."""
        self._mux = mux
        self._inbox: deque[bytes] = deque()
        self._error: CoderError | None = None
        self._changed = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._abandoned = False

    async def receive(self) -> bytes | None:
        """Return the next bytes, None after the peer's last. Raises `StreamReset` or `Closed` for other ends."""
        while not self._inbox:
            if self._error is not None:
                raise self._error
            if self.hung_up:
                return None
            await self.change()
        data = self._inbox.popleft()
        self._mux.consumed(self, len(data))
        return data

    async def send(self, data: bytes) -> None:
        """Send all bytes, at the pace of the peer. Raises `Closed` or `StreamReset`."""
        rest = memoryview(data)
        while rest:
            await self._mux.room()
            rest = rest[self.send_now(rest[: yamux.MAX_FRAME]) :]
            if rest:
                await self._writable.wait()

    def send_now(self, data: bytes | memoryview) -> int:
        """Queue what the peer's window takes and return its length; the rest has to go through `send`."""
        if self._error is not None:
            raise self._error
        sent = self._mux.send(self, data)
        if sent < len(data):
            self._writable.clear()
        return sent

    def finish(self) -> None:
        """Say that no more bytes follow, and drop what the peer still sends."""
        self._abandoned = True
        self._mux.finish(self)
        dropped = sum(map(len, self._inbox))
        self._inbox.clear()
        self._mux.consumed(self, dropped)

    def reset(self) -> None:
        """Cut the stream off."""
        self._mux.reset(self)

    async def change(self) -> None:
        """Wait until something arrives for the stream, it ends, or `poke` is called."""
        await self._changed.wait()
        self._changed.clear()

    def hang_up(self) -> None:
        """Treat the stream as finished by the peer: its call said so."""
        self._hang_up(None)

    def poke(self) -> None:
        """Make `change` return."""
        self._changed.set()

    def _put(self, data: bytes) -> None:
        if self._abandoned:
            self._mux.consumed(self, len(data))
            return
        self._inbox.append(data)
        self._changed.set()

    def _allow(self) -> None:
        self._writable.set()

    def _hang_up(self, error: CoderError | None) -> None:
        if not self.hung_up:
            self.hung_up, self._error = True, error
        self._changed.set()
        self._writable.set()


class Mux:
    """One end of a yamux session over a channel. `run` is its life; everything else may be called meanwhile."""

    def __init__(
        self,
        channel: Channel,
        *,
        client: bool,
        clock: Clock,
        limits: yamux.Limits | None = None,
        on_opened: OnOpened | None = None,
        ping_every: float | None = None,
        on_ping: OnPing | None = None,
    ) -> None:
        self._channel = channel
        self._clock = clock
        self._session = yamux.Session(client=client, now=clock.monotonic(), limits=limits)
        self._on_opened = on_opened
        self._ping_every = ping_every
        self._on_ping = on_ping
        self._streams: dict[int, MuxStream] = {}
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._ponged = asyncio.Event()
        self._answered = asyncio.Event()
        self._rtt = 0.0
        self._fault: CoderError | None = None
        self._ended: CoderError | None = None

    async def run(self) -> CoderError | None:
        """Carry the session until the channel ends, and return the fault that ended it, None for an ordinary end.

        Whatever the peer does, nothing but our own bugs is raised. Cancelling it ends the session and the channel.
        """
        tasks = [
            asyncio.create_task(part()) for part in (self._read, self._write, self._keep_alive, self._report_pings)
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            fault = self._fault or next((r for r in results if isinstance(r, CoderError)), None)
            self._end(fault)
            await self._say_goodbye()
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, CoderError):
                raise result
        return fault

    def open(self) -> MuxStream:
        """Open a stream. Raises `Closed` when the session has ended, `TooMany` when the peer does not keep up."""
        self.require_open()
        stream = MuxStream(self, self._session.open())
        self._streams[stream.number] = stream
        self._wake.set()
        return stream

    def require_open(self) -> None:
        """Raise `Closed` when the session has ended."""
        if self._ended is not None:
            raise self._ended

    def fail(self, fault: CoderError) -> None:
        """End the session because of a fault."""
        self._fault = self._fault or fault
        self._wake.set()

    async def check(self, patience: float) -> None:
        """Ping; without a pong within `patience` seconds the session ends. Raises `TimedOut` then, or `Closed`."""
        self.require_open()
        self._answered.clear()
        self._session.ping(self._clock.monotonic())
        self._wake.set()
        pong, over = asyncio.ensure_future(self._answered.wait()), asyncio.ensure_future(self._clock.sleep(patience))
        try:
            await asyncio.wait({pong, over}, return_when=asyncio.FIRST_COMPLETED)
            if not pong.done():
                fault = TimedOut("the other end did not answer a ping")
                self.fail(fault)
                raise fault
        finally:
            pong.cancel()
            over.cancel()

    async def room(self) -> None:
        """Wait until the carrier has taken most of what is queued."""
        while self._session.pending >= _ROOM and self._ended is None:
            self._room.clear()
            await self._room.wait()

    def send(self, stream: MuxStream, data: bytes | memoryview) -> int:
        """Queue bytes of a stream; see `yamux.Session.send`."""
        self.require_open()
        sent = self._session.send(stream.number, data)
        self._wake.set()
        return sent

    def consumed(self, stream: MuxStream, count: int) -> None:
        """Give window back to the peer."""
        if self._ended is None and stream.number in self._streams:
            self._session.consumed(stream.number, count)
            self._wake_if_pending()

    def finish(self, stream: MuxStream) -> None:
        """Finish our direction of a stream."""
        if self._ended is None:
            self._session.finish(stream.number)
            if stream.hung_up:
                self._streams.pop(stream.number, None)
            self._wake_if_pending()

    def reset(self, stream: MuxStream) -> None:
        """Cut a stream off."""
        if self._ended is None:
            self._session.reset(stream.number)
            self._streams.pop(stream.number, None)
            stream._hang_up(Closed("the stream was reset by this end"))  # noqa: SLF001 - one concept, two classes
            self._wake_if_pending()

    # --- the tasks of `run`

    async def _read(self) -> None:
        while (data := await self._channel.recv()) is not None:
            view = memoryview(data)
            for start in range(0, len(data), _SLICE):
                if start:
                    await asyncio.sleep(0)
                self._receive(view[start : start + _SLICE])
                await self.room()

    def _receive(self, data: bytes | memoryview) -> None:
        try:
            events = self._session.receive(data, self._clock.monotonic())
        finally:
            self._wake_if_pending()
        for event in events:
            self._dispatch(event)

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._fault is not None:
                return
            await self._flush()

    async def _flush(self) -> None:
        while self._session.pending:
            data = self._session.take()
            for start in range(0, len(data), _ROOM):
                await self._channel.send(data[start : start + _ROOM])
            self._room.set()

    async def _keep_alive(self) -> None:
        # Deadlines that a new stream brings are minutes long: to see them at the next wake-up is early enough.
        now = self._clock.monotonic()
        next_ping = None if self._ping_every is None else now + self._ping_every
        while True:
            due = [at for at in (self._session.deadline(), next_ping) if at is not None]
            await self._clock.sleep(min(due, default=now + _IDLE) - now)
            now = self._clock.monotonic()
            if next_ping is not None and self._ping_every is not None and now >= next_ping:
                self._session.ping(now)
                next_ping = now + self._ping_every
            for event in self._session.tick(now):
                self._dispatch(event)
            self._wake_if_pending()

    async def _report_pings(self) -> None:
        while True:
            await self._ponged.wait()
            self._ponged.clear()
            if self._on_ping is not None:
                await self._on_ping(self._rtt)

    # --- helpers

    def _dispatch(self, event: yamux.Event) -> None:
        match event:
            case yamux.Opened(number):
                self._accept(number)
            case yamux.Received(number, data):
                self._put(number, data)
            case yamux.Finished(number):
                self._hang_up(number, None)
            case yamux.Reset(number):
                self._hang_up(number, StreamReset("the other end cut the call off"))
            case yamux.Writable(number) if number in self._streams:
                self._streams[number]._allow()  # noqa: SLF001
            case yamux.Ponged(rtt):
                self._rtt = rtt
                self._ponged.set()
                self._answered.set()
            case yamux.GoneAway(code) if code != yamux.GoAwayCode.NORMAL:
                self.fail(PeerMisbehaved(f"the other end gave the session up with code {code}"))

    def _put(self, number: int, data: bytes) -> None:
        stream = self._streams.get(number)
        if stream is None:
            self._session.consumed(number, len(data))
        else:
            stream._put(data)  # noqa: SLF001

    def _accept(self, number: int) -> None:
        if self._on_opened is None:
            self._session.reset(number)
            return
        stream = self._streams[number] = MuxStream(self, number)
        self._on_opened(stream)

    def _hang_up(self, number: int, error: CoderError | None) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        if error is not None or stream._abandoned:  # noqa: SLF001
            del self._streams[number]
        stream._hang_up(error)  # noqa: SLF001

    def _wake_if_pending(self) -> None:
        if self._session.pending:
            self._wake.set()

    def _end(self, fault: CoderError | None) -> None:
        self._ended = Closed(f"the connection has ended: {fault}" if fault is not None else "the connection has ended")
        self._room.set()
        for stream in self._streams.values():
            stream._hang_up(self._ended)  # noqa: SLF001
        self._streams.clear()

    async def _say_goodbye(self) -> None:
        try:
            async with asyncio.timeout(_LAST_WORDS):
                await self._flush()
        except (TimeoutError, CoderError):
            pass  # the peer is gone or does not read: nothing more to say to it
        finally:
            await self._channel.close()
