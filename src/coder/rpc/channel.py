"""The carrier of calls: an ordered stream of bytes in pieces, whose borders mean nothing."""

from typing import Protocol


class Channel(Protocol):
    """What a call session needs of its carrier. One task receives, another sends."""

    async def recv(self) -> bytes | None:
        """Return the next bytes, or None once the other end has finished or the carrier broke."""
        ...

    async def send(self, data: bytes) -> None:
        """Send all of it, waiting while the carrier is congested. Raises `Closed` when it has ended."""
        ...

    async def close(self) -> None:
        """End the carrier properly. Safe to call again."""
        ...
