"""JSON with comments, read so that each value's place in the text is known.

Comments (`//`, `/* */` and `#`) and commas behind the last value are blanked out, never moved, so that lines and
columns stay those of the file. For small documents that people write; everything else uses `json`.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from coder.errors import Malformed

Path = tuple[str | int, ...]
"""Keys and indices from the top."""

_COMMENTS: Final = re.compile(r'"(?:[^"\\\n]|\\.)*"|//[^\n]*|/\*.*?\*/|\#[^\n]*', re.DOTALL)
_LAST_COMMAS: Final = re.compile(r'"(?:[^"\\\n]|\\.)*"|(?<=["\w\]}])\s*,(?=\s*[\]}])', re.DOTALL)
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_MOST_NESTED: Final = 100


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands in a text; both count from 1."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}"


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed text."""

    value: Any
    places: dict[Path, Place]
    """Of each value; of an object's member, that of its key."""
    repeated: tuple[Path, ...]
    """Members that an object has more than once; the last one counts."""


def plain(text: str) -> str:
    """Blank out what JSON does not have: comments and last commas. Everything else keeps its place."""

    def blank(match: re.Match[str]) -> str:
        found = match.group()
        return found if found.startswith('"') else re.sub(r"[^\n]", " ", found)

    return _LAST_COMMAS.sub(blank, _COMMENTS.sub(blank, text))


def parse(text: str) -> Document:
    """Read a document. Raises `Malformed` that names line and column."""
    reader = _Reader(plain(text))
    value = reader.value((), 0)
    reader.skip()
    if reader.at < len(reader.text):
        raise reader.fault("something follows the document")
    return Document(value, reader.places, tuple(reader.repeated))


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.places: dict[Path, Place] = {}
        self.repeated: list[Path] = []
        self._decoder = json.JSONDecoder(parse_constant=self._refuse)
        self._line, self._counted, self._newline = 1, 0, -1

    def _refuse(self, name: str) -> None:
        raise self.fault(f"{name} is no number of JSON")

    def place(self, at: int) -> Place:
        """Tell line and column. Cheap while `at` only grows."""
        if at < self._counted:
            self._line, self._counted, self._newline = 1, 0, -1
        if (passed := self.text.count("\n", self._counted, at)) > 0:
            self._line += passed
            self._newline = self.text.rfind("\n", self._counted, at)
        self._counted = at
        return Place(self._line, at - self._newline)

    def fault(self, message: str) -> Malformed:
        return Malformed(message, where=str(self.place(self.at)))

    def skip(self) -> None:
        if match := _SPACE.match(self.text, self.at):
            self.at = match.end()

    def take(self, expected: str) -> bool:
        self.skip()
        if not self.text.startswith(expected, self.at):
            return False
        self.at += 1
        return True

    def value(self, path: Path, depth: int) -> Any:
        self.skip()
        self.places.setdefault(path, self.place(self.at))
        if depth > _MOST_NESTED:
            raise self.fault("the document is nested too deeply")
        if self.take("{"):
            return self._object(path, depth)
        if self.take("["):
            return self._list(path, depth)
        return self._leaf()

    def _leaf(self) -> Any:
        try:
            value, self.at = self._decoder.raw_decode(self.text, self.at)
        except json.JSONDecodeError as error:
            self.at = error.pos
            raise self.fault(error.msg[:1].lower() + error.msg[1:]) from None
        except ValueError:  # a number with thousands of digits
            raise self.fault("this number is too long") from None
        return value

    def _object(self, path: Path, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not self.take("}"):
            if found and not self.take(","):
                raise self.fault("expected ',' or '}'")
            self.skip()
            start = self.at
            if not self.text.startswith('"', start):
                raise self.fault("expected a key in double quotes" if not found else "expected a key after ','")
            key = self._leaf()
            if not self.take(":"):
                raise self.fault("expected ':'")
            inner = (*path, key)
            if key in found:
                self.repeated.append(inner)
            self.places[inner] = self.place(start)
            found[key] = self.value(inner, depth + 1)
        return found

    def _list(self, path: Path, depth: int) -> list[Any]:
        found: list[Any] = []
        while not self.take("]"):
            if found and not self.take(","):
                raise self.fault("expected ',' or ']'")
            found.append(self.value((*path, len(found)), depth + 1))
        return found
