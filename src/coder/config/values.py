"""Values as text: how each type of option is read and written."""

import re
from collections.abc import Mapping
from datetime import timedelta
from ipaddress import ip_address
from typing import Any

from coder.config.options import ConfigError, Option

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|d|h|m|s)")
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_BOOLS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def parse_duration(text: str) -> timedelta:
    """Read `24h0m0s`, `90s`, `90d` or `0`. Raises ValueError for anything else."""
    if text == "0":
        return timedelta()
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("expected a duration such as 90d, 24h or 1m30s")
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


def plain(value: Any) -> Any:
    """Return a value as YAML writes it."""
    if isinstance(value, timedelta):
        return format_duration(value)
    return list(value) if isinstance(value, tuple) else value


def listen_address(address: str, flag: str) -> str:
    """Return ip:port of a listening address, as `split_address` reads it. Raises ConfigError for other names."""
    host, port = split_address(address, flag)
    try:
        found = ip_address({"localhost": "127.0.0.1"}.get(host, host))
    except ValueError:
        raise ConfigError(
            f"--{flag}: {host!r} is no IP address of this machine.", remedy="Write it like 0.0.0.0:443 or [::]:443."
        ) from None
    return f"[{found}]:{port}" if found.version == 6 else f"{found}:{port}"


def split_address(address: str, flag: str = "http-address") -> tuple[str, int]:
    """Split host:port; `:3000` listens everywhere, IPv6 hosts stand in brackets. Raises ConfigError."""
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdecimal() or int(port) > 65535 or (":" in host and not host.startswith("[")):
        raise ConfigError(f"--{flag}: expected host:port, not {address!r}.")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104  asked for by the empty host
