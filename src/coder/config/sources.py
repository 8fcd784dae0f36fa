"""Where settings come from, and which wins."""

import dataclasses
import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

from coder.config.checks import check
from coder.config.options import ConfigError, Option
from coder.config.tree import OPTIONS, Settings, read
from coder.config.values import parse, plain

CONFIG_ENV = "CODER_CONFIG_PATH"


def load(
    *, flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None, path: str | None = None
) -> Settings:
    """Build the settings from all sources.

    `flags` maps option names to values given on the command line (None: not given). `path` is the YAML file; without it
    `CODER_CONFIG_PATH` names one. Raises ConfigError, with the place of the mistake.
    """
    environ = os.environ if environ is None else environ
    values: dict[tuple[str, ...], Any] = {}
    file = path or environ.get(CONFIG_ENV)
    if file:
        values.update(_read_yaml(file))
    for option in OPTIONS:
        if environ.get(option.env):
            values[option.path] = _checked(option, environ[option.env], option.env)
        given = (flags or {}).get(option.name)
        if given is not None:
            values[option.path] = _checked(option, given, f"--{option.flag}")
    settings: Settings = _build(Settings, (), values)
    check(settings)
    return settings


def _checked(option: Option, raw: Any, place: str) -> Any:
    try:
        return parse(option, raw)
    except ValueError as problem:
        raise ConfigError(f"{place}: {problem}, not {raw!r}.") from None


def _build(cls: Any, prefix: tuple[str, ...], values: Mapping[tuple[str, ...], Any]) -> Any:
    types, arguments = get_type_hints(cls), {}
    for each in fields(cls):
        path = (*prefix, each.name)
        if dataclasses.is_dataclass(types[each.name]):
            arguments[each.name] = _build(types[each.name], path, values)
        elif path in values:
            arguments[each.name] = values[path]
    return cls(**arguments)


def _read_yaml(file: str) -> dict[tuple[str, ...], Any]:
    import yaml  # noqa: PLC0415  only a server with a file pays for it

    try:
        document = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is no UTF-8 text"
        raise ConfigError(f"Cannot read the configuration file {file}: {reason}.") from None
    except yaml.YAMLError as problem:
        raise ConfigError(f"{file} is not YAML: {' '.join(str(problem).split())}.") from None
    if document is not None and not isinstance(document, dict):
        raise ConfigError(f"{file} must hold a mapping of settings.")
    known = {option.yaml: option for option in OPTIONS}
    values = {}
    for key, raw in _leaves(document or {}, frozenset(known)):
        if any(name.startswith(f"{key}.") for name in known):
            raise ConfigError(f"{file}: {key} holds settings by name, not {raw!r}.")
        if key not in known:
            raise ConfigError(f"{file}: unknown setting {key!r}.{_suggest(key, known)}")
        values[known[key].path] = _checked(known[key], raw, f"{file}: {key}")
    return values


def _leaves(node: Mapping[Any, Any], known: frozenset[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        name = f"{prefix}{key}"
        if name not in known and isinstance(value, dict) and value:
            yield from _leaves(value, known, f"{name}.")
        elif value is not None or name not in known:
            yield name, value


def _suggest(key: str, known: Mapping[str, Option]) -> str:
    by_leaf = {name.rpartition(".")[2]: name for name in known}
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    if not close:
        leaf = difflib.get_close_matches(key.rpartition(".")[2], by_leaf, n=1, cutoff=0.7)
        close = [by_leaf[name] for name in leaf]
    return f" Did you mean {close[0]!r}?" if close else ""


def to_yaml(settings: Settings) -> str:
    """Write the settings as the YAML file that would give the same, for `--write-config`."""
    import yaml  # noqa: PLC0415

    document: dict[str, Any] = {}
    for option in OPTIONS:
        *parents, leaf = option.yaml.split(".")
        node = document
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = plain(read(settings, option))
    return str(yaml.safe_dump(document, sort_keys=False))
