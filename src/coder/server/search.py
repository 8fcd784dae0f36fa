"""The search language of the workspace list: `owner:me name:"dev" status:running alice/dev`. Pure."""

import re
from dataclasses import dataclass, field
from uuid import UUID

from coder.db.models import User
from coder.db.workspaces import Search
from coder.server.problems import Problem

_TERM = re.compile(r'(?:([a-zA-Z_-]+):)?(?:"([^"]*)"|([^\s"]+))(?=\s|$)')
_BOOLS = ("true", "false")
_CHOICES = {
    "has-agent": ("connecting", "connected", "disconnected", "timeout"),
    "status": ("pending", "starting", "running", "stopping", "stopped", "failed", "canceling", "canceled"),
    "outdated": _BOOLS,
    "dormant": _BOOLS,
}


@dataclass(slots=True)
class Query:
    """A search: what the database filters, and what is filtered by computed state."""

    conditions: dict[str, str | UUID] = field(default_factory=dict)
    status: str | None = None
    has_agent: str | None = None
    outdated: bool | None = None
    dormant: bool = False

    @property
    def computed(self) -> bool:
        """Whether any of it is about computed state."""
        return self.dormant or any(each is not None for each in (self.status, self.has_agent, self.outdated))

    @property
    def search(self) -> Search:
        """The part for the database."""
        return Search(**self.conditions)  # type: ignore[arg-type]  # the setters below store the right types


def parse(text: str, caller: User) -> Query:
    """Read a search. `me` is the caller. Raises Problem (400) naming each key that cannot be used."""
    query, faults = Query(), []
    position = 0
    for match in _TERM.finditer(text):
        if text[position : match.start()].strip():
            break
        position = match.end()
        key = (match[1] or "").lower().replace("_", "-")
        fault = _apply(query, key, match[2] if match[2] is not None else match[3], caller)
        if fault:
            faults.append((match[1] or "q", fault))
    if text[position:].strip():
        faults.append(("q", f"The search cannot be read from {text[position:].strip()[:40]!r} on."))
    if faults:
        raise Problem(400, "The workspace search is not valid.", validations=faults)
    return query


def _apply(query: Query, key: str, value: str, caller: User) -> str | None:
    """Add one term. Returns what is wrong with it."""
    if key in _CHOICES:
        if value not in _CHOICES[key]:
            return f"Expected one of {', '.join(_CHOICES[key])}."
        setattr(query, key.replace("-", "_"), value == "true" if _CHOICES[key] is _BOOLS else value)
        return None
    match key:
        case "":
            owner, slash, name = value.rpartition("/")
            if slash:
                _owner(query, owner, caller)
            query.conditions["name"] = name
        case "owner":
            _owner(query, value, caller)
        case "name" | "template" | "organization":
            query.conditions[key] = value
        case "id":
            return _id(query, value)
        case _:
            return f"There is no search key {key[:40]!r}."
    return None


def _id(query: Query, value: str) -> str | None:
    try:
        query.conditions["id"] = UUID(value)
    except ValueError:
        return "Expected a UUID."
    return None


def _owner(query: Query, value: str, caller: User) -> None:
    if value == "me":
        query.conditions["owner_id"] = caller.id
    else:
        query.conditions["owner"] = value
