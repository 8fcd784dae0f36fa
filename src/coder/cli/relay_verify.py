"""Asks a URL whether a relay's clients are known, for `coder relay --verify-url`.

The relay waits for nobody: a client may send a trickle from its login on, and is cut off after 10 s unless the answer
was yes by then. Answers are asked for again after a while.
"""

import contextlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from http.client import HTTPException
from typing import Protocol
from urllib.parse import urlsplit

from coder.outbound import Outbound

TIMEOUT = 5.0
"""Seconds for one answer."""
MAX_ANSWER = 4096
"""Bytes of one."""
ASK_AGAIN = 600.0
"""Seconds an answer is good for."""
MOST_KEYS = 100_000
"""Keys that are remembered; beyond them the oldest are asked for again."""
NO_ANSWER = "this relay cannot find out whether it knows its clients: its verify URL does not answer"
"""What clients are told meanwhile."""
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

    def set_health(self, problem: str) -> None:
        """Tell all clients of a problem, or with an empty text that it is over."""


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
        self._answers = True

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
            self._tell(answers=True)
        except (OSError, ValueError, HTTPException):
            allowed = self._fail_open
            self._tell(answers=self._fail_open)
        with self._lock:
            self._asking.discard(key)
            if allowed:
                self._known[key] = self._now()
        if allowed:
            self._relay.announce([key])

    def _tell(self, *, answers: bool) -> None:
        """Let the relay's clients know why they may be cut off, once, and when that is over."""
        with self._lock:
            changed, self._answers = answers != self._answers, answers
        if changed:
            self._relay.set_health("" if answers else NO_ANSWER)

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


def ask_url(url: str, outbound: Outbound | None = None) -> Ask:
    """Return the question as a POST of `{"NodePublic", "Source"}` that is answered with `{"Allow": true}`."""
    rules, parts = outbound or Outbound(), urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def ask(key: str, source: str) -> bool:
        body = json.dumps({"NodePublic": key, "Source": source}).encode()
        with contextlib.closing(rules.connection(url, TIMEOUT)) as connection:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            if answer.status >= HTTPStatus.MULTIPLE_CHOICES:
                raise OSError(f"{url} answered {answer.status}")
            found = json.loads(answer.read(MAX_ANSWER))
        return isinstance(found, dict) and found.get("Allow") is True

    return ask
