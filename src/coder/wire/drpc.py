"""dRPC: one call on one byte stream, sans-IO, for both ends (storj/drpc wire format).

A frame is a control byte (bit 0: last frame of its packet, bits 1-6: kind, bit 7: control), three LEB128 varints
(stream id, message id, length) and `length` bytes. Frames with the same ids make up a packet; message ids count up from
1 in each direction. A stream carries exactly one call here, which ends with Error, Close, or CloseSend from both ends.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from typing import Final

from coder.errors import Closed, Misuse, PeerMisbehaved

MAX_PACKET: Final = 4 << 20
SPLIT: Final = 64 * 1024  # bytes of a packet that one frame carries
UNIMPLEMENTED: Final = 12
_MAX_UINT64: Final = 2**64 - 1
_DONE: Final = 0x01
_CONTROL: Final = 0x80
_MAX_TEXT: Final = 4096  # characters of a peer's error text that are kept


class Kind(IntEnum):
    """What a packet says."""

    INVOKE = 1
    MESSAGE = 2
    ERROR = 3
    CANCEL = 4
    CLOSE = 5
    CLOSE_SEND = 6
    INVOKE_METADATA = 7


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet, reassembled. Kinds that are not in `Kind` stay numbers."""

    kind: int
    stream: int
    message: int
    data: bytes = b""
    control: bool = False


def encode(packet: Packet) -> bytes:
    """Write a packet as frames. Only Invoke, InvokeMetadata and Message are split. Raises `Misuse` above 4 MiB."""
    if len(packet.data) > MAX_PACKET:
        raise Misuse(f"a packet holds at most {MAX_PACKET} bytes, this has {len(packet.data)}")
    split = SPLIT if packet.kind in (Kind.INVOKE, Kind.INVOKE_METADATA, Kind.MESSAGE) else MAX_PACKET
    ids = _varint(packet.stream) + _varint(packet.message)
    control = packet.kind << 1 | (_CONTROL if packet.control else 0)
    frames = bytearray()
    for start in range(0, max(len(packet.data), 1), split):
        piece = packet.data[start : start + split]
        last = start + split >= len(packet.data)
        frames.append(control | (_DONE if last else 0))
        frames += ids
        frames += _varint(len(piece))
        frames += piece
    return bytes(frames)


class PacketReader:
    """Makes packets of bytes, however these are cut; holds at most a packet and a frame of 4 MiB each."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._last = (0, 0)  # ids of the newest packet seen
        self._complete = True  # and whether its last frame was
        self._kind = 0
        self._data = bytearray()

    @property
    def buffered(self) -> int:
        """Bytes held back because a packet is not complete."""
        return len(self._buffer) + len(self._data)

    def feed(self, data: bytes) -> list[Packet]:
        """Return the packets that these bytes complete. Raises `PeerMisbehaved`; the reader is unusable then."""
        self._buffer += data
        packets: list[Packet] = []
        position = 0
        while True:
            frame = self._frame(position)
            if frame is None:
                break
            packet, position = frame
            if packet is not None:
                packets.append(packet)
        del self._buffer[:position]
        return packets

    def _frame(self, position: int) -> tuple[Packet | None, int] | None:
        if position >= len(self._buffer):
            return None
        first = self._buffer[position]
        numbers: list[int] = []
        position += 1
        for _ in range(3):
            number = self._varint(position)
            if number is None:
                return None
            numbers.append(number[0])
            position = number[1]
        stream, message, length = numbers
        if length > MAX_PACKET:
            raise _misbehaved(f"a frame of {length} bytes")
        if len(self._buffer) - position < length:
            return None
        data = bytes(self._buffer[position : position + length])
        return self._add(first, stream, message, data), position + length

    def _add(self, first: int, stream: int, message: int, data: bytes) -> Packet | None:
        kind, done, control = first >> 1 & 0x3F, bool(first & _DONE), bool(first & _CONTROL)
        if control:
            return Packet(kind, stream, message, data, control=True) if done else None
        ids = (stream, message)
        if stream == 0 or message == 0:
            raise _misbehaved("an id of zero")
        if ids < self._last or (ids == self._last and self._complete):
            raise _misbehaved(f"packet {ids} after {self._last}")
        if ids != self._last:
            self._last, self._kind, self._complete = ids, kind, False
            self._data.clear()
        elif kind != self._kind:
            raise _misbehaved(f"packet {ids} changes its kind from {self._kind} to {kind}")
        if len(self._data) + len(data) > MAX_PACKET:
            raise _misbehaved(f"a packet of more than {MAX_PACKET} bytes")
        self._data += data
        if not done:
            return None
        self._complete = True
        packet = Packet(kind, stream, message, bytes(self._data))
        self._data.clear()
        return packet

    def _varint(self, position: int) -> tuple[int, int] | None:
        value = 0
        for shift in range(0, 70, 7):
            if position >= len(self._buffer):
                return None
            byte = self._buffer[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > _MAX_UINT64:
                    break
                return value, position
        raise _misbehaved("a number of more than 64 bits")


@dataclass(frozen=True, slots=True)
class Invoked:
    """The client calls this RPC."""

    rpc: str


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the other end, as protobuf bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class SendClosed:
    """The other end will send no more messages; it still takes some."""


@dataclass(frozen=True, slots=True)
class CallClosed:
    """The other end is finished with the call in both directions."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The other end ended the call with an error."""

    code: int
    text: str


Event = Invoked | Message | SendClosed | CallClosed | Failed


class _Phase(Enum):
    NEW = auto()
    OPEN = auto()
    ENDED = auto()


class _Call:
    """What both ends of a call have in common. Methods that write return the bytes to send."""

    def __init__(self) -> None:
        self._reader = PacketReader()
        self._phase = _Phase.NEW
        self._stream = 1
        self._message = 0
        self._send_closed = False
        self._received_close_send = False
        self._closed = False  # by Close, Cancel or Error of either end

    @property
    def ended(self) -> bool:
        """Whether the call is over in both directions."""
        return self._phase is _Phase.ENDED

    @property
    def buffered(self) -> int:
        """Bytes of an incomplete packet."""
        return self._reader.buffered

    def send(self, data: bytes) -> bytes:
        """Write one message. Raises `Closed` when this end may send no more, `Misuse` above 4 MiB."""
        if self._phase is not _Phase.OPEN or self._send_closed:
            raise Closed("the call takes no more messages")
        return self._packet(Kind.MESSAGE, data)

    def close_send(self) -> bytes:
        """Write that no more messages follow; nothing when that is said already."""
        if self._phase is not _Phase.OPEN or self._send_closed:
            return b""
        self._send_closed = True
        if self._received_close_send:
            self._phase = _Phase.ENDED
        return self._packet(Kind.CLOSE_SEND)

    def close(self) -> bytes:
        """Write that this end is finished with the call; nothing when either end has said so already.

        A client says it even after CloseSend from both ends.
        """
        if self._phase is _Phase.NEW or self._closed:
            return b""
        self._phase = _Phase.ENDED
        self._closed = True
        return self._packet(Kind.CLOSE)

    def receive(self, data: bytes) -> list[Event]:
        """Read bytes of the other end. What follows the end of the call is ignored.

        Raises `PeerMisbehaved` when they break the protocol; reset the stream then.
        """
        events: list[Event] = []
        for packet in self._reader.feed(data):
            if self._phase is _Phase.ENDED:
                break
            event = self._receive(packet)
            if event is not None:
                events.append(event)
        return events

    def _receive(self, packet: Packet) -> Event | None:
        if packet.control and packet.kind != Kind.CANCEL:
            return None
        match packet.kind:
            case Kind.INVOKE | Kind.INVOKE_METADATA:
                return self._invoked(packet)
            case Kind.MESSAGE:
                self._require_open(packet)
                if self._received_close_send:
                    raise _misbehaved("a message after CloseSend")
                return Message(packet.data)
            case Kind.CLOSE_SEND:
                self._require_open(packet)
                self._received_close_send = True
                if self._send_closed:
                    self._phase = _Phase.ENDED
                return SendClosed()
            case Kind.ERROR:
                self._require_open(packet)
                self._phase, self._closed = _Phase.ENDED, True
                return _read_error(packet.data)
            case Kind.CLOSE | Kind.CANCEL:
                self._require_open(packet)
                self._phase, self._closed = _Phase.ENDED, True
                return CallClosed()
            case _:
                raise _misbehaved(f"packet kind {packet.kind}")

    def _invoked(self, packet: Packet) -> Event | None:  # noqa: ARG002 - the server's end uses it
        raise _misbehaved("Invoke where none belongs")

    def _require_open(self, packet: Packet) -> None:
        if self._phase is not _Phase.OPEN:
            raise _misbehaved("a packet before Invoke")
        if packet.stream != self._stream:
            raise _misbehaved(f"a second call {packet.stream} on one stream")

    def _packet(self, kind: Kind, data: bytes = b"") -> bytes:
        self._message += 1
        return encode(Packet(kind, self._stream, self._message, data))


class ClientCall(_Call):
    """The calling end."""

    def invoke(self, rpc: str) -> bytes:
        """Write the call's name; do this first and once."""
        if self._phase is not _Phase.NEW:
            raise Closed("the call is invoked already")
        self._phase = _Phase.OPEN
        return self._packet(Kind.INVOKE, rpc.encode())


class ServerCall(_Call):
    """The answering end."""

    def fail(self, code: int, text: str) -> bytes:
        """Write that the call failed; nothing when it is over already."""
        if self._phase is not _Phase.OPEN:
            return b""
        self._phase, self._closed = _Phase.ENDED, True
        return self._packet(Kind.ERROR, code.to_bytes(8, "big") + text.encode(errors="replace"))

    def _invoked(self, packet: Packet) -> Event | None:
        if self._phase is not _Phase.NEW:
            raise _misbehaved("a second Invoke on one stream")
        self._stream = packet.stream
        if packet.kind == Kind.INVOKE_METADATA:  # tracing data of the caller: accepted, not used
            return None
        self._phase = _Phase.OPEN
        try:
            return Invoked(packet.data.decode())
        except UnicodeDecodeError:
            raise _misbehaved("an RPC name that is not UTF-8") from None


def _misbehaved(why: str) -> PeerMisbehaved:
    return PeerMisbehaved(f"drpc: {why}")


def _read_error(body: bytes) -> Failed:
    if len(body) < 8:
        raise _misbehaved(f"an error of {len(body)} bytes")
    text = body[8 : 8 + 4 * _MAX_TEXT].decode(errors="replace")
    return Failed(int.from_bytes(body[:8], "big"), text[:_MAX_TEXT])


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
