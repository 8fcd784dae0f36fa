"""The CLI's own files: which server, and the session there. One text file a value, readable by their owner only.

Where the session is in a keyring instead, a file names its entry: without that file nobody looks for a keyring.
"""

import os
import sys
from pathlib import Path

from coder.ids import Secret

NAMES = ("url", "session", "keyring")
"""`keyring` names the entry of the keyring that has the session, when no file has it."""


def is_plain(text: str) -> bool:
    """Whether a text can be sent as a header of HTTP: printable ASCII."""
    return text.isascii() and text.isprintable()


def default_dir() -> Path:
    """Where the platform keeps settings: on Linux `$XDG_CONFIG_HOME/coderv2`, as other clients of the protocol do."""
    if sys.platform == "linux":  # here without the library, whose import takes 5 ms of every command
        return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "coderv2"
    from platformdirs import user_config_path

    return user_config_path("coderv2", appauthor=False, roaming=True)


class ConfigDir:
    """A directory with the files of `NAMES`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, name: str) -> str | None:
        """Return the file's text without blanks around it, or None when there is none; what is no text is replaced."""
        try:
            return (self.path / name).read_text(encoding="utf-8", errors="replace").strip() or None
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, name: str, text: str) -> None:
        """Replace a file in one step, so that a reader sees the old text or the new one; mode 0600, directory 0700."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self.path / name, text)

    def keep_session(self, url: str, token: Secret, *, in_keyring: bool) -> bool:
        """Keep a session for later commands; returns whether it is in the keyring."""
        from coder.cli import keychain

        old, entry = self.read("keyring"), keychain.account(url, token)
        kept = in_keyring and keychain.keep(entry, token)
        if kept:
            self.write("keyring", entry)
            (self.path / "session").unlink(missing_ok=True)
        else:
            self.write("session", token.reveal())
            (self.path / "keyring").unlink(missing_ok=True)
        self.write("url", url)
        if old and not (kept and old == entry):
            keychain.forget(old)
        return kept

    def clear(self) -> None:
        """Forget the server and the session."""
        if entry := self.read("keyring"):
            from coder.cli import keychain

            keychain.forget(entry)
        for name in NAMES:
            (self.path / name).unlink(missing_ok=True)


def write_private(path: Path, text: str) -> None:
    """Write a file only its owner can read, never half of it under its final name. Raises OSError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
