"""Writes the log of a build while it is carried out: lines go to the database in the order they come, many at once."""

import asyncio
from types import TracebackType
from typing import Self
from uuid import UUID

from coder.db import builds
from coder.db.models_builds import BuildLog
from coder.server.deployment import Deployment

_MOST_WAITING = 10_000
"""Lines that wait to be written; of a flood, what is more is dropped."""


class BuildLogWriter:
    """The log of one build, within an `async with`; all that was said is written when that ends."""

    def __init__(self, deployment: Deployment, build_id: UUID) -> None:
        self._deployment = deployment
        self._build_id = build_id
        self._waiting: list[BuildLog] = []
        self._more = asyncio.Event()
        self._over = False
        self._writing: asyncio.Task[None] | None = None
        self.stage = ""
        """The step that lines belong to from now on."""

    async def __aenter__(self) -> Self:
        self._writing = asyncio.create_task(self._write())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        self._more.set()
        assert self._writing is not None
        await self._writing

    def own(self, text: str, *, error: bool = False) -> None:
        """Add a line of our own words."""
        self._add(text, "provisioner_daemon", "error" if error else "info")

    def program(self, text: str) -> None:
        """Add a line of a program that is run for the build."""
        self._add(text, "provisioner", "info")

    def _add(self, text: str, source: str, level: str) -> None:
        if len(self._waiting) < _MOST_WAITING:
            now = self._deployment.clock.now()
            line = BuildLog(
                build_id=self._build_id, created_at=now, source=source, level=level, stage=self.stage, output=text
            )
            self._waiting.append(line)
            self._more.set()

    async def _write(self) -> None:
        while not (self._over and not self._waiting):
            await self._more.wait()
            self._more.clear()
            lines, self._waiting = self._waiting, []
            async with self._deployment.store.write() as session:
                await builds.add_logs(session, lines)
            self._deployment.changes.announce((builds.LOGS, self._build_id))
            if self._over:
                self._more.set()
