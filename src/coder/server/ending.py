"""The end of a process: nothing that is left over may keep it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

log = structlog.get_logger(__name__)

T = TypeVar("T")

PATIENCE = 1.0
"""Seconds between one cancellation and the next."""
_MOST_CANCELLATIONS = 5


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Await the work, then end the tasks that it has left.

    One cancellation is not enough for all: that of a request may reach the database's driver while it asks, whose
    clean-up then waits for an answer that nobody gives any more. The loop's own end cancels once, and waits for ever.
    """
    try:
        return await work
    finally:
        for _ in range(_MOST_CANCELLATIONS):
            left = asyncio.all_tasks() - {asyncio.current_task()}
            if not left:
                break
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=PATIENCE)
        else:
            log.error("server.tasks_left", tasks=[task.get_name() for task in left if not task.done()])
