"""When a session or token ends, and when using it extends it."""

from dataclasses import dataclass
from datetime import datetime, timedelta

REFRESH_EVERY = timedelta(hours=1)
"""Use of a session is written down at most this often."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The times of a session or token that decide about it."""

    expires_at: datetime
    last_used: datetime
    lifetime: timedelta
    extends: bool
    """Whether use extends it: so for logins, not for tokens."""


@dataclass(frozen=True, slots=True)
class Use:
    """What one use of a valid session changes. The caller stores it."""

    last_used: datetime
    expires_at: datetime


def is_expired(lease: Lease, now: datetime) -> bool:
    """Say whether the session has ended."""
    return lease.expires_at <= now


def use(lease: Lease, now: datetime, *, extend: bool = True) -> Use | None:
    """Return what to store for a use at `now`, or None when the last record is fresh enough.

    Without `extend` nothing is extended: the deployment lets every session end at its first expiry.
    """
    if now - lease.last_used < REFRESH_EVERY:
        return None
    expires_at = max(lease.expires_at, now + lease.lifetime) if lease.extends and extend else lease.expires_at
    return Use(last_used=now, expires_at=expires_at)
