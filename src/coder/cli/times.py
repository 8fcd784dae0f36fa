"""Times as people read them."""

from datetime import UTC, datetime


def parse(text: object) -> datetime | None:
    """Read an RFC 3339 time; None for what is none, and for the zero time that stands for "never"."""
    if not isinstance(text, str) or text.startswith("0001-"):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def short(text: object) -> str:
    """Write a time as tables have it, in this machine's zone: `2030-01-31 09:30:05`; empty when there is none."""
    moment = parse(text)
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}" if moment else ""


def ago(text: object, now: datetime | None = None) -> str:
    """Say how long ago a time was: `12s ago`, `5m ago`, `3h ago`, `2d ago`; empty when there is none."""
    then = parse(text)
    if then is None:
        return ""
    seconds = max(0, int(((now or datetime.now(UTC)) - then).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit} ago"
    return f"{seconds}s ago"


def zone() -> str:
    """Name this machine's time zone, such as `Europe/Berlin`; `UTC` when it does not tell."""
    import os
    from zoneinfo import ZoneInfo

    path = os.path.realpath("/etc/localtime").partition("/zoneinfo/")[2]
    for name in (os.environ.get("TZ", "").removeprefix(":"), path.removeprefix("posix/")):
        try:
            if name and ZoneInfo(name):
                return name
        except (ValueError, OSError, KeyError):
            continue
    return "UTC"
