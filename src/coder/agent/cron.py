"""Schedules of crontab(5): five fields, or six with seconds first; a leading CRON_TZ=zone. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from coder.errors import Malformed

_MONTHS = {
    "jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6,
    "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12,
}  # fmt: skip
_DAYS = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("second", 0, 59, {}),
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("weekday", 0, 7, _DAYS),
)
_NICKNAMES = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip
_MOST_DAYS = 366 * 8 + 1
"""Days to look ahead: a 29th of February may be eight years away."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When something is due."""

    seconds: frozenset[int]
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool
    """Whether a day of the month or of the week is enough, as when both are named."""
    zone: tzinfo | None

    def after(self, now: datetime) -> datetime | None:
        """Return the first due time after `now`; None when there is none."""
        start = (now.astimezone(self.zone) + timedelta(seconds=1)).replace(microsecond=0)
        for ahead in range(_MOST_DAYS):
            day = start.date() + timedelta(days=ahead)
            if not self._on(day.month, day.day, day.isoweekday() % 7):
                continue
            for hour in sorted(self.hours):
                for minute in sorted(self.minutes):
                    for second in sorted(self.seconds):
                        if ahead == 0 and (hour, minute, second) < (start.hour, start.minute, start.second):
                            continue
                        due = datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=self.zone)
                        if self.zone is None:
                            due = due.astimezone()
                        return due.astimezone(UTC)
        return None

    def _on(self, month: int, day: int, weekday: int) -> bool:
        of_month, of_week = day in self.days, weekday in self.weekdays
        return month in self.months and ((of_month or of_week) if self.either_day else (of_month and of_week))


def parse(text: str) -> Schedule:
    """Read a schedule. Raises Malformed, naming the field."""
    zone: tzinfo | None = None
    words = text.split()
    if words and words[0].startswith(("CRON_TZ=", "TZ=")):
        zone = _zone(words.pop(0).partition("=")[2])
    if len(words) == 1:
        words = _NICKNAMES.get(words[0].lower(), "").split()
    if len(words) == 5:
        words.insert(0, "0")
    if len(words) != 6:
        raise Malformed("a schedule has five fields, or six with seconds first", where="cron")
    seconds, minutes, hours, days, months, weekdays = (
        _numbers(word, name, low, high, names) for word, (name, low, high, names) in zip(words, _FIELDS, strict=True)
    )
    either = not words[3].startswith(("*", "?")) and not words[5].startswith(("*", "?"))
    weekdays = frozenset(day % 7 for day in weekdays)
    return Schedule(seconds, minutes, hours, days, months, weekdays, either, zone)


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        raise Malformed(f"there is no time zone {name[:64]!r}", where="cron") from None


def _numbers(text: str, name: str, low: int, high: int, names: dict[str, int]) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        try:
            if first in {"*", "?"}:
                begin, end = low, high if name != "weekday" else 6
            else:
                begin = _number(first, names)
                end = _number(last, names) if last else high if step else begin
            every = _number(step, {}) if step else 1
        except ValueError:
            raise Malformed(f"{part[:64]!r} is no {name}", where="cron") from None
        if not low <= begin <= end <= high or every < 1:
            raise Malformed(f"{part[:64]!r} is no {name}", where="cron")
        found.update(range(begin, end + 1, every))
    return frozenset(found)


def _number(text: str, names: dict[str, int]) -> int:
    known = names.get(text.lower())
    if known is not None:
        return known
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(text)
    return int(text)
