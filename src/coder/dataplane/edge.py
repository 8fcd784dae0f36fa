"""The edge: the HTTP front with the relay and the STUN server, everything else handed to the application."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from coder.dataplane.way_out import way_out
from coder.errors import CoderError, Unreachable
from coder.ids import Secret
from coder.outbound import Outbound

if TYPE_CHECKING:
    from coder.dataplane.engine import Node


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeSettings:
    """Everything an edge is started with."""

    listen: tuple[str, ...] = ()
    """`ip:port` to serve HTTP on; port 0 takes a free one."""
    listen_tls: tuple[str, ...] = ()
    """`ip:port` to serve HTTPS on; needs `certificates`."""
    listen_metrics: tuple[str, ...] = ()
    """`ip:port` to serve `/healthz` and `/metrics` on, for nobody but the operator."""
    certificates: tuple[tuple[str, str], ...] = ()
    """Paths of each certificate's chain and private key, PEM; read again when they change. A client gets the first that
    has the name it asks for, else the first of all."""
    tls_13_only: bool = False
    """Refuse TLS below 1.3."""
    upstream: str | None
    """Path of the application's Unix socket; None is a relay and nothing else."""
    derp: bool = True
    """Serve the relay."""
    stun: tuple[str, ...] = ()
    """`ip:port` to answer STUN on."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks whose forwarding headers are believed."""
    mesh_key: Secret | None = None
    """What the relays of a region share; without one there is no mesh."""
    mesh: tuple[str, ...] = ()
    """URLs of the other relays of the region."""
    mesh_roots: bytes | None = field(default=None, repr=False)
    """PEM of the only authorities to trust for those; None: those of `outbound`."""
    mesh_name: str | None = None
    """What their certificates must carry instead of their host: a name, or `sha256-raw:<hex>`."""
    outbound: Outbound = field(default_factory=Outbound)
    """The rules for reaching them."""
    rate_limit: tuple[int, int] | None = None
    """Bytes per second of one relay client, and bytes at once after a rest."""
    require_announced: bool = False
    """Relay clients whose keys are not announced get a trickle, and are cut off after 10 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppSettings:
    """What an edge must know to serve apps of workspaces."""

    wildcard: str
    """Host of apps, as `*.apps.example.com`; empty: apps have paths only."""
    dashboard: str
    """Host of the access URL, which never is an app's."""
    secret: Secret
    """What the edge proves itself with when it asks the application."""
    keys: Mapping[str, bytes] = field(repr=False)
    """Keys of tickets by their ids."""


class Edge:
    """A running edge.

    Raises:
        Unreachable: an address cannot be bound or the certificate cannot be used; the message says which and why.
        CoderError: a URL, a network or an address is none.

    """

    def __init__(self, settings: EdgeSettings) -> None:
        from coder.dataplane import _native  # noqa: PLC0415 - tests of the server run without the library

        try:
            self._native = _native.Edge(
                listen=settings.listen,
                listen_tls=settings.listen_tls,
                listen_metrics=settings.listen_metrics,
                certificates=settings.certificates,
                upstream=settings.upstream,
                derp=settings.derp,
                stun=settings.stun,
                trusted_proxies=settings.trusted_proxies,
                mesh_key=settings.mesh_key.reveal() if settings.mesh_key is not None else None,
                mesh=settings.mesh,
                mesh_roots=settings.mesh_roots,
                mesh_name=settings.mesh_name,
                rate_limit=settings.rate_limit,
                require_announced=settings.require_announced,
                tls_13_only=settings.tls_13_only,
                **way_out(settings.outbound),
            )
        except OSError as error:
            raise Unreachable(str(error), remedy="") from error  # the text names the remedy
        except ValueError as error:
            raise CoderError(str(error), remedy="Correct that setting.") from None

    @property
    def addresses(self) -> tuple[str, ...]:
        """`ip:port` of each listener: HTTP first, then HTTPS."""
        return tuple(self._native.addresses)

    @property
    def metrics_addresses(self) -> tuple[str, ...]:
        """`ip:port` of each listener for health and metrics."""
        return tuple(self._native.metrics_addresses)

    @property
    def stun_ports(self) -> tuple[int, ...]:
        """UDP ports that answer STUN."""
        return tuple(int(address.rpartition(":")[2]) for address in self._native.stun_addresses)

    @property
    def relay_key(self) -> str:
        """The relay's public key, as its clients see it."""
        return self._native.relay_key

    @property
    def certificate_problem(self) -> str | None:
        """Why changed files of a certificate are not in use, in one line; None once they are."""
        return self._native.certificate_problem

    @property
    def mesh_problems(self) -> dict[str, str]:
        """Why links to other relays are not there, each in one line, by those relays' URLs."""
        return self._native.mesh_problems()

    def counters(self) -> dict[str, int]:
        """Read what the edge has done so far; names are those of the metrics."""
        return self._native.counters()

    def set_mesh(self, urls: Sequence[str]) -> None:
        """Keep links to exactly these relays of the region from now on. Raises ValueError for what is no URL."""
        self._native.set_mesh(urls)

    def set_apps(self, apps: AppSettings) -> None:
        """Serve apps of workspaces by these settings from now on."""
        self._native.set_apps(
            wildcard=apps.wildcard, dashboard=apps.dashboard, secret=apps.secret.reveal(), keys=dict(apps.keys)
        )

    def set_dial(self, node: "Node | None") -> None:
        """Reach workspaces through the tunnels of this node from now on; None: no more."""
        engine, number = node.handle if node else (None, 0)
        self._native.set_dial(engine, number)

    def require_announced(self, required: bool) -> None:
        """Require relay clients to be announced from now on, or no more."""
        self._native.require_announced(required)

    def announce(self, keys: Sequence[str]) -> None:
        """Let relay clients with these keys (`nodekey:...`) stay. Raises ValueError for what is no key."""
        self._native.announce(keys)

    def withdraw(self, keys: Sequence[str]) -> None:
        """Treat relay clients with these keys as unknown again."""
        self._native.withdraw(keys)

    def next_unannounced(self, patience: float) -> tuple[str, str] | None:
        """Wait `patience` seconds at most, blocking, for a login with an unknown key: the key, and `ip:port`."""
        return self._native.next_unannounced(patience)

    def set_health(self, problem: str) -> None:
        """Tell all relay clients of a problem; an empty text says that it is over."""
        self._native.set_health(problem)

    def close(self) -> None:
        """Stop accepting, let requests in flight end, tell relay clients to come back, join the threads."""
        self._native.close()


def read_setting(path: str) -> bytes:
    """Return what a file named in a setting holds. Raises CoderError."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CoderError(f"cannot read {path}: {(error.strerror or '').lower()}") from None


def mesh_key(path: str) -> Secret:
    """Return the secret of a region's relays that a file holds. Raises CoderError."""
    text = read_setting(path).decode("utf-8", "replace").strip()
    if len(text) < MESH_KEY_LENGTH:
        raise CoderError(f"the mesh key in {path} is too short", remedy="Make one with: openssl rand -hex 32")
    return Secret(text)


MESH_KEY_LENGTH = 16
"""Characters it has at least."""


def self_signed(names: Sequence[str]) -> tuple[str, str]:
    """Make a certificate that vouches for itself, and its key, as PEM. Raises `Unreachable` for impossible names."""
    from coder.dataplane import _native  # noqa: PLC0415

    try:
        return _native.self_signed(names)
    except OSError as error:
        raise Unreachable(str(error), remedy="Give the DNS names or addresses that clients use.") from error


def certificate_pin(pem: bytes) -> str:
    """Return what `CertName` in a DERP map is to be so that exactly this certificate is trusted."""
    from coder.dataplane import _native  # noqa: PLC0415

    try:
        return _native.certificate_pin(pem)
    except OSError as error:
        raise Unreachable(str(error), remedy="Give a PEM file that starts with the server's certificate.") from error
