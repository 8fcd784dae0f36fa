"""Settings of a template as the fields of a form, and back. Pure.

What fields there are follows from the JSON schema of the settings; whether a value will do is the API's to say.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PREFIX = "settings."
"""Before the names of the fields, as in what the API says of their values."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One field."""

    name: str
    label: str
    hint: str
    type: str
    """What the schema calls it: string, number, integer, boolean or array."""
    options: Sequence[str]
    """The values there are; none: any."""
    required: bool
    value: str
    """What it shows; of a boolean `yes` or nothing."""

    def read(self, text: str) -> Any:
        """Return the value that was typed; None for what is left to the default."""
        if self.type == "boolean":
            return text == "yes"
        text = text.strip()
        read = _READERS.get(self.type, str)
        try:
            return read(text) if text else None
        except ValueError:  # the API says what it expects
            return text


_READERS: Mapping[str, Callable[[str], Any]] = {"integer": int, "number": float, "array": shlex.split}


def fields(schema: Mapping[str, Any], held: Mapping[str, Any], sent: Mapping[str, str] | None = None) -> list[Setting]:
    """Return the fields of a schema with the values that are held, or with what a form sent before."""
    required = schema.get("required", ())
    return [
        _field(name, each, held, sent, required=name in required) for name, each in schema.get("properties", {}).items()
    ]


def _field(
    name: str, wanted: Mapping[str, Any], held: Mapping[str, Any], sent: Mapping[str, str] | None, *, required: bool
) -> Setting:
    kinds = [each for each in wanted.get("anyOf", [wanted]) if each.get("type") != "null"]
    kind, options = kinds[0].get("type", "string"), kinds[0].get("enum", ())
    value = _written(held.get(name, wanted.get("default"))) if sent is None else sent.get(PREFIX + name, "")
    label = name.replace("_", " ").replace("url", "URL").replace("cpus", "CPUs").replace(" mb", " (MB)")
    return Setting(
        name=PREFIX + name,
        label=label[0].upper() + label[1:],
        hint=" ".join(wanted.get("description", "").replace("`", "").split()),
        type=kind,
        options=options,
        required=required,
        value=value,
    )


def _written(value: Any) -> str:
    if value is None or value is False:
        return ""
    if value is True:
        return "yes"
    return shlex.join(value) if isinstance(value, (list, tuple)) else str(value)


def read(found: Sequence[Setting], sent: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that a form holds."""
    values = {each.name.removeprefix(PREFIX): each.read(sent.get(each.name, "")) for each in found}
    return {name: value for name, value in values.items() if value is not None}
