"""The rules for outgoing connections, as the native library takes them."""

from collections.abc import Sequence
from typing import TypedDict

from coder.outbound import Outbound, Proxy

NativeProxy = tuple[str, str, int, bool, tuple[str, str] | None]
"""For which scheme, its host and port, whether it speaks TLS, its user and password."""


class WayOut(TypedDict):
    """Keyword arguments; they hold secrets."""

    proxies: Sequence[NativeProxy]
    direct: Sequence[str]
    ca_file: str | None
    identity: tuple[str, str] | None


def way_out(outbound: Outbound) -> WayOut:
    """Return the rules as arguments."""
    return {
        "proxies": [_proxy(scheme, proxy) for scheme, proxy in outbound.proxies.by_scheme.items()],
        "direct": outbound.proxies.direct,
        "ca_file": outbound.ca_file,
        "identity": outbound.identity,
    }


def _proxy(scheme: str, proxy: Proxy) -> NativeProxy:
    login = None if proxy.user is None else (proxy.user, proxy.password.reveal() if proxy.password else "")
    return scheme, proxy.host, proxy.port, proxy.secure, login
