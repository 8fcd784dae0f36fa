"""An examination in stages: each has a name and comes to ok, warn or fail; after a fail no other is tried."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from coder.errors import CoderError

T = TypeVar("T")

Status = Literal["ok", "warn", "fail", "skipped"]


@dataclass(frozen=True, slots=True)
class Told(Generic[T]):
    """What a stage found; with `warn` it goes on, but somebody should look."""

    value: T
    text: str
    warn: bool = False
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage that is over."""

    name: str
    status: Status
    text: str = ""
    remedy: str = ""
    seconds: float | None = None
    """How long it took; None when it was not tried."""

    def json(self) -> dict[str, Any]:
        """Describe it for scripts."""
        return {
            "name": self.name,
            "status": self.status,
            "duration_ms": None if self.seconds is None else round(self.seconds * 1e3, 1),
            "text": self.text,
            "remedy": self.remedy,
        }


class Stop(Exception):  # noqa: N818 - an order, no error
    """A stage failed; what was wrong is in it."""


class Examination:
    """Runs stages one after the other; `tell` hears of each when it is over."""

    def __init__(self, names: Sequence[str], tell: Callable[[Stage], None]) -> None:
        self.stages: list[Stage] = []
        self._names = names
        self._tell = tell

    async def run(self, name: str, job: Callable[[], Awaitable[Told[T]]]) -> T:
        """Run a stage and return what it found. Raises Stop when it fails with a CoderError."""
        start = time.monotonic()
        try:
            told = await job()
        except CoderError as error:
            self._end(name, "fail", str(error), error.remedy, time.monotonic() - start)
            raise Stop from error
        self._end(name, "warn" if told.warn else "ok", told.text, told.remedy, time.monotonic() - start)
        return told.value

    def close(self) -> None:
        """Note the stages that were never tried."""
        done = {stage.name for stage in self.stages}
        for name in self._names:
            if name not in done:
                self._end(name, "skipped", "", "", None)

    def _end(self, name: str, status: Status, text: str, remedy: str, seconds: float | None) -> None:
        stage = Stage(name=name, status=status, text=text, remedy=remedy, seconds=seconds)
        self.stages.append(stage)
        self._tell(stage)
