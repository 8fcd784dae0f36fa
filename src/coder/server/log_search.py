"""The search languages of the audit log and the connection log: `username:bob action:create date_from:2030-01-31`."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from coder.db.logs import AuditSearch, ConnectionSearch
from coder.db.models import User
from coder.server import terms
from coder.server.problems import Problem

_DAY = len("2030-01-31")


def _since(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _until(text: str) -> datetime:
    return _since(text) + (timedelta(days=1) if len(text) == _DAY else timedelta())  # a day belongs to it whole


def _one_of(**values: bool) -> Callable[[str], bool]:
    def read(text: str) -> bool:
        if text.lower() not in values:
            raise ValueError(text)
        return values[text.lower()]

    return read


Keys = Mapping[str, tuple[str, Callable[[str], Any]]]
_AUDIT: Keys = {
    "username": ("username", str),
    "action": ("action", str),
    "resource_type": ("resource_type", str),
    "resource_id": ("resource_id", str),
    "resource_target": ("resource_target", str),
    "date_from": ("since", _since),
    "date_to": ("until", _until),
    "success": ("success", _one_of(true=True, false=False)),
}
_CONNECTIONS: Keys = {
    "workspace_owner": ("owner_username", str),
    "workspace": ("workspace_name", str),
    "workspace_id": ("workspace_id", UUID),
    "agent": ("agent_name", str),
    "username": ("username", str),
    "type": ("type", str),
    "connected_after": ("since", _since),
    "connected_before": ("until", _until),
    "status": ("ongoing", _one_of(ongoing=True, completed=False)),
}
_PEOPLE = frozenset({"username", "workspace_owner"})
_TIMES = ("date_", "connected_")


def audit(text: str, caller: User) -> AuditSearch:
    """Read a search of the audit log; `me` is the caller. Raises Problem (400)."""
    return AuditSearch(**_read(text, _AUDIT, caller))


def connections(text: str, caller: User, *, owner_id: UUID | None) -> ConnectionSearch:
    """Read a search of the connection log, of the workspaces of one owner if there is one. Raises Problem (400)."""
    return ConnectionSearch(**_read(text, _CONNECTIONS, caller), owner_id=owner_id)


def _read(text: str, keys: Keys, caller: User) -> dict[str, Any]:
    found = {}
    for key, value in terms.read(text):
        if key not in keys:
            raise Problem(400, f"There is no search key {key[:40]!r}.", detail=f"Keys are {', '.join(keys)}.")
        name, read = keys[key]
        try:
            found[name] = read(caller.username if key in _PEOPLE and value == "me" else value)
        except (ValueError, OverflowError):
            hint = "A time is written 2030-01-31, or 2030-01-31T08:00:00Z." if key.startswith(_TIMES) else ""
            raise Problem(400, f"The search cannot use {key}:{value[:40]}.", detail=hint) from None
    return found
