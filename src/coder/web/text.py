"""How values read to people. Pure."""

import re
from datetime import datetime
from typing import Any

_ESCAPES = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # titles, links, the clipboard
    r"|\x1b[P^_X][^\x1b]*(?:\x1b\\)?"  # strings to the terminal
    r"|\x1b\[[0-?]*[ -/]*[@-~]?|\x9b[0-?]*[ -/]*[@-~]?"
    r"|\x1b[ -/]*[0-~]?"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_STEPS = ((60, "second", 1), (3600, "minute", 60), (86400, "hour", 3600), (86400 * 60, "day", 86400))


def plain(line: str) -> str:
    """Return what a terminal would show of a line, without what it would do."""
    return _CONTROLS.sub("", _ESCAPES.sub("", line))


def moment(text: Any) -> datetime | None:
    """Read a time of the API; None for none."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo and found.year > 1 else None


def ago(text: Any, now: datetime) -> str:
    """Say how long ago something was, or in how long it will be, roughly."""
    found = moment(text)
    if found is None:
        return "never"
    seconds = (now - found).total_seconds()
    span = abs(seconds)
    if span < 5:
        return "just now"
    for limit, name, unit in _STEPS:
        if span < limit:
            count = int(span // unit)
            words = f"{count} {name}{'' if count == 1 else 's'}"
            return f"{words} ago" if seconds >= 0 else f"in {words}"
    return found.date().isoformat()


def minute(text: Any) -> str:
    """Write a time to the second, in UTC."""
    found = moment(text)
    return found.strftime("%Y-%m-%d %H:%M:%S") if found else ""


def milliseconds(value: Any) -> str:
    """Write a latency with as many digits as it is worth."""
    if not isinstance(value, (int, float)):
        return "unknown"
    if value < 0.1:
        return "< 0.1 ms"
    return f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"


HOUR = 3_600_000
"""Milliseconds, in which the API counts times."""


def from_hours(value: str) -> int | None:
    """Read a number of hours, nothing being 0, as milliseconds; None for what is no such number."""
    try:
        count = round(float(value.strip() or 0) * HOUR)
    except (ValueError, OverflowError):
        return None
    return count if 0 <= count < 2**53 else None


def in_hours(count: Any) -> str:
    """Write milliseconds as hours."""
    return f"{(count or 0) / HOUR:.6g}"


def span(first: Any, last: Any, now: datetime) -> str:
    """Say how long something lasted, until now when it has not ended."""
    begun, ended = moment(first), moment(last) or now
    seconds = int(max((ended - begun).total_seconds(), 0)) if begun else 0
    hours, rest = divmod(seconds, 3600)
    if hours:
        return f"{hours} h {rest // 60} min"
    return f"{rest // 60} min {rest % 60} s" if rest >= 60 else f"{rest} s"
