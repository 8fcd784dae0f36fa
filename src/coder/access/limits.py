"""How often the API may be asked and logins be tried, for each user, source and account. A count of 0: always."""

import hashlib
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
LOGIN_PER_ACCOUNT_AND_ADDRESS = Limit(20, 60.0)
LOGIN_PER_ACCOUNT = Limit(600, 60.0)
"""From all addresses together: so many that one who does not know the password hardly keeps out one who does."""


class MovingWindow:
    """Counts events of subjects. `now` is seconds on a monotonic clock."""

    def __init__(self, limit: Limit, *, max_subjects: int = MAX_SUBJECTS) -> None:
        self.limit = limit
        self._max_subjects = max_subjects
        self._seen: OrderedDict[bytes, deque[float]] = OrderedDict()

    def hit(self, subject: str, now: float) -> float:
        """Count one event. Returns 0 when it is allowed, else the seconds until the next one would be."""
        if self.limit.count <= 0:
            return 0.0
        key = _key(subject)
        times = self._seen.setdefault(key, deque(maxlen=self.limit.count))
        self._seen.move_to_end(key)
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
        self._whole_at: OrderedDict[bytes, float] = OrderedDict()

    def hit(self, subject: str, now: float) -> float:
        """Count one event. Returns 0 when it is allowed, else the seconds until the next one would be."""
        if self.limit.count <= 0:
            return 0.0
        key = _key(subject)
        excess, whole_at = self._next(key, now)
        if excess:
            return excess
        self._whole_at[key] = whole_at
        self._whole_at.move_to_end(key)
        while len(self._whole_at) > self._max_subjects:
            self._whole_at.popitem(last=False)
        return 0.0

    def wait(self, subject: str, now: float) -> float:
        """Return what `hit` would, and count nothing."""
        return self._next(_key(subject), now)[0] if self.limit.count > 0 else 0.0

    def _next(self, key: bytes, now: float) -> tuple[float, float]:
        whole_at = max(self._whole_at.get(key, now), now) + self.limit.seconds / self.limit.count
        excess = whole_at - now - self.limit.seconds
        return (excess if excess > 1e-6 else 0.0), whole_at  # below that it is rounding


class Remembered:
    """The subjects seen last, so many and no more."""

    def __init__(self, *, max_subjects: int = MAX_SUBJECTS) -> None:
        self._max_subjects = max_subjects
        self._keys: OrderedDict[bytes, None] = OrderedDict()

    def __contains__(self, subject: str) -> bool:
        return _key(subject) in self._keys

    def add(self, subject: str) -> None:
        """Remember a subject; the one not seen for longest is forgotten for it."""
        key = _key(subject)
        self._keys[key] = None
        self._keys.move_to_end(key)
        if len(self._keys) > self._max_subjects:
            self._keys.popitem(last=False)

    def discard(self, subject: str) -> None:
        """Forget a subject."""
        self._keys.pop(_key(subject), None)


def _key(subject: str) -> bytes:
    """Return what is kept of a subject: 16 bytes, however long a text somebody sends, and no secret."""
    return hashlib.blake2b(subject.encode(errors="surrogatepass"), digest_size=16).digest()


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
    """The limits of logins. A refused try is not counted, so a user who waits is let in.

    The tight one is that of an account from one source, so that nobody locks its owner out from elsewhere.
    """

    def __init__(
        self,
        address: Limit = LOGIN_PER_ADDRESS,
        both: Limit = LOGIN_PER_ACCOUNT_AND_ADDRESS,
        account: Limit = LOGIN_PER_ACCOUNT,
    ) -> None:
        self._address = MovingWindow(address)
        self._both = MovingWindow(both)
        self._account = Pace(account)

    def hit(self, address: str, account: str, now: float) -> float:
        """Count one login of `account` from `address`. Returns 0, or the seconds to wait."""
        where, who = source(address), account.casefold()
        return self._address.hit(where, now) or self._both.hit(f"{where} {who}", now) or self._account.hit(who, now)
