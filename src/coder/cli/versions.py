"""Whether client and server fit together, told once when they may not."""

import re
from typing import Any

from coder import __version__
from coder.cli import output

API_RELEASE = (2, 26)
"""Release of the original whose API this client speaks. Servers of one major number understand each other's clients."""

_BUILD = re.compile(r"v?(\d+)\.(\d+)\.\d+(?:[^+]*)(?:\+py(\d+)\.(\d+)\.\d+)?")
"""`v2.26.0+py0.1.0`: the API's release, and behind `+py` the version of a server of this project."""


def mismatch(build: str, own: str = __version__) -> bool:
    """Whether a server of that build may not suit this client.

    A server of this project must have our major and minor number, any other must serve our major release of the API.
    A build without a version number, and a development build (v0.0.0), suits everybody.
    """
    found = _BUILD.match(build)
    if found is None or "v0.0.0" in build:
        return False
    if found[3] is not None:
        major, minor = own.split(".")[:2]
        return (int(found[3]), int(found[4])) != (int(major), int(minor))
    return int(found[1]) != API_RELEASE[0]


def warning(build: str, info: dict[str, Any]) -> str:
    """Say what differs and what to do: in the words of the server's administrator, if there are any."""
    advice = str(info.get("upgrade_message") or "") or "Some commands may fail; install the server's version here."
    said = f"version mismatch: client v{__version__}, server {output.printable(build)}"
    return f"{said}\n{output.printable(advice)}"
