"""Tells the embedded relay whose keys are known, where it wants to know (`--derp-verify-clients`)."""

from collections import Counter
from collections.abc import Sequence
from typing import Final, Protocol

_PREFIX: Final = b"np"  # how a node's public key starts where it travels as bytes


class Relay(Protocol):
    """What an edge offers for this."""

    def announce(self, keys: Sequence[str]) -> None:
        """Let clients with these keys stay."""

    def withdraw(self, keys: Sequence[str]) -> None:
        """Treat clients with these keys as unknown."""


class RelayClients:
    """Counts who uses a key: it is known to the relay from the first peer to the last."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._users: Counter[str] = Counter()

    def joined(self, key: bytes) -> None:
        """Note that a peer's node has this key. What is no key is ignored: it is nobody's."""
        text = _text(key)
        if text is None:
            return
        self._users[text] += 1
        if self._users[text] == 1:
            self._relay.announce([text])

    def left(self, key: bytes) -> None:
        """Note that a peer that had this key is gone, or has another one."""
        text = _text(key)
        if text is None:
            return
        self._users[text] -= 1
        if self._users[text] <= 0:
            del self._users[text]
            self._relay.withdraw([text])


def _text(key: bytes) -> str | None:
    if len(key) != len(_PREFIX) + 32 or not key.startswith(_PREFIX):
        return None
    return f"nodekey:{key[len(_PREFIX) :].hex()}"
