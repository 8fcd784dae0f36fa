"""The router's epoch: how a client learns that a router has forgotten its mappings."""

from dataclasses import dataclass

_SLACK = 2.0  # seconds; the clocks are rounded and datagrams take their time


@dataclass(slots=True)
class Epoch:
    """The last epoch of one router, and when it was heard. `drift` is by which part clocks may differ."""

    drift: float
    symmetric: bool
    """Whether a clock that runs ahead is a sign, too (PCP), or only one that stays behind (NAT-PMP)."""
    _value: float | None = None
    _heard: float = 0.0

    def restarted(self, now: float, value: float) -> bool:
        """Take an epoch in; tell whether the router has begun anew since the one before."""
        before, heard = self._value, self._heard
        self._value, self._heard = value, now
        if before is None:
            return False
        ours, theirs = now - heard, value - before
        behind = theirs + _SLACK < ours - ours * self.drift or theirs < -1
        ahead = ours + _SLACK < theirs - theirs * self.drift
        return behind or (self.symmetric and ahead)


def pcp() -> Epoch:
    """Judge as RFC 6887, 8.5, does."""
    return Epoch(drift=1 / 16, symmetric=True)


def natpmp() -> Epoch:
    """Judge as RFC 6886, 3.6, does."""
    return Epoch(drift=1 / 8, symmetric=False)
