"""The set of tunnels: who asked to reach whom. For delivery a tunnel has no direction."""

from uuid import UUID


class TunnelGraph:
    """Directed pairs (source, destination), indexed by both ends. Orders are those of insertion."""

    def __init__(self) -> None:
        self._from: dict[UUID, dict[UUID, None]] = {}
        self._to: dict[UUID, dict[UUID, None]] = {}

    def add(self, source: UUID, destination: UUID) -> None:
        """Add a tunnel; one from a peer to itself leads nowhere and is ignored."""
        if source != destination:
            self._from.setdefault(source, {})[destination] = None
            self._to.setdefault(destination, {})[source] = None

    def remove(self, source: UUID, destination: UUID) -> None:
        """Remove a tunnel if it is there."""
        _discard(self._from, source, destination)
        _discard(self._to, destination, source)

    def forget_source(self, source: UUID) -> None:
        """Remove all tunnels that a peer asked for."""
        for destination in self._from.pop(source, {}):
            _discard(self._to, destination, source)

    def joined(self, one: UUID, other: UUID) -> bool:
        """Tell whether there is a tunnel between two peers, in either direction."""
        return other in self._from.get(one, {}) or other in self._to.get(one, {})

    def partners(self, peer: UUID) -> list[UUID]:
        """Return each peer that shares a tunnel with this one, once."""
        return list(self._from.get(peer, {}) | self._to.get(peer, {}))


def _discard(index: dict[UUID, dict[UUID, None]], key: UUID, value: UUID) -> None:
    entries = index.get(key)
    if entries is not None:
        entries.pop(value, None)
        if not entries:
            del index[key]
