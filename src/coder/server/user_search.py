"""The search language of the user list: `bob status:suspended role:auditor`. Pure."""

from coder.access import roles
from coder.db import users
from coder.server import terms
from coder.server.problems import Problem

_CHOICES = {"status": (users.ACTIVE, users.SUSPENDED), "role": tuple(roles.ANYWHERE)}


def parse(text: str) -> users.Search:
    """Read a search. Raises Problem (400)."""
    words: list[str] = []
    found: dict[str, str] = {}
    for key, value in terms.read(text):
        if key in {"", "search"}:
            words.append(value)
        elif value.lower() in _CHOICES.get(key, ()):
            found[key] = value.lower()
        else:
            raise Problem(400, f"The search cannot use {key[:40]}:{value[:40]}.", detail="Keys are status and role.")
    return users.Search(text=" ".join(words) or None, **found)
