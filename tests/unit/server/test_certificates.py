"""What the log says of a certificate's files."""

import contextlib

from structlog.testing import capture_logs

from coder.clock import SystemClock
from coder.server import certificates


class EnoughError(Exception):
    """Ends a watch."""


class Steps(SystemClock):
    """A clock whose sleeps are over at once, `left` of them."""

    def __init__(self, left: int) -> None:
        self._left = left

    async def sleep(self, seconds: float) -> None:
        del seconds
        if not self._left:
            raise EnoughError
        self._left -= 1


async def test_each_problem_is_logged_once_and_its_end_too():
    found = [None, "a.pem: broken", "a.pem: broken", "b.pem: gone", None, None]
    with capture_logs() as lines, contextlib.suppress(EnoughError):
        await certificates.watch(iter(found).__next__, Steps(len(found)))
    told = [(line["event"], line.get("fault")) for line in lines]
    assert told == [
        ("certificate.unusable", "a.pem: broken"),
        ("certificate.unusable", "b.pem: gone"),
        ("certificate.usable", None),
    ]
