"""Which versions of the call API a client or an agent may ask for. Pure."""

import re

from coder.server.problems import UNSUPPORTED_VERSION, Problem
from coder.server.version import API_MAJOR, API_MINOR

_NUMBER = re.compile(r"\d{1,6}", re.ASCII)


def accept(text: str) -> str:
    """Return the version asked for, when it is served. Raises Problem (400), whose message clients compare."""
    parts = text.split(".")
    if len(parts) != 2 or not all(_NUMBER.fullmatch(part) for part in parts):
        raise _refused("A version is two numbers with a dot between them, such as 2.0.")
    major, minor = int(parts[0]), int(parts[1])
    if major < API_MAJOR:
        raise _refused(f"Version {major}.{minor} is not served any more.")
    if (major, minor) > (API_MAJOR, API_MINOR):
        raise _refused(f"The server speaks up to {API_MAJOR}.{API_MINOR}, which is older than {major}.{minor}.")
    return f"{major}.{minor}"


def _refused(detail: str) -> Problem:
    return Problem(400, UNSUPPORTED_VERSION, validations=[("version", detail)])
