"""How often logins may be tried: a moving window for each source address and each account."""

from collections import OrderedDict, deque
from dataclasses import dataclass

MAX_SUBJECTS = 10_000
"""Most addresses or accounts remembered; beyond that the longest unseen is forgotten, so memory stays bounded."""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `count` events within any `seconds`."""

    count: int
    seconds: float


LOGIN_PER_ADDRESS = Limit(60, 60.0)
LOGIN_PER_ACCOUNT = Limit(20, 60.0)


class MovingWindow:
    """Counts events of subjects. `now` is seconds on a monotonic clock."""

    def __init__(self, limit: Limit, *, max_subjects: int = MAX_SUBJECTS) -> None:
        self.limit = limit
        self._max_subjects = max_subjects
        self._seen: OrderedDict[str, deque[float]] = OrderedDict()

    def hit(self, subject: str, now: float) -> float:
        """Count one event. Returns 0 when it is allowed, else the seconds until the next one would be."""
        times = self._seen.setdefault(subject, deque(maxlen=self.limit.count))
        self._seen.move_to_end(subject)
        while len(self._seen) > self._max_subjects:
            self._seen.popitem(last=False)
        while times and now - times[0] >= self.limit.seconds:
            times.popleft()
        if len(times) >= self.limit.count:
            return times[0] + self.limit.seconds - now
        times.append(now)
        return 0.0


class LoginLimits:
    """Both windows of logins. A refused try is not counted, so a user who waits is let in."""

    def __init__(self, address: Limit = LOGIN_PER_ADDRESS, account: Limit = LOGIN_PER_ACCOUNT) -> None:
        self._address = MovingWindow(address)
        self._account = MovingWindow(account)

    def hit(self, address: str, account: str, now: float) -> float:
        """Count one login of `account` from `address`. Returns 0, or the seconds to wait."""
        return self._address.hit(address, now) or self._account.hit(account.casefold(), now)
