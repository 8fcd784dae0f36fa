"""What an option is: one row of the table, declared at the field that holds its value."""

from dataclasses import dataclass, field
from typing import Any

from coder.errors import CoderError


class ConfigError(CoderError):
    """A setting that cannot be used. The message names the setting and the place it came from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One row of the option table."""

    path: tuple[str, ...]
    """Where the value lives in `Settings`, e.g. `("http", "address")`."""
    flag: str
    env: str
    yaml: str
    """Dotted key in the YAML file."""
    kind: Any
    """Type of the field: str, bool, int, timedelta, Path, tuple[str, ...] or dict[str, str]."""
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    hidden: bool = False

    @property
    def name(self) -> str:
        """The flag as a Python identifier."""
        return self.flag.replace("-", "_")


def setting(
    default: Any,
    *,
    flag: str,
    yaml: str,
    about: str,
    env: str = "",
    choices: tuple[str, ...] = (),
    hidden: bool = False,
) -> Any:
    """Declare a field of the tree as an option of the server."""
    row = {"flag": flag, "yaml": yaml, "help": about, "choices": choices, "hidden": hidden}
    row["env"] = env or "CODER_" + flag.upper().replace("-", "_")
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=row)
    return field(default=default, metadata=row)
