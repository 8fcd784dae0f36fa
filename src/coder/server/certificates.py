"""Says in the log when changed files of a certificate cannot be used, and when they can."""

from collections.abc import Callable

import structlog

from coder.clock import Clock

log = structlog.get_logger(__name__)

LOOK = 2.0
"""Seconds between looks."""


async def watch(problem: Callable[[], str | None], clock: Clock) -> None:
    """Say each problem once, for ever."""
    told: str | None = None
    while True:
        await clock.sleep(LOOK)
        if (found := problem()) == told:
            continue
        if found:
            log.warning(
                "certificate.unusable", fault=found, remedy="Correct the file; until then the last good one is used."
            )
        else:
            log.info("certificate.usable")
        told = found
