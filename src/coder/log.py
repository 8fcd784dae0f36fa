"""Logging: events with keys and values, set up here and nowhere else.

Modules call `structlog.get_logger()` and log an event name with values. Records of the standard library (web server,
database) pass through the same steps, so there is one format.
"""

import logging
import re
import sys
from collections.abc import Iterable, MutableMapping
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

REDACTED = "<redacted>"

_SECRET_WORDS = ("token", "secret", "password", "authorization", "cookie", "private", "api_key")
_TOKEN = re.compile(r"\b[A-Za-z0-9]{10}-[A-Za-z0-9]{22}\b")
_QUIET = ("uvicorn", "aiosqlite", "alembic", "httpx2", "httpcore2")


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Hide values whose name says that they are secret, and anything that looks like a session token."""
    return _cleaned(event)


def _cleaned(values: MutableMapping[str, Any]) -> dict[str, Any]:
    return {key: REDACTED if _is_secret(key) else _clean(value) for key, value in values.items()}


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return _TOKEN.sub(REDACTED, value)
    return _cleaned(value) if isinstance(value, dict) else value


def _is_secret(key: str) -> bool:
    return any(word in key.lower() for word in _SECRET_WORDS)


def configure(*, style: str = "auto", level: str = "info", stream: TextIO | None = None, colors: bool = True) -> None:
    """Send all logs to `stream` (standard error when not given).

    `style` is human, json, or auto: human when the stream is a terminal. `level` is the least level that is logged.
    Colours, where they are wanted, are for terminals only.
    """
    out = sys.stderr if stream is None else stream
    human = style == "human" or (style == "auto" and out.isatty())
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=list(_shared()),
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                redact,
                *_rendering(human=human, colors=colors and human and out.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)  # their news are the connections' business, not ours
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _shared() -> Iterable[Processor]:
    return (
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    )


def _rendering(*, human: bool, colors: bool) -> Iterable[Processor]:
    if human:
        return (structlog.dev.ConsoleRenderer(colors=colors),)
    return (structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str))
