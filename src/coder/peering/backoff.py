"""How long to wait before the next try."""

import random


class Backoff:
    """Delays that grow from `first` to `ceiling` seconds, each spread by a fifth, so that not all come at once."""

    GROWTH = 1.6
    SPREAD = 0.2

    def __init__(self, first: float, ceiling: float, rng: random.Random) -> None:
        self._first = first
        self._ceiling = ceiling
        self._rng = rng
        self._next = first

    def delay(self) -> float:
        """Return the seconds to wait now, and wait longer the next time."""
        base, self._next = self._next, min(self._next * self.GROWTH, self._ceiling)
        return base * self._rng.uniform(1 - self.SPREAD, 1 + self.SPREAD)

    def reset(self) -> None:
        """Begin anew after a success."""
        self._next = self._first
