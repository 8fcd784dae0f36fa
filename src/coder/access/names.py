"""Rules for the names people choose."""

import re

MAX_NAME = 32
"""Most characters of a user or workspace name; names become parts of host names."""

_NAME = re.compile(r"[a-zA-Z0-9]+(?:-[a-zA-Z0-9]+)*")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


def name_problem(name: str) -> str | None:
    """Say what is wrong with a user or workspace name, or None."""
    if not name:
        return "A name is needed."
    if len(name) > MAX_NAME:
        return f"A name has at most {MAX_NAME} characters."
    if not _NAME.fullmatch(name):
        return "A name is made of letters and digits, with single hyphens between them."
    return None


def username_problem(name: str) -> str | None:
    """Say what is wrong with a user name, or None. `me` always means the caller, so nobody can be called that."""
    return "The name `me` is reserved." if name.lower() == "me" else name_problem(name)


def email_problem(email: str) -> str | None:
    """Say what is wrong with an address, or None. Only the shape is checked."""
    if len(email) > 254 or not email.isprintable() or not _EMAIL.fullmatch(email):
        return "An e-mail address is needed."
    return None
