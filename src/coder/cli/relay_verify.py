"""Asks a URL whether a relay's clients are known, for `coder relay --verify-url`.

The relay waits for nobody: a client may send a trickle from its login on, and is cut off after 10 s unless the answer
was yes by then. Answers are asked for again after a while.
"""

import json
import threading
import time
import urllib.request
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

TIMEOUT = 5.0
"""Seconds for one answer."""
MAX_ANSWER = 4096
"""Bytes of one."""
ASK_AGAIN = 600.0
"""Seconds an answer is good for."""
MOST_KEYS = 100_000
"""Keys that are remembered; beyond them the oldest are asked for again."""
AT_ONCE = 8
"""Questions under way at the same time."""

Ask = Callable[[str, str], bool]
"""Takes key and address, tells whether that client is known. Raises OSError or ValueError when there is no answer."""


class Relay(Protocol):
    """What an edge offers for this."""

    def next_unannounced(self, patience: float) -> tuple[str, str] | None:
        """Wait for a login with an unknown key."""

    def announce(self, keys: list[str]) -> None:
        """Let clients stay."""

    def withdraw(self, keys: list[str]) -> None:
        """Treat clients as unknown."""


class Verifier:
    """Lets known clients stay. `fail_open` takes an unreachable URL for a yes."""

    def __init__(self, relay: Relay, ask: Ask, *, fail_open: bool, now: Callable[[], float] = time.monotonic) -> None:
        self._relay = relay
        self._ask = ask
        self._fail_open = fail_open
        self._now = now
        self._lock = threading.Lock()
        self._known: OrderedDict[str, float] = OrderedDict()
        self._asking: set[str] = set()

    def run(self, stop: threading.Event) -> None:
        """Serve until told to stop."""
        with ThreadPoolExecutor(AT_ONCE, "verify") as pool:
            while not stop.is_set():
                found = self._relay.next_unannounced(0.5)
                self.forget_old()
                if found is not None and self._begin(found[0]):
                    pool.submit(self.judge, *found)

    def judge(self, key: str, remote: str) -> None:
        """Ask about one client, and act on the answer."""
        try:
            allowed = self._ask(key, remote.rpartition(":")[0].strip("[]"))
        except (OSError, ValueError):
            allowed = self._fail_open
        with self._lock:
            self._asking.discard(key)
            if allowed:
                self._known[key] = self._now()
        if allowed:
            self._relay.announce([key])

    def forget_old(self) -> None:
        """Make the relay ask again about keys whose answer is too old, and about those that are too many."""
        with self._lock:
            old = []
            while self._known:
                key, since = next(iter(self._known.items()))
                if self._now() - since < ASK_AGAIN and len(self._known) <= MOST_KEYS:
                    break
                del self._known[key]
                old.append(key)
        if old:
            self._relay.withdraw(old)

    def _begin(self, key: str) -> bool:
        with self._lock:
            if key in self._asking:
                return False
            self._asking.add(key)
            return True


def ask_url(url: str) -> Ask:
    """Return the question as a POST of `{"NodePublic", "Source"}` that is answered with `{"Allow": true}`."""
    import ssl

    import truststore

    context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def ask(key: str, source: str) -> bool:
        body = json.dumps({"NodePublic": key, "Source": source}).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - http(s) only
        with urllib.request.urlopen(request, timeout=TIMEOUT, context=context) as answer:  # noqa: S310
            found = json.loads(answer.read(MAX_ANSWER))
        return isinstance(found, dict) and found.get("Allow") is True

    return ask
