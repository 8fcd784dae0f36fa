"""Says in the log which relays of the region are not linked to ours, and when they are again."""

from collections.abc import Callable, Mapping

import structlog

from coder.clock import Clock

log = structlog.get_logger(__name__)

LOOK = 2.0
"""Seconds between looks."""


async def watch(problems: Callable[[], Mapping[str, str]], clock: Clock) -> None:
    """Say each problem once, for ever. `problems` tells them by the relays' URLs."""
    told: Mapping[str, str] = {}
    while True:
        await clock.sleep(LOOK)
        found = problems()
        for url in sorted(found):
            if told.get(url) != found[url]:
                log.warning("relay.not_linked", relay=url, reason=found[url])
        for url in sorted(told.keys() - found.keys()):
            log.info("relay.linked", relay=url)
        told = found
