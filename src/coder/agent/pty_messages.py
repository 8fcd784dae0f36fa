"""What a client of the terminal port says: once who it is, then what is typed and how large its window is. Pure.

The first message is a length of two bytes (little-endian) and a JSON object with the field names of the protocol; all
that follows is JSON objects one after the other.
"""

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from coder.errors import PeerMisbehaved

MAX_MESSAGE: Final = 1 << 20
"""Bytes of one message: more is no keystroke, nor anything that was pasted."""
MAX_SIDE: Final = 2**16 - 1
"""Rows or columns of a window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Who wants which terminal."""

    id: UUID
    rows: int
    columns: int
    command: str = ""
    container: str = ""

    @classmethod
    def parse(cls, body: bytes) -> "Hello":
        """Read the first message without its length. Raises PeerMisbehaved."""
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            raise PeerMisbehaved("the first message is no JSON") from None
        if not isinstance(value, dict):
            raise PeerMisbehaved("the first message is no object")
        return cls(
            id=_uuid(value.get("ID")),
            rows=_side(value.get("Height")) or 24,
            columns=_side(value.get("Width")) or 80,
            command=_text(value.get("Command")),
            container=_text(value.get("Container")),
        )


@dataclass(frozen=True, slots=True)
class Typed:
    """Input for the program in the terminal."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Resized:
    """The window has another size."""

    rows: int
    columns: int


class Reader:
    """Reads the messages after the first from bytes in any pieces."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._json = json.JSONDecoder()
        self._text = ""

    def feed(self, data: bytes) -> Iterator[Typed | Resized]:
        """Yield what is complete. Raises PeerMisbehaved for what is no such message, or too long."""
        self._text += self._decoder.decode(data)
        if b"}" not in data:  # nothing can have become complete
            self._bound()
            return
        while self._text:
            self._text = self._text.lstrip(" \t\r\n")
            try:
                value, used = self._json.raw_decode(self._text)
            except json.JSONDecodeError:
                self._bound()
                if self._text[:1] not in ("{", ""):
                    raise PeerMisbehaved("the message is no JSON object") from None
                return
            except RecursionError:
                raise PeerMisbehaved("the message is nested too deeply") from None
            self._text = self._text[used:]
            yield from _meaning(value)

    def _bound(self) -> None:
        if len(self._text) > MAX_MESSAGE:
            raise PeerMisbehaved("the message is too long")


def _meaning(value: Any) -> Iterator[Typed | Resized]:
    if not isinstance(value, dict):
        raise PeerMisbehaved("the message is no JSON object")
    rows, columns = _side(value.get("height")), _side(value.get("width"))
    if rows and columns:
        yield Resized(rows, columns)
    if data := _text(value.get("data")):
        yield Typed(data.encode("utf-8", "replace"))


def _uuid(value: Any) -> UUID:
    try:
        return UUID(_text(value))
    except ValueError:
        raise PeerMisbehaved("the terminal's id is no UUID") from None


def _side(value: Any) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_SIDE:
        raise PeerMisbehaved("that is no size of a window")
    return value


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise PeerMisbehaved("text was expected")
    return value
