"""What a terminal has printed, as far as it is kept: one buffer from which every viewer reads at its own pace. Pure."""

import re
from typing import Final

KEPT: Final = 256 << 10
"""Bytes of a terminal's output that are kept for whoever attaches later or reads slowly."""

RESET: Final = b"\x1bc"
"""ECMA-48 RIS: what a viewer gets before output that does not follow what it has."""

_QUERIES: Final = re.compile(
    rb"\x1b\[[?>=]?[0-9;]*[cnx]"  # device attributes and status
    rb"|\x1b\[[?]?[0-9;]*\$p"  # modes
    rb"|\x1b\[(?:1[134589]|2[01])(?:;[0-9]*)?t|\x1b\[>[0-9]*q"  # the window; the terminal's name
    rb"|\x1b\][0-9]+;(?:[0-9a-z]*;)?\?(?:\x07|\x1b\\)"  # colours and the clipboard
    rb"|\x1bP[+$]q[^\x1b]*\x1b\\"  # capabilities and settings
    rb"|\x05"
)
"""Questions to the terminal. Asked again by a replay, they would be answered into a program that did not ask."""


class Output:
    """A terminal's output by offsets: `start` is the first byte still here, `end` the next one to come."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._buffer = bytearray()
        self.start = 0

    @property
    def end(self) -> int:
        """The offset after the last byte."""
        return self.start + len(self._buffer)

    def add(self, data: bytes) -> None:
        """Take what was printed; the oldest goes."""
        self._buffer += data
        if len(self._buffer) > 2 * self._kept:  # seldom, so that moving the rest costs little for each byte
            gone = len(self._buffer) - self._kept
            del self._buffer[:gone]
            self.start += gone

    def read(self, offset: int, most: int) -> bytes:
        """Return what comes from an offset on."""
        at = offset - self.start
        return bytes(memoryview(self._buffer)[at : at + most])

    def replay(self) -> bytes:
        """Return what a viewer needs that has nothing yet: whole lines where there are any, without questions."""
        first = max(len(self._buffer) - self._kept, 0)
        if self.start or first:
            line = self._buffer.find(b"\n", first, first + 4096)
            first = line + 1 if line >= 0 else first
        return _QUERIES.sub(b"", bytes(memoryview(self._buffer)[first:]))
