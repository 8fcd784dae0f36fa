"""Jobs that live and die together."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def until_one_ends(*jobs: Coroutine[Any, Any, object]) -> None:
    """Run jobs side by side until the first ends; cancel the others, wait for them, and raise what the first raised."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        ended = [task for task in tasks if task.done()]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        task.result()


async def together(*jobs: Coroutine[Any, Any, None]) -> None:
    """Run jobs side by side until all have ended; when one raises, cancel the others and raise that."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
