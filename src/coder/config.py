# ruff: noqa: RUF009  `setting` returns a field, as `dataclasses.field` does
"""Every setting of the server: one frozen tree, one table, four sources.

The fields below *are* the table: name, type and default of an option are those of its field, the rest stands in its
`setting(...)`. Defaults yield to the YAML file, that to `CODER_*` variables, those to flags. No other module reads the
environment. Nothing heavy is imported here, because the command line builds its options from this table.
"""

import dataclasses
import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import urlsplit

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


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """Where the server listens and how it is reached."""

    address: str = setting(
        "127.0.0.1:3000",
        flag="http-address",
        yaml="networking.http.httpAddress",
        about="Address to listen on, host:port. Port 0 takes any free port.",
    )
    access_url: str = setting(
        "",
        flag="access-url",
        yaml="networking.accessURL",
        about="URL under which clients and agents reach this server. Default: made from the listening address.",
    )
    proxy_trusted_origins: tuple[str, ...] = setting(
        (),
        flag="proxy-trusted-origins",
        yaml="networking.proxyTrustedOrigins",
        about="Networks (CIDR) of reverse proxies whose forwarded-for headers are believed.",
    )
    secure_auth_cookie: bool = setting(
        False,
        flag="secure-auth-cookie",
        yaml="networking.secureAuthCookie",
        about="Send the session cookie over HTTPS only.",
    )
    samesite_auth_cookie: str = setting(
        "lax",
        flag="samesite-auth-cookie",
        yaml="networking.sameSiteAuthCookie",
        choices=("lax", "none"),
        about="SameSite attribute of the session cookie.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """Logins and tokens."""

    duration: timedelta = setting(
        timedelta(hours=24),
        flag="session-duration",
        yaml="networking.http.sessionDuration",
        about="How long a login lasts without use.",
    )
    disable_refresh: bool = setting(
        False,
        flag="disable-session-expiry-refresh",
        yaml="networking.http.disableSessionExpiryRefresh",
        about="End a login at its first expiry, however much it is used.",
    )
    default_token_lifetime: timedelta = setting(
        timedelta(days=7),
        flag="default-token-lifetime",
        yaml="defaultTokenLifetime",
        about="Lifetime of a token made without one.",
    )
    max_token_lifetime: timedelta = setting(
        timedelta(hours=876_600),
        flag="max-token-lifetime",
        yaml="networking.http.maxTokenLifetime",
        about="Longest lifetime a user may give a token.",
    )
    disable_password_auth: bool = setting(
        False,
        flag="disable-password-auth",
        yaml="networking.http.disablePasswordAuth",
        about="Refuse logins with a password, except by owners.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DerpSettings:
    """Relays, STUN and the DERP map."""

    enable: bool = setting(
        True, flag="derp-server-enable", yaml="networking.derp.enable", about="Run the embedded relay."
    )
    region_id: int = setting(
        999,
        flag="derp-server-region-id",
        yaml="networking.derp.regionID",
        about="Region id of the embedded relay, 1 to 65535.",
    )
    region_code: str = setting(
        "coder",
        flag="derp-server-region-code",
        yaml="networking.derp.regionCode",
        about="Region code of the embedded relay.",
    )
    region_name: str = setting(
        "Coder Embedded Relay",
        flag="derp-server-region-name",
        yaml="networking.derp.regionName",
        about="Region name of the embedded relay, shown to users.",
    )
    stun_addresses: tuple[str, ...] = setting(
        (),
        flag="derp-server-stun-addresses",
        yaml="networking.derp.stunAddresses",
        about="Further STUN servers, host:port. The word `disable` anywhere empties the list.",
    )
    stun_port: int = setting(
        3478,
        flag="derp-server-stun-port",
        yaml="networking.derp.stunPort",
        about="UDP port of the embedded STUN server; the port after it serves the second observation that tells NAT "
        "kinds apart. 0 takes any two free ports, -1 turns it off.",
    )
    relay_url: str = setting(
        "",
        flag="derp-server-relay-url",
        yaml="networking.derp.relayURL",
        about="URL under which other replicas reach the relay of this one. A server on its own has no use for it.",
    )
    block_direct: bool = setting(
        False,
        flag="block-direct-connections",
        env="CODER_BLOCK_DIRECT",
        yaml="networking.derp.blockDirect",
        about="Relayed connections only: no STUN, no endpoints.",
    )
    force_websockets: bool = setting(
        False,
        flag="derp-force-websockets",
        yaml="networking.derp.forceWebSockets",
        about="Clients and agents reach relays over WebSocket, for proxies that refuse other upgrades.",
    )
    config_url: str = setting(
        "",
        flag="derp-config-url",
        yaml="networking.derp.url",
        about="URL of a DERP map to start from, fetched once at start.",
    )
    config_path: str = setting(
        "",
        flag="derp-config-path",
        yaml="networking.derp.configPath",
        about="File with a DERP map to start from, read once at start.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """What clients are told about SSH names and agents."""

    ssh_hostname_prefix: str = setting(
        "coder.",
        flag="ssh-hostname-prefix",
        yaml="client.sshHostnamePrefix",
        about="Prefix of workspace names in SSH configurations.",
    )
    hostname_suffix: str = setting(
        "coder",
        flag="workspace-hostname-suffix",
        yaml="client.workspaceHostnameSuffix",
        about="Suffix of workspace names in SSH configurations.",
    )
    ssh_config_options: dict[str, str] = setting(
        {},
        flag="ssh-config-options",
        yaml="client.sshConfigOptions",
        about="Options for the SSH configuration of clients, key=value.",
    )
    troubleshooting_url: str = setting(
        "",
        flag="agent-fallback-troubleshooting-url",
        yaml="agentFallbackTroubleshootingURL",
        about="Page users are pointed at when an agent does not connect.",
    )
    stats_interval: timedelta = setting(
        timedelta(seconds=30),
        flag="agent-stats-refresh-interval",
        yaml="introspection.agentStatsRefreshInterval",
        about="How often agents report their statistics.",
        hidden=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What is logged, and how."""

    format: str = setting(
        "auto",
        flag="log-format",
        yaml="introspection.logging.format",
        choices=("auto", "human", "json"),
        about="`auto` is human on a terminal, JSON otherwise.",
    )
    level: str = setting(
        "info",
        flag="log-level",
        yaml="introspection.logging.level",
        choices=("debug", "info", "warning", "error"),
        about="Least level that is logged.",
    )


def default_state_dir() -> str:
    """Return the directory the server keeps its database in when none is given (XDG state home)."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return str(Path(base) / "coder")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole tree. Rooms receive the part they need."""

    http: HttpSettings = HttpSettings()
    sessions: SessionSettings = SessionSettings()
    derp: DerpSettings = DerpSettings()
    client: ClientSettings = field(default_factory=ClientSettings)
    log: LogSettings = LogSettings()
    state_dir: str = setting(
        "",
        flag="state-dir",
        yaml="stateDir",
        about="Directory of the database. Default: `coder` in the XDG state directory.",
    )

    @property
    def state_path(self) -> Path:
        """The state directory, with its default applied."""
        return Path(self.state_dir or default_state_dir()).expanduser()


def _walk(cls: type, prefix: tuple[str, ...] = ()) -> Iterator[Option]:
    types = get_type_hints(cls)
    for each in fields(cls):
        path, kind = (*prefix, each.name), types[each.name]
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            yield from _walk(kind, path)
            continue
        missing = each.default is dataclasses.MISSING
        default = each.default_factory() if missing and callable(each.default_factory) else each.default
        yield Option(path=path, kind=kind, default=default, **each.metadata)


OPTIONS: tuple[Option, ...] = tuple(_walk(Settings))
"""The option table, in the order of the tree."""

CONFIG_ENV = "CODER_CONFIG_PATH"

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_BOOLS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def parse_duration(text: str) -> timedelta:
    """Read `24h0m0s`, `90s` or `1h30m`. Raises ValueError for anything else."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("expected a duration such as 24h or 1m30s")
    return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))


def format_duration(value: timedelta) -> str:
    """Write a duration as `24h0m0s`, the inverse of `parse_duration`."""
    minutes, seconds = divmod(value.total_seconds(), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}h{minutes}m{seconds:g}s"


def parse(option: Option, raw: Any) -> Any:
    """Turn text, or what YAML made of it, into the option's type. Raises ValueError with the reason."""
    value = _convert(option.kind, raw)
    if option.choices and value not in option.choices:
        raise ValueError(f"expected one of {', '.join(option.choices)}")
    return value


def _convert(kind: Any, raw: Any) -> Any:  # noqa: PLR0911
    if kind is bool:
        if isinstance(raw, bool):
            return raw
        if str(raw).lower() in _BOOLS:
            return _BOOLS[str(raw).lower()]
        raise ValueError("expected true or false")
    if kind is int:
        if isinstance(raw, bool) or not re.fullmatch(r"-?\d{1,9}", str(raw)):
            raise ValueError("expected a whole number")
        return int(raw)
    if kind is timedelta:
        return parse_duration(str(raw))
    if kind == tuple[str, ...]:
        parts = raw if isinstance(raw, (list, tuple)) else str(raw).split(",")
        return tuple(str(part).strip() for part in parts if str(part).strip())
    if kind == dict[str, str]:
        return _pairs(raw)
    return _single(raw)


def _single(raw: Any) -> str:
    if isinstance(raw, (dict, list)):
        raise ValueError("expected a single value")  # noqa: TRY004  all conversions raise ValueError
    return str(raw)


def _pairs(raw: Any) -> dict[str, str]:
    if isinstance(raw, Mapping):
        return {str(key): str(value) for key, value in raw.items()}
    parts = raw if isinstance(raw, (list, tuple)) else [part for part in str(raw).split(",") if part]
    pairs = {}
    for part in parts:
        key, separator, value = str(part).partition("=")
        if not separator or not key.strip():
            raise ValueError("expected key=value")
        pairs[key.strip()] = value.strip()
    return pairs


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
    split_address(settings.http.address)
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


def _check_networks(networks: tuple[str, ...]) -> None:
    if not networks:
        return
    from ipaddress import ip_network  # noqa: PLC0415  rarely needed

    for text in networks:
        try:
            ip_network(text)
        except ValueError as problem:
            raise ConfigError(f"--proxy-trusted-origins: {problem}.") from None


def split_address(address: str) -> tuple[str, int]:
    """Split host:port; `:3000` listens everywhere, IPv6 hosts stand in brackets. Raises ConfigError."""
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdecimal() or int(port) > 65535 or (":" in host and not host.startswith("[")):
        raise ConfigError(f"--http-address: expected host:port, not {address!r}.")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104  asked for by the empty host


def read(settings: Settings, option: Option) -> Any:
    """Return the value of one option."""
    value: Any = settings
    for name in option.path:
        value = getattr(value, name)
    return value


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


def plain(value: Any) -> Any:
    """Return a value as YAML writes it."""
    if isinstance(value, timedelta):
        return format_duration(value)
    return list(value) if isinstance(value, tuple) else value
