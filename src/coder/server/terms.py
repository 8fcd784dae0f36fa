"""Searches written as `key:value key:"two words" word`. Pure."""

import re

from coder.server.problems import Problem

_TERM = re.compile(r'(?:([a-zA-Z_-]+):)?(?:"([^"]*)"|([^\s"]+))(?=\s|$)')


def read(text: str) -> list[tuple[str, str]]:
    """Split a search into pairs of key (small letters, underscores; empty for a bare word) and value.

    Raises Problem (400) when it cannot be read to its end.
    """
    found, position = [], 0
    for match in _TERM.finditer(text):
        if text[position : match.start()].strip():
            break
        position = match.end()
        key = (match[1] or "").lower().replace("-", "_")
        found.append((key, match[2] if match[2] is not None else match[3]))
    if rest := text[position:].strip():
        raise Problem(400, f"The search cannot be read from {rest[:40]!r} on.")
    return found
