"""How often the API may be asked and logins be tried, for each user, source and account. A count of 0: always."""

from collections import OrderedDict, deque
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network

MAX_SUBJECTS = 10_000
"""Most addresses or accounts remembered; beyond that the longest unseen is forgotten, so memory stays bounded."""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `count` events within any `seconds`."""

    count: int
    seconds: float


NO_LIMIT = Limit(0, 60.0)
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
        if self.limit.count <= 0:
            return 0.0
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


class Pace:
    """Lets `count` events of a subject through at once, then one more in each `seconds / count`.

    One number a subject (the time at which its allowance is whole again), so that even many of them take little memory.
    """

    def __init__(self, limit: Limit, *, max_subjects: int = MAX_SUBJECTS) -> None:
        self.limit = limit
        self._max_subjects = max_subjects
        self._whole_at: OrderedDict[str, float] = OrderedDict()

    def hit(self, subject: str, now: float) -> float:
        """Count one event. Returns 0 when it is allowed, else the seconds until the next one would be."""
        if self.limit.count <= 0:
            return 0.0
        whole_at = max(self._whole_at.get(subject, now), now) + self.limit.seconds / self.limit.count
        excess = whole_at - now - self.limit.seconds
        if excess > 1e-6:  # below that it is rounding
            return excess
        self._whole_at[subject] = whole_at
        self._whole_at.move_to_end(subject)
        while len(self._whole_at) > self._max_subjects:
            self._whole_at.popitem(last=False)
        return 0.0


def source(address: str) -> str:
    """Return what counts as one source: an IPv4 address, or an IPv6 network of 64 bits, which one host may fill."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ip_network((parsed, 64), strict=False))


class LoginLimits:
    """Both windows of logins. A refused try is not counted, so a user who waits is let in."""

    def __init__(self, address: Limit = LOGIN_PER_ADDRESS, account: Limit = LOGIN_PER_ACCOUNT) -> None:
        self._address = MovingWindow(address)
        self._account = MovingWindow(account)

    def hit(self, address: str, account: str, now: float) -> float:
        """Count one login of `account` from `address`. Returns 0, or the seconds to wait."""
        return self._address.hit(source(address), now) or self._account.hit(account.casefold(), now)
