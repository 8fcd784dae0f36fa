"""How this process reaches whatever is outside: one set of rules for API, coordination, relays and DERP maps.

Proxies come from the environment, authorities from the system's trust store and `--ca-file`, our own certificate from
`--client-tls-cert-file`. The files are read at each connection, so that renewed ones need no restart.
"""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from coder.errors import CoderError, Unreachable
from coder.ids import Secret

if TYPE_CHECKING:
    import http.client
    import socket
    import ssl
    from ssl import SSLContext


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy that understands CONNECT."""

    host: str
    port: int
    user: str | None = None
    password: Secret | None = None
    secure: bool = False
    """TLS is spoken with the proxy itself, by the rules for servers."""

    def authorization(self) -> str | None:
        """Return the value of Proxy-Authorization, a secret, for a proxy that wants one."""
        import base64  # noqa: PLC0415 - start-up time

        if self.user is None:
            return None
        login = f"{self.user}:{self.password.reveal() if self.password else ''}"
        return f"Basic {base64.b64encode(login.encode()).decode()}"

    @property
    def address(self) -> str:
        """`host:port`, without the login."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def url(self) -> str:
        """Return the proxy as a URL with its login, a secret."""
        from urllib.parse import quote  # noqa: PLC0415 - start-up time

        scheme = "https" if self.secure else "http"
        if self.user is None:
            return f"{scheme}://{self.address}"
        password = quote(self.password.reveal(), safe="") if self.password else ""
        return f"{scheme}://{quote(self.user, safe='')}:{password}@{self.address}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxies:
    """What is reached through a proxy."""

    by_scheme: Mapping[str, Proxy] = field(default_factory=dict)
    """For `https` and `http`: what speaks TLS, and what does not."""
    direct: tuple[str, ...] = ()
    """Hosts that are reached directly.

    A name stands for all below it too, `name:port` for one port, `10.0.0.0/8` for addresses, `*` for all.
    """

    @classmethod
    def of_system(cls) -> "Proxies":
        """Return what environment (HTTPS_PROXY, HTTP_PROXY, NO_PROXY) or system say. Raises CoderError."""
        if sys.platform == "linux" and not any(name.lower().endswith("_proxy") for name in os.environ):
            return cls()  # spares the import below
        from urllib.request import getproxies  # noqa: PLC0415 - start-up time

        found = getproxies()
        by_scheme = {scheme: _proxy(scheme, found[scheme]) for scheme in ("https", "http") if found.get(scheme)}
        direct = tuple(entry.strip() for entry in found.get("no", "").split(",") if entry.strip())
        return cls(by_scheme=by_scheme, direct=direct)

    def of(self, scheme: str, host: str, port: int) -> Proxy | None:
        """Return the proxy for a host, if it is not to be reached directly. IPv6 addresses come without brackets."""
        proxy = self.by_scheme.get(scheme)
        return None if proxy is None or any(_covers(entry, host, port) for entry in self.direct) else proxy


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbound:
    """The rules for all connections to servers and relays."""

    proxies: Proxies = field(default_factory=Proxies.of_system)
    ca_file: str | None = None
    """PEM file of authorities to trust beside the system's."""
    identity: tuple[str, str] | None = None
    """PEM files of our certificate chain and its key, for servers that ask for one."""

    @classmethod
    def of(cls, ca_file: str | None, cert_file: str | None, key_file: str | None) -> "Outbound":
        """Return the rules with these files, which may be None or empty. Raises CoderError for a key of nothing."""
        if bool(key_file) and not cert_file:
            raise CoderError(
                "there is a key without a certificate",
                remedy="Give --client-tls-cert-file too (CODER_CLIENT_TLS_CERT_FILE).",
            )
        identity = (cert_file, key_file or cert_file) if cert_file else None
        return cls(ca_file=ca_file or None, identity=identity)

    def context(self) -> "SSLContext":
        """Make what a TLS connection needs. Raises CoderError for a file that cannot be used."""
        import ssl  # noqa: PLC0415 - a plain HTTP server needs none of it

        import truststore  # noqa: PLC0415

        context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.ca_file is not None:
            try:
                context.load_verify_locations(self.ca_file)
            except OSError as error:
                raise _unusable("--ca-file (CODER_CA_FILE)", self.ca_file, error) from None
        if self.identity is not None:
            try:
                context.load_cert_chain(*self.identity, password=_no_password)
            except (OSError, ValueError) as error:
                option = "--client-tls-cert-file and --client-tls-key-file"
                raise _unusable(option, " and ".join(dict.fromkeys(self.identity)), error) from None
        return context

    def connection(
        self, url: str, timeout: float, dial: "Callable[..., socket.socket] | None" = None
    ) -> "http.client.HTTPConnection":
        """Prepare a connection to the server of an `http(s)` URL, through its proxy's tunnel if there is one.

        `timeout` is in seconds, for each step. `dial` connects by TCP in the place of `socket.create_connection`.
        Raises CoderError for files that cannot be used; what fails later is told by `failure`.
        """
        import http.client  # noqa: PLC0415 - start-up time
        from functools import partial  # noqa: PLC0415
        from urllib.parse import urlsplit  # noqa: PLC0415

        parts, proxy = urlsplit(url), self.proxy(url)
        host, port = parts.hostname or "", parts.port
        at, at_port = (host, port) if proxy is None else (proxy.host, proxy.port)
        connection: http.client.HTTPConnection
        if parts.scheme == "http":
            connection = http.client.HTTPConnection(at, at_port, timeout=timeout)
        else:
            from coder.tls_within import connection_for  # noqa: PLC0415 - a plain HTTP server needs none of it

            connection = connection_for(host, self.context(), at, at_port, timeout)
        if proxy is not None and proxy.secure:
            dial = partial(_to_proxy, proxy, self.context(), dial)
        if dial is not None:
            connection._create_connection = dial  # type: ignore[attr-defined]  # noqa: SLF001 - its hook
        if proxy is not None:
            login = proxy.authorization()
            headers = {} if login is None else {"Proxy-Authorization": login}
            bracketed = f"[{host}]" if ":" in host else host
            connection.set_tunnel(bracketed, port or connection.default_port, headers=headers)
        return connection

    def proxy(self, url: str) -> Proxy | None:
        """Return the proxy between here and the server of an `http(s)` URL."""
        from urllib.parse import urlsplit  # noqa: PLC0415 - start-up time

        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return self.proxies.of(parts.scheme, parts.hostname or "", port)

    def fetch(
        self,
        url: str,
        *,
        timeout: float,
        limit: int,
        link_local: bool = True,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Fetch a document of at most `limit` bytes within `timeout` seconds, blocking; redirects are not followed.

        With a `body` that is posted.

        Without `link_local`, nothing is asked of addresses that clouds answer on with the secrets of the machine.
        Returns one byte more than `limit` of what is larger. Raises Unreachable.
        """
        import http.client  # noqa: PLC0415 - start-up time
        import threading  # noqa: PLC0415
        import time  # noqa: PLC0415
        from urllib.parse import urlsplit, urlunsplit  # noqa: PLC0415

        from coder.link_local import refuse_link_local  # noqa: PLC0415

        try:
            parts = urlsplit(url)
            shown = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        except ValueError:
            raise Unreachable("this is no URL", remedy="Write it like https://example.com/derpmap.json.") from None
        end, found = time.monotonic() + timeout, b""
        try:
            connection = self.connection(url, timeout)
            # Each step has its own time; an answer that comes byte by byte would never be late.
            hurry = threading.Timer(timeout, _cut_off, (connection,))
            hurry.daemon = True
            hurry.start()
            try:
                if not link_local:
                    refuse_link_local(url, connection, proxied=self.proxy(url) is not None)
                path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                sent = {"Accept": "application/json", "User-Agent": "coder"} | dict(headers or {})
                connection.request("GET" if body is None else "POST", path, body=body, headers=sent)
                response = connection.getresponse()
                if response.status != http.client.OK:
                    raise Unreachable(
                        f"cannot fetch {shown}: it answered {response.status}", remedy="Check the address."
                    )
                while len(found) <= limit and (chunk := response.read1(min(1 << 16, limit + 1 - len(found)))):
                    found += chunk
                if time.monotonic() > end:
                    raise TimeoutError
                if response.length and len(found) <= limit:
                    raise http.client.IncompleteRead(found, response.length)
            finally:
                hurry.cancel()
                connection.close()
        except (OSError, ValueError, http.client.HTTPException) as error:
            late = time.monotonic() > end
            raise failure(shown, self.proxy(url), TimeoutError() if late else error) from error
        return found


def _cut_off(connection: "http.client.HTTPConnection") -> None:
    """End whatever waits for a connection, from another thread."""
    import contextlib  # noqa: PLC0415 - start-up time
    import socket  # noqa: PLC0415

    with contextlib.suppress(OSError, AttributeError):  # it may be closed, or not open yet
        socket.socket.shutdown(getattr(connection.sock, "below", connection.sock), socket.SHUT_RDWR)


def _to_proxy(
    proxy: Proxy,
    context: "SSLContext",
    dial: "Callable[..., socket.socket] | None",
    address: tuple[str, int],
    *given: Any,
) -> "ssl.SSLSocket":
    """Connect to a proxy that speaks TLS itself. Raises OSError, and Unreachable for what is wrong with its TLS."""
    import socket  # noqa: PLC0415 - start-up time
    import ssl  # noqa: PLC0415

    connected = (dial or socket.create_connection)(address, *given)
    try:
        return context.wrap_socket(connected, server_hostname=proxy.host)
    except ssl.SSLError as error:
        connected.close()
        raise tls_failure(f"the proxy {proxy.address}", error) or error from None


def failure(url: str, proxy: Proxy | None, error: Exception) -> Unreachable:
    """Say in words what kept us from the server of a URL."""
    import http.client  # noqa: PLC0415 - start-up time
    import socket  # noqa: PLC0415

    if (told := tls_failure(url, error)) is not None:
        return told
    if isinstance(error, http.client.HTTPException):
        return Unreachable(f"{url} does not answer as a web server does", remedy="Check address and port.")
    before, said, status = str(error).partition("Tunnel connection failed:")  # the standard library's words
    if proxy is not None and said and not before:
        return proxy_refused(proxy, status.strip())
    absent = isinstance(error, (socket.gaierror, ConnectionRefusedError))
    if proxy is not None and absent:
        return Unreachable(
            f"cannot reach the proxy {proxy.address}: {_why(error)}", remedy="Check HTTPS_PROXY and HTTP_PROXY."
        )
    if isinstance(error, socket.gaierror):
        return Unreachable(
            f"cannot reach the server at {url}: {_why(error)}", remedy="Check the spelling and your connection."
        )
    return Unreachable(
        f"cannot reach the server at {url}: {_why(error)}",
        remedy="Check the address, and that the server runs (coder server).",
    )


def _why(error: Exception) -> str:
    import socket  # noqa: PLC0415 - start-up time

    if isinstance(error, socket.gaierror):
        return "its host name is not known"
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    return str(getattr(error, "strerror", None) or error).lower()


def proxy_refused(proxy: Proxy | None, reason: str) -> Unreachable:
    """Say that a proxy opened no tunnel; `reason` is its status, or what was wrong with its answer."""
    return Unreachable(
        f"the proxy {proxy.address if proxy else ''} opens no tunnel: it answered {reason}",
        remedy="Check HTTPS_PROXY and HTTP_PROXY; a proxy that wants a login has user:password@ before its name.",
    )


def tls_failure(url: str, error: BaseException | None) -> Unreachable | None:
    """Say in words why TLS with a server failed; None for what is no failure of TLS, nor was caused by one."""
    from ssl import SSLCertVerificationError, SSLError  # noqa: PLC0415 - start-up time

    while error is not None and not isinstance(error, SSLError):
        error = error.__cause__ or error.__context__
    if error is None:
        return None
    if isinstance(error, SSLCertVerificationError):
        return Unreachable(
            f"the certificate of {url} cannot be trusted: {error.verify_message.rstrip('.')}",
            remedy="Use the name the certificate was made for, or name the file of its authority with --ca-file"
            " (CODER_CA_FILE).",
        )
    if any(word in str(error.reason) for word in _CLIENT_CERTIFICATE):
        return Unreachable(
            f"{url} does not let us in without a certificate it trusts",
            remedy="Name yours with --client-tls-cert-file and --client-tls-key-file (CODER_CLIENT_TLS_CERT_FILE,"
            " CODER_CLIENT_TLS_KEY_FILE).",
        )
    return Unreachable(
        f"cannot reach the server at {url}: it does not speak TLS on that port",
        remedy="Check the address, and that the server runs (coder server).",
    )


_CLIENT_CERTIFICATE = ("CERTIFICATE_REQUIRED", "ALERT_UNKNOWN_CA", "ALERT_BAD_CERTIFICATE", "ALERT_HANDSHAKE_FAILURE")
"""Alerts by which servers refuse a client for its certificate or for having none."""


def _unusable(option: str, files: str, error: BaseException) -> CoderError:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return CoderError(
        f"cannot use {files}: {str(reason).replace('_', ' ').lower()}",
        remedy=f"{option} must name PEM files that this user can read and that fit each other.",
    )


def _no_password() -> str:
    """Nobody can be asked for the password of a key."""
    raise ValueError("the key is encrypted")


def _proxy(scheme: str, address: str) -> Proxy:
    from urllib.parse import unquote, urlsplit  # noqa: PLC0415 - start-up time

    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if not host or parts.scheme not in {"http", "https"}:  # never repeats the text: it may hold a password
        raise CoderError(
            f"the address in {scheme.upper()}_PROXY is no HTTP proxy's",
            remedy="Write it like http://proxy.example.com:3128, with user:password@ before the name if it wants one.",
        )
    password = Secret(unquote(parts.password)) if parts.password is not None else None
    user = unquote(parts.username) if parts.username is not None else None
    secure = parts.scheme == "https"
    return Proxy(host, port or (443 if secure else 80), user, password, secure)


def _covers(entry: str, host: str, port: int) -> bool:
    """Whether an entry of the list of directly reached hosts means this one; relays are told apart by the same rule."""
    if entry == "*":
        return True
    if "/" in entry:
        return _within(entry, host)
    name, colon, number = entry.rpartition(":")
    if colon and (name.endswith("]") or ":" not in name):
        if number != str(port):
            return False
    else:
        name = entry  # more than one colon without brackets is an IPv6 address
    name = name.strip("[]").lstrip("*.").lower()
    return bool(name) and (host.lower() == name or host.lower().endswith(f".{name}"))


def _within(network: str, host: str) -> bool:
    """Whether a host, given as an address, is within a network; names are not looked up for it."""
    from ipaddress import ip_address, ip_network  # noqa: PLC0415 - start-up time

    try:
        return ip_address(host) in ip_network(network.strip("[]"), strict=False)
    except ValueError:
        return False
