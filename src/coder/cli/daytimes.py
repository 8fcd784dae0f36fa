"""Times of the day as people write them, made into the lines that say when a workspace starts by itself. Pure."""

import re
from collections.abc import Sequence
from zoneinfo import ZoneInfo

from coder.errors import CoderError

_TIME = re.compile(r"(\d{1,2})(?::(\d\d))?([ap]m)?", re.IGNORECASE)
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_CRON = re.compile(r"(CRON_TZ=\S+ +)?\S+( +\S+){4}")


def line(words: Sequence[str], here: str) -> str:
    """Return the schedule's line: of itself, or of a time, days (else all) and a time zone (else `here`).

    Raises CoderError saying what is expected.
    """
    text = " ".join(" ".join(words).split())
    if _CRON.fullmatch(text):
        return text
    first, *rest = text.split()
    hour, minute = _time(first)
    days = rest.pop(0).lower() if rest and _are_days(rest[0]) else "*"
    zone = rest.pop(0) if rest else here
    if rest:
        raise _unclear(f"{rest[0]!r} is too much")
    return f"CRON_TZ={_zone(zone)} {minute} {hour} * * {_short(days)}"


def _time(word: str) -> tuple[int, int]:
    found = _TIME.fullmatch(word)
    if found is None or not (found[2] or found[3]):
        raise _unclear(f"{word!r} is no time of the day")
    hour, minute, half = int(found[1]), int(found[2] or 0), (found[3] or "").lower()
    if minute > 59 or hour > 23 or (half and not 1 <= hour <= 12):
        raise _unclear(f"there is no time of the day {word!r}")
    return (hour % 12 + 12 * (half == "pm") if half else hour), minute


def _are_days(word: str) -> bool:
    return word == "*" or all(_is_day(day) for part in word.split(",") for day in part.split("-"))


def _is_day(word: str) -> bool:
    return (word.isascii() and word.isdigit() and int(word) <= 7) or word.lower().removesuffix("day")[:3] in _DAYS


def _short(days: str) -> str:
    """Cut the days' names to three letters, as the line has them."""
    return re.sub(r"[a-z]+", lambda name: name[0][:3], days)


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise _unclear(f"{name!r} is neither days of the week nor a time zone") from None
    return name


def _unclear(what: str) -> CoderError:
    return CoderError(
        what,
        remedy="Write a time, then days and a time zone if need be, such as 9:30AM Mon-Fri Europe/Berlin;"
        " or five cron fields, such as 'CRON_TZ=Europe/Berlin 30 9 * * 1-5'.",
    )
