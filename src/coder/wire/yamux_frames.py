"""The vocabulary of yamux: frame types, flags, bounds and the events a session reports."""

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

HEADER = struct.Struct(">BBHII")
WINDOW = 256 * 1024
MAX_WINDOW = 2**32 - 1
MAX_FRAME = 64 * 1024  # payload of the Data frames we write; a peer may send up to its window


class Type(IntEnum):
    """Frame types."""

    DATA = 0
    WINDOW_UPDATE = 1
    PING = 2
    GO_AWAY = 3


class Flag(IntFlag):
    """Frame flags."""

    SYN = 1
    ACK = 2
    FIN = 4
    RST = 8


class GoAwayCode(IntEnum):
    """Why a session ends."""

    NORMAL = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2


PACE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds and times of a session; the defaults are those of the deployed peers."""

    unacknowledged: int = 256
    """Streams we may have opened that the peer has not acknowledged."""
    streams: int = 256
    """Streams the peer may have open at once; it gets RST for more."""
    pace: int = 2048
    """Streams the peer may open within `PACE_SECONDS`; one that opens and cuts off more makes work and nothing else."""
    keepalive: float | None = 30.0
    """Seconds between pings of ours; None sends none."""
    ping_timeout: float = 10.0
    """Seconds within which a ping must be answered, else the session is dead."""
    open_timeout: float = 75.0
    """Seconds within which the peer must acknowledge a stream, else the session is dead."""
    close_timeout: float = 300.0
    """Seconds after our FIN within which the peer must send its own, else the stream is reset."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The peer opened a stream; it is acknowledged already."""

    stream: int


@dataclass(frozen=True, slots=True)
class Received:
    """Bytes of a stream. Call `consumed` with their number once they are out of your buffers."""

    stream: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Finished:
    """The peer will send no more on this stream."""

    stream: int


@dataclass(frozen=True, slots=True)
class Reset:
    """The peer cut the stream off, or it did not finish it in time. The stream is gone."""

    stream: int


@dataclass(frozen=True, slots=True)
class Writable:
    """`send` takes bytes again after it took less than all."""

    stream: int


@dataclass(frozen=True, slots=True)
class Ponged:
    """A ping was answered after `rtt` seconds."""

    rtt: float


@dataclass(frozen=True, slots=True)
class GoneAway:
    """The peer takes no new streams; the code says why."""

    code: int


Event = Opened | Received | Finished | Reset | Writable | Ponged | GoneAway
