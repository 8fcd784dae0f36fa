"""Opening the coordination channel, and which refusals are final."""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from coder.errors import CoderError, UpgradeRefused
from coder.rpc.channel import Channel

Dial = Callable[[str | None], Awaitable[Channel]]
"""Opens the channel, presenting a resume token when one is given."""

FINAL = frozenset({400, 401, 403, 404, 409, 500})
"""Statuses of a first answer that trying again will not change. Later, all is retried: the server may be restarting."""


def is_permanent(error: CoderError) -> bool:
    """Whether a first dial that failed like this is not worth repeating."""
    return isinstance(error, UpgradeRefused) and error.http_status in FINAL and not refuses_resume_token(error)


def refuses_resume_token(error: CoderError) -> bool:
    """Whether the server took everything but the resume token, so that dialling without it may do."""
    if not isinstance(error, UpgradeRefused) or error.http_status != 401:
        return False
    fields = answer(error).get("validations")
    return isinstance(fields, list) and any(
        isinstance(one, Mapping) and one.get("field") == "resume_token" for one in fields
    )


def answer(error: UpgradeRefused) -> dict[str, Any]:
    """Return the JSON object the server refused with; {} when it sent none."""
    try:
        value = json.loads(error.body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def reason(error: CoderError) -> str:
    """Say why the server refused, in its own words where it gave any."""
    if not isinstance(error, UpgradeRefused):
        return str(error)
    body = answer(error)
    said = ": ".join(str(body[key]).rstrip(".") for key in ("message", "detail") if body.get(key))
    return f"the server answered {error.http_status}" + (f": {' '.join(said.split())[:300]}" if said else "")
