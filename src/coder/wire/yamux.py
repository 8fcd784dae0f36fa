"""yamux: many ordered byte streams over one, sans-IO, for both ends (hashicorp/yamux spec, version 0).

    session = Session(client=True, now=clock.monotonic())
    stream = session.open()                       # queues the frame that opens it
    sent = session.send(stream, data)             # as much as the peer's window takes; the rest after `Writable`
    for event in session.receive(bytes_in, now):  # Opened, Received, Finished, Reset, Writable, Ponged, GoneAway
        ...
    carrier.write(session.take())                 # after every call: what has to go out
    session.tick(now)                             # not later than session.deadline()

A frame has 12 bytes of header (version, type, flags u16, stream u32, length u32, big-endian) and, for Data, `length`
bytes of payload. Each direction of a stream has a window of 256 KiB; the receiver hands space back once half of it is
free. Everything wrong that a peer can do raises `PeerMisbehaved` and queues a GoAway; the session is over then.
"""

from collections import deque
from dataclasses import dataclass

from coder.errors import Closed, Misuse, PeerMisbehaved, TimedOut, TooMany
from coder.wire.yamux_frames import (
    HEADER,
    MAX_FRAME,
    MAX_WINDOW,
    PACE_SECONDS,
    WINDOW,
    Event,
    Finished,
    Flag,
    GoAwayCode,
    GoneAway,
    Limits,
    Opened,
    Ponged,
    Received,
    Reset,
    Type,
    Writable,
)

__all__ = [
    "MAX_FRAME",
    "WINDOW",
    "Event",
    "Finished",
    "Flag",
    "GoAwayCode",
    "GoneAway",
    "Limits",
    "Opened",
    "Ponged",
    "Received",
    "Reset",
    "Session",
    "Type",
    "Writable",
]


@dataclass(slots=True)
class _Stream:
    acked: bool
    send_window: int = WINDOW
    recv_window: int = WINDOW
    buffered: int = 0  # received and not yet consumed
    blocked: bool = False  # `send` took less than all
    local_fin: bool = False
    remote_fin: bool = False
    deadline: float | None = None  # to be acknowledged, later to be finished, by the peer


class Session:
    """One end of a yamux connection. `now` is seconds on a monotonic clock."""

    def __init__(self, *, client: bool, now: float, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._client = client
        self._now = now
        self._next_id = 1 if client else 2
        self._streams: dict[int, _Stream] = {}
        self._theirs = 0
        self._pace_since = now
        self._opened = 0  # streams the peer opened since then
        self._unacknowledged = 0
        self._out: list[bytes] = []
        self._out_size = 0
        self._header = bytearray()
        self._payload: tuple[int, Flag] | None = None  # stream and flags of the Data frame being read
        self._payload_left = 0
        self._pings: dict[int, float] = {}  # opaque value to the time it was sent; in order
        self._next_ping = 0
        self._next_keepalive = now + (self.limits.keepalive or 0.0)
        self._closed: str | None = None
        self._gone_away = False

    # --- what goes out

    @property
    def pending(self) -> int:
        """Bytes that `take` would return."""
        return self._out_size

    def take(self) -> bytes:
        """Return everything that has to be sent now, whole frames only."""
        data = b"".join(self._out)
        self._out.clear()
        self._out_size = 0
        return data

    def open(self) -> int:
        """Open a stream and return its id. It can be sent on at once.

        Raises `Closed` after the session or the peer has ended, `TooMany` while too many streams are unacknowledged.
        """
        self._require_alive()
        if self._gone_away:
            raise Closed("the other end takes no new streams")
        if self._unacknowledged >= self.limits.unacknowledged:
            raise TooMany(f"{self._unacknowledged} streams wait to be acknowledged")
        if self._next_id > MAX_WINDOW:
            raise Closed("the stream ids of this session are used up")
        stream = self._next_id
        self._next_id += 2
        self._unacknowledged += 1
        self._streams[stream] = _Stream(acked=False, deadline=self._now + self.limits.open_timeout)
        self._frame(Type.WINDOW_UPDATE, Flag.SYN, stream, 0)
        return stream

    def send(self, stream: int, data: bytes | memoryview) -> int:
        """Queue as many bytes as the peer's window takes, from the start, and return their number.

        After less than all a `Writable` event follows. Raises `Closed` when the stream is gone or finished by us.
        """
        state = self._live(stream)
        if state.local_fin:
            raise Closed("this end of the stream is finished")
        view = memoryview(data)
        take = min(len(view), state.send_window)
        for start in range(0, take, MAX_FRAME):
            piece = view[start : min(start + MAX_FRAME, take)]
            self._frame(Type.DATA, Flag(0), stream, len(piece), bytes(piece))
        state.send_window -= take
        state.blocked = take < len(view)
        return take

    def finish(self, stream: int) -> None:
        """Send FIN: no more bytes from this end. Does nothing when that is so already or the stream is gone."""
        state = self._streams.get(stream)
        if state is None or state.local_fin or self._closed is not None:
            return
        state.local_fin = True
        self._frame(Type.WINDOW_UPDATE, Flag.FIN, stream, 0)
        if state.remote_fin:
            self._forget(stream)
        elif state.acked:
            state.deadline = self._now + self.limits.close_timeout

    def reset(self, stream: int) -> None:
        """Cut the stream off. Does nothing when it is gone already."""
        if stream in self._streams and self._closed is None:
            self._frame(Type.WINDOW_UPDATE, Flag.RST, stream, 0)
            self._forget(stream)

    def consumed(self, stream: int, count: int) -> None:
        """Hand `count` received bytes of window back to the peer; it hears of it once half the window is free."""
        state = self._streams.get(stream)
        if state is None or self._closed is not None:
            return
        if count > state.buffered:
            raise Misuse(f"consumed {count} bytes of stream {stream}, only {state.buffered} were received")
        state.buffered -= count
        delta = WINDOW - state.buffered - state.recv_window
        if delta >= WINDOW // 2 and not state.remote_fin:
            state.recv_window += delta
            self._frame(Type.WINDOW_UPDATE, Flag(0), stream, delta)

    def ping(self, now: float) -> None:
        """Send a ping; `Ponged` answers it."""
        self._require_alive()
        self._now = now
        opaque = self._next_ping
        self._next_ping = (self._next_ping + 1) & MAX_WINDOW
        self._pings[opaque] = now
        self._frame(Type.PING, Flag.SYN, 0, opaque)

    def go_away(self, code: GoAwayCode = GoAwayCode.NORMAL) -> None:
        """Tell the peer that this end takes no new streams."""
        self._require_alive()
        self._frame(Type.GO_AWAY, Flag(0), 0, code)

    # --- time

    def deadline(self) -> float | None:
        """Tell when `tick` has to be called next, or None for never."""
        due = [state.deadline for state in self._streams.values() if state.deadline is not None]
        if self.limits.keepalive is not None:
            due.append(self._next_keepalive)
        if self._pings:
            due.append(next(iter(self._pings.values())) + self.limits.ping_timeout)
        return None if self._closed is not None else min(due, default=None)

    def tick(self, now: float) -> list[Event]:
        """Do what is due: pings, and streams that the peer does not finish.

        Raises `TimedOut` when the peer has not answered a ping or not acknowledged a stream in time.
        """
        self._require_alive()
        self._now = now
        if self._pings and next(iter(self._pings.values())) + self.limits.ping_timeout <= now:
            self._closed = "keepalive timeout"
            raise TimedOut("the other end did not answer a ping")
        events: list[Event] = []
        for stream in [i for i, s in self._streams.items() if s.deadline is not None and s.deadline <= now]:
            if not self._streams[stream].acked:
                self._closed = "stream open timeout"
                raise TimedOut("the other end did not acknowledge a stream")
            self.reset(stream)
            events.append(Reset(stream))
        if self.limits.keepalive is not None and now >= self._next_keepalive:
            self._next_keepalive = now + self.limits.keepalive
            self.ping(now)
        return events

    # --- what comes in

    def receive(self, data: bytes | memoryview, now: float) -> list[Event]:
        """Read bytes of the carrier, however they are cut, and return what they mean.

        Raises `PeerMisbehaved` when the peer breaks the protocol; send what `take` returns (a GoAway) and hang up.
        """
        self._require_alive()
        self._now = now
        events: deque[Event] = deque()
        view = memoryview(data)
        while view:
            if self._payload is not None:
                view = self._read_payload(view, events)
                continue
            missing = HEADER.size - len(self._header)
            self._header += view[:missing]
            view = view[missing:]
            if len(self._header) == HEADER.size:
                version, kind, flags, stream, length = HEADER.unpack(self._header)
                self._header.clear()
                if version != 0:
                    self._fail(f"protocol version {version}")
                self._read_header(kind, Flag(flags), stream, length, events)
        return list(events)

    def _read_header(self, kind: int, flags: Flag, stream: int, length: int, events: deque[Event]) -> None:
        match kind:
            case Type.DATA:
                self._open_and_acknowledge(flags, stream, events)
                self._begin_payload(flags, stream, length, events)
            case Type.WINDOW_UPDATE:
                self._open_and_acknowledge(flags, stream, events)
                self._grow_window(stream, length, events)
                self._end(flags, stream, events)
            case Type.PING:
                self._read_ping(flags, length, events)
            case Type.GO_AWAY:
                self._gone_away = True
                events.append(GoneAway(length))
            case _:
                self._fail(f"frame type {kind}")

    def _open_and_acknowledge(self, flags: Flag, stream: int, events: deque[Event]) -> None:
        if Flag.SYN in flags:
            if stream == 0 or (stream % 2 == 1) == self._client:
                self._fail(f"stream {stream} is not the peer's to open")
            if stream in self._streams:
                self._fail(f"stream {stream} opened twice")
            self._keep_pace()
            if self._theirs >= self.limits.streams:
                self._frame(Type.WINDOW_UPDATE, Flag.RST, stream, 0)
                return
            self._theirs += 1
            self._streams[stream] = _Stream(acked=True)
            self._frame(Type.WINDOW_UPDATE, Flag.ACK, stream, 0)
            events.append(Opened(stream))
        state = self._streams.get(stream)
        if Flag.ACK in flags and state is not None and not state.acked:
            state.acked = True
            self._unacknowledged -= 1
            state.deadline = self._now + self.limits.close_timeout if state.local_fin else None

    def _keep_pace(self) -> None:
        if self._now - self._pace_since >= PACE_SECONDS:
            self._pace_since, self._opened = self._now, 0
        self._opened += 1
        if self._opened > self.limits.pace:
            self._fail(f"more than {self.limits.pace} streams opened in {PACE_SECONDS:.0f} s")

    def _begin_payload(self, flags: Flag, stream: int, length: int, events: deque[Event]) -> None:
        state = self._streams.get(stream)
        if state is not None:
            if state.remote_fin and length:
                self._fail(f"data on stream {stream} after its end")
            if length > state.recv_window:
                self._fail(f"{length} bytes on stream {stream}, its window has {state.recv_window}")
            state.recv_window -= length
        if length:
            self._payload, self._payload_left = (stream, flags), length
        else:
            self._end(flags, stream, events)

    def _read_payload(self, view: memoryview, events: deque[Event]) -> memoryview:
        assert self._payload is not None
        stream, flags = self._payload
        piece = view[: self._payload_left]
        self._payload_left -= len(piece)
        state = self._streams.get(stream)
        if state is not None:
            state.buffered += len(piece)
            events.append(Received(stream, bytes(piece)))
        if self._payload_left == 0:
            self._payload = None
            self._end(flags, stream, events)
        return view[len(piece) :]

    def _grow_window(self, stream: int, delta: int, events: deque[Event]) -> None:
        state = self._streams.get(stream)
        if state is None or delta == 0:
            return
        state.send_window += delta
        if state.send_window > MAX_WINDOW:
            self._fail(f"the window of stream {stream} grew beyond 32 bits")
        if state.blocked and not state.local_fin:
            state.blocked = False
            events.append(Writable(stream))

    def _end(self, flags: Flag, stream: int, events: deque[Event]) -> None:
        state = self._streams.get(stream)
        if state is None:
            return
        if Flag.RST in flags:
            self._forget(stream)
            events.append(Reset(stream))
        elif Flag.FIN in flags:
            if state.remote_fin:
                self._fail(f"stream {stream} finished twice")
            state.remote_fin = True
            events.append(Finished(stream))
            if state.local_fin:
                self._forget(stream)

    def _read_ping(self, flags: Flag, opaque: int, events: deque[Event]) -> None:
        if Flag.SYN in flags:
            self._frame(Type.PING, Flag.ACK, 0, opaque)
            return
        sent = self._pings.pop(opaque, None)
        if sent is not None:
            events.append(Ponged(self._now - sent))

    # --- helpers

    def _frame(self, kind: Type, flags: Flag, stream: int, length: int, payload: bytes = b"") -> None:
        frame = HEADER.pack(0, kind, flags, stream, length) + payload
        self._out.append(frame)
        self._out_size += len(frame)

    def _forget(self, stream: int) -> None:
        state = self._streams.pop(stream)
        if (stream % 2 == 1) != self._client:
            self._theirs -= 1
        elif not state.acked:
            self._unacknowledged -= 1

    def _live(self, stream: int) -> _Stream:
        self._require_alive()
        state = self._streams.get(stream)
        if state is None:
            raise Closed("the stream is gone")
        return state

    def _require_alive(self) -> None:
        if self._closed is not None:
            raise Closed(f"the session has ended: {self._closed}")

    def _fail(self, why: str) -> None:
        self._frame(Type.GO_AWAY, Flag(0), 0, GoAwayCode.PROTOCOL_ERROR)
        self._closed = why
        raise PeerMisbehaved(f"yamux: {why}")
