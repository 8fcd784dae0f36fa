"""The session in the operating system's keyring, where there is one that works; else it is a file (`store.py`).

The `keyring` library is an extra of this package. It is imported by logins and by commands whose session it keeps, and
by nothing else. A keyring may want its user to unlock it, and wait for that for ever where nobody sees the question:
so each call has a limit.
"""

import importlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coder.cli import errors
from coder.ids import Secret

SERVICE = "coder"
"""What the entries are filed under."""

PATIENCE, UNSEEN = 60.0, 5.0
"""Seconds for a keyring to answer where its user can be asked, and where there is no screen to ask on."""

_LEAST_PRIORITY = 1
"""Of the library's backends; below are those that keep nothing, or keep it in plain text."""


def account(url: str, token: Secret) -> str:
    """Name the entry of a session: by the server and the public part of its token."""
    return f"{url} {token.reveal().partition('-')[0]}"


def keep(name: str, token: Secret) -> bool:
    """Put a token into the keyring and see that it is there; False where there is none that works."""
    if not _reachable():
        return False
    try:
        return bool(_within_limit(lambda: _kept(name, token)))
    except Exception:  # noqa: BLE001 - backends raise what they like, and there is another way
        return False


def find(name: str) -> Secret:
    """Return a token that was kept. Raises NotSignedIn when the keyring gives none."""
    try:
        found = _within_limit(lambda: _backend().get_password(SERVICE, name))
    except Exception as error:  # noqa: BLE001 - as above
        raise errors.keyring_silent(str(error) or type(error).__name__) from None
    if not found:
        raise errors.keyring_silent("it does not have it any more")
    return Secret(found)


def forget(name: str) -> None:
    """Take a token out of the keyring, if that can be done."""
    try:
        _within_limit(lambda: _backend().delete_password(SERVICE, name))
    except Exception:  # noqa: BLE001 - as above; the server is told that the session has ended
        return


def _reachable() -> bool:
    """Whether there can be a keyring at all: on Linux it is behind the session's bus."""
    if not sys.platform.startswith("linux"):
        return True
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return "DBUS_SESSION_BUS_ADDRESS" in os.environ or bool(runtime and Path(runtime, "bus").exists())


def _backend() -> Any:
    if not _reachable():
        raise OSError("there is no session bus here")
    found = importlib.import_module("keyring").get_keyring()
    if found.priority < _LEAST_PRIORITY:
        raise OSError("there is none here")
    return found


def _kept(name: str, token: Secret) -> bool:
    backend = _backend()
    backend.set_password(SERVICE, name, token.reveal())
    return bool(backend.get_password(SERVICE, name) == token.reveal())


def _within_limit(call: Callable[[], Any]) -> Any:
    """Return what a call returns. Raises what it raises, and TimeoutError when that takes too long."""
    seen = not sys.platform.startswith("linux") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    result: list[Any] = []

    def run() -> None:
        try:
            result.append((call(), None))
        except Exception as error:  # noqa: BLE001 - it is raised again below
            result.append((None, error))

    thread = threading.Thread(target=run, name="keyring", daemon=True)
    thread.start()
    thread.join(PATIENCE if seen else UNSEEN)
    if not result:
        raise TimeoutError("it does not answer")
    value, error = result[0]
    if error is not None:
        raise error
    return value
