"""When workspaces start and stop by themselves. Pure.

A schedule is a line such as `CRON_TZ=Europe/Berlin 30 9 * * 1-5`: minute, hour, and days of the week.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from coder.errors import Malformed

SHORTEST_TTL_MS, LONGEST_TTL_MS = 60_000, 30 * 86_400_000
"""Bounds of the time that an idle workspace is left running."""
_LINE = re.compile(r"(?:CRON_TZ=(\S{1,64}) +)?(\d{1,2}) +(\d{1,2}) +\* +\* +(\S{1,64})")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


@dataclass(frozen=True, slots=True)
class Schedule:
    """A time of the day on some days of the week, in a time zone."""

    zone: ZoneInfo
    hour: int
    minute: int
    days: frozenset[int]
    """0 is Sunday."""

    @classmethod
    def parse(cls, line: str) -> "Schedule":
        """Read a line. Raises Malformed."""
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise Malformed("expected a schedule such as 'CRON_TZ=Europe/Berlin 30 9 * * 1-5'")
        minute, hour = int(found[2]), int(found[3])
        if minute > 59 or hour > 23:
            raise Malformed("there is no such time of the day in the schedule")
        return cls(_zone(found[1] or "UTC"), hour, minute, _days(found[4]))

    def after(self, moment: datetime) -> datetime:
        """Return the first time after that moment."""
        local = moment.astimezone(self.zone)
        for ahead in range(9):
            day = (local + timedelta(days=ahead)).date()
            due = datetime(day.year, day.month, day.day, self.hour, self.minute, tzinfo=self.zone)
            if day.isoweekday() % 7 in self.days and due.timestamp() > moment.timestamp():
                return due.astimezone(moment.tzinfo)
        raise AssertionError("a week has all its days")


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        raise Malformed(f"there is no time zone {name[:64]!r}") from None


def _days(text: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.lower().split(","):
        first, dash, last = part.partition("-")
        if part == "*":
            days |= set(range(7))
        elif dash:
            low, high = _day(first), _day(last)
            days |= {day % 7 for day in range(low, (high if high >= low else high + 7) + 1)}
        else:
            days.add(_day(first) % 7)
    if not days:
        raise Malformed("the schedule has no day")
    return frozenset(days)


def _day(text: str) -> int:
    if text in _DAYS:
        return _DAYS.index(text)
    if text.isascii() and text.isdigit() and int(text) <= 7:
        return int(text)
    raise Malformed(f"there is no day of the week {text[:16]!r}")


def ttl_problem(milliseconds: int) -> str | None:
    """Say what is wrong with a time until an idle workspace is stopped, or None. 0: never."""
    if milliseconds and not SHORTEST_TTL_MS <= milliseconds <= LONGEST_TTL_MS:
        return "Expected a time from one minute to 30 days, or none."
    return None
