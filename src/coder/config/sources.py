"""Where settings come from, and what is refused."""

import dataclasses
import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import urlsplit

from coder.config.options import ConfigError, Option
from coder.config.tree import OPTIONS, Settings, TlsSettings, read
from coder.config.values import parse, plain, split_address

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
    _check(settings)
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
        raise ConfigError(f"Cannot read the configuration file {file}: {problem}.") from None
    except yaml.YAMLError as problem:
        raise ConfigError(f"{file} is not YAML: {' '.join(str(problem).split())}.") from None
    if document is not None and not isinstance(document, dict):
        raise ConfigError(f"{file} must hold a mapping of settings.")
    known = {option.yaml: option for option in OPTIONS}
    values = {}
    for key, raw in _leaves(document or {}, frozenset(known)):
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


def _check(settings: Settings) -> None:
    """Refuse values that are well-formed but cannot work."""
    if settings.http.address or not settings.tls.enable:
        split_address(settings.http.address)
    if settings.tls.enable:
        _check_tls(settings.tls)
    url = settings.http.access_url
    if url and (urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname):
        raise ConfigError(f"--access-url: expected a URL such as https://coder.example.com, not {url!r}.")
    if not -1 <= settings.derp.stun_port < 65535:
        raise ConfigError("--derp-server-stun-port: expected a port from 1 to 65534, 0 for any, or -1 for none.")
    if not 1 <= settings.derp.region_id <= 65535:
        raise ConfigError("--derp-server-region-id: expected a number from 1 to 65535.")
    _check_networks(settings.http.proxy_trusted_origins)
    for option in OPTIONS:
        value = read(settings, option)
        if option.kind is timedelta and value <= timedelta(0):
            raise ConfigError(f"--{option.flag}: expected a duration above zero.")


def _check_tls(tls: TlsSettings) -> None:
    split_address(tls.address, "tls-address")
    if not tls.cert_files or len(tls.cert_files) != len(tls.key_files):
        raise ConfigError(
            "--tls-enable needs a --tls-cert-file and its --tls-key-file, both PEM; a chain goes into the same file. "
            "For several certificates give both as often, in the same order."
        )
    if tls.strict_transport_security < 0:
        raise ConfigError("--strict-transport-security: expected a number of seconds, 0 or more.")
    for option in tls.strict_transport_security_options:
        if option not in {"includeSubDomains", "preload"}:
            raise ConfigError(
                f"--strict-transport-security-options: {option!r} is neither includeSubDomains nor preload."
            )


def _check_networks(networks: tuple[str, ...]) -> None:
    if not networks:
        return
    from ipaddress import ip_network  # noqa: PLC0415  rarely needed

    for text in networks:
        try:
            ip_network(text)
        except ValueError as problem:
            raise ConfigError(f"--proxy-trusted-origins: {problem}.") from None


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
