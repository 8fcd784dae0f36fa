"""Composition: builds the parts of a server, runs them, and takes them down in order."""

import asyncio
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import structlog

from coder import BUILD_VERSION
from coder.access import app_names
from coder.access.limits import NO_LIMIT, Limit, LoginLimits, Pace
from coder.access.templates import Kind
from coder.clock import Clock, SystemClock
from coder.config import ConfigError, DerpSettings, HttpSettings, Settings, listen_address, split_address
from coder.dataplane.edge import AppSettings, EdgeSettings, certificate_pin, mesh_key, read_setting
from coder.dataplane.edge import Edge as NativeEdge
from coder.dataplane.engine import Node
from coder.db import site, users
from coder.db.store import SqliteStore
from coder.errors import Unreachable
from coder.outbound import Outbound
from coder.server import apps, certificates, keeping_hours, maps, mesh_links, pruning, resume_keys
from coder.server.app import create_app
from coder.server.build_runner import BuildRunner
from coder.server.deployment import Deployment
from coder.server.envelope import Observe
from coder.server.introductions import Introductions
from coder.server.metrics import Metrics
from coder.server.metrics import create_app as metrics_app
from coder.server.node import NodePlan, ServerNode
from coder.server.oidc import Client, Provider
from coder.server.provision import Provisioner
from coder.server.provision_docker import DockerProvisioner
from coder.server.provision_process import ProcessProvisioner
from coder.server.provision_ssh import SshProvisioner
from coder.server.relay_clients import RelayClients
from coder.server.web_server import shown, web_server
from coder.tailnet.coordinator import MemoryCoordinator

log = structlog.get_logger(__name__)

GRACE = 2.0
"""Seconds that connections get for their goodbyes when the server stops."""


class Edge(Protocol):
    """The front of the server: HTTP, relay and STUN; everything else goes to us over a unix socket."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses it listens on, host:port."""

    @property
    def stun_ports(self) -> tuple[int, ...]:
        """The UDP ports it answers STUN on."""

    @property
    def certificate_problem(self) -> str | None:
        """Why changed files of a certificate are not in use."""

    @property
    def mesh_problems(self) -> Mapping[str, str]:
        """Why links to other relays are not there."""

    def counters(self) -> Mapping[str, int]:
        """Read what it has done so far."""

    def set_apps(self, apps: AppSettings) -> None:
        """Serve apps of workspaces by these settings."""

    def set_dial(self, node: Node | None) -> None:
        """Reach workspaces through the tunnels of this node."""

    def announce(self, keys: Sequence[str]) -> None:
        """Let relay clients with these keys stay."""

    def withdraw(self, keys: Sequence[str]) -> None:
        """Treat relay clients with these keys as unknown."""

    def close(self) -> None:
        """Stop listening and end all connections. May block for a moment."""


EdgeFactory = Callable[[EdgeSettings], Edge]
"""Starts an edge. Raises Unreachable when an address is taken. Tests pass one that needs no native code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What a running server tells its operator."""

    version: str
    access_url: str
    access_url_derived: bool
    addresses: tuple[str, ...]
    stun_ports: tuple[int, ...]
    metrics: str | None
    """URL of the numbers for Prometheus."""
    needs_first_user: bool


async def run(
    settings: Settings,
    *,
    announce: Callable[[Ready], None],
    edge_factory: EdgeFactory = NativeEdge,
    clock: Clock | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Run a server until SIGTERM, SIGINT or `stop`. Raises CoderError when it cannot start."""
    clock, stop = clock or SystemClock(), stop or asyncio.Event()
    async with AsyncExitStack() as parts:
        store = await SqliteStore.open(settings.state_path)
        parts.push_async_callback(store.close)
        directory = parts.enter_context(tempfile.TemporaryDirectory(prefix="coder-"))
        upstream = parts.enter_context(_unix_socket(Path(directory) / "app.sock"))
        edge = await asyncio.to_thread(_opened, edge_factory, _plan(settings, upstream.getsockname()))
        parts.push_async_callback(asyncio.to_thread, edge.close)
        scheme = "https" if settings.tls.enable else "http"
        access_url = settings.http.access_url.rstrip("/") or derive_access_url(edge.addresses[-1], scheme)
        relay_clients = RelayClients(edge) if _verifies(settings) else None
        deployment = await assemble(
            settings,
            store,
            access_url,
            edge.stun_ports,
            clock,
            relay_clients=relay_clients,
            own_url=own_url(edge.addresses, "http" if settings.http.address else "https"),
            certificate_problem=lambda: edge.certificate_problem,
        )
        parts.push_async_callback(deployment.node.close)
        deployment.node.on_started(edge.set_dial)
        deployment.apps.tunnels = deployment.node
        serve_apps = _serving_apps(edge, deployment)
        serve_apps(deployment.apps.signer.keys)
        async with store.read() as session:
            needs_first_user = not await users.any_exist(session)
        numbers, metrics_url = None, None
        if settings.prometheus.enable:
            numbers = Metrics(deployment, edge.counters)
            place = split_address(settings.prometheus.address, "prometheus-address")
            metrics_url = f"http://{await parts.enter_async_context(shown(metrics_app(numbers), *place))}/metrics"
        parts.enter_context(_signals(stop))
        renewing = asyncio.create_task(apps.renew(deployment.apps, store, clock, serve_apps))
        parts.callback(renewing.cancel)
        if settings.derp.mesh_with:
            linking = asyncio.create_task(mesh_links.watch(lambda: edge.mesh_problems, clock))
            parts.callback(linking.cancel)
        await _serve(
            deployment,
            upstream,
            stop,
            numbers.observe if numbers else None,
            lambda: announce(
                Ready(
                    version=BUILD_VERSION,
                    access_url=access_url,
                    access_url_derived=not settings.http.access_url,
                    addresses=edge.addresses,
                    stun_ports=edge.stun_ports,
                    metrics=metrics_url,
                    needs_first_user=needs_first_user,
                )
            ),
        )


def _opened(factory: EdgeFactory, plan: EdgeSettings) -> Edge:
    try:
        return factory(plan)
    except Unreachable as fault:
        if "(UDP)" in fault.message:  # nobody asked for this port by name
            remedy = "STUN answers on UDP 3478 and 3479: --derp-server-stun-port takes others, 0 any two that are free."
            raise Unreachable(fault.message, remedy=remedy) from fault
        raise


async def assemble(
    settings: Settings,
    store: SqliteStore,
    access_url: str,
    stun_ports: tuple[int, ...],
    clock: Clock,
    *,
    relay_clients: RelayClients | None = None,
    own_url: str | None = None,
    certificate_problem: Callable[[], str | None] = lambda: None,
    provisioners: Mapping[Kind, Provisioner] | None = None,
) -> Deployment:
    """Build a deployment on an open store."""
    async with store.write() as session:
        here = await site.ensure(session, clock.now())
    recipe = maps.Recipe(
        settings=settings.derp,
        access_url=access_url,
        stun_ports=stun_ports,
        outbound=_outbound_rules(settings),
        kept=settings.state_path / "derp-map",
    )
    derp_maps, introductions = await maps.load(recipe), Introductions(MemoryCoordinator(), relay_clients)
    if settings.outbound.ca_file or settings.outbound.cert_file:
        recipe.outbound.context()  # a file that cannot be used is told now, not at the first connection
    plan = NodePlan(
        url=own_url or access_url,
        pin=_pin(settings, own_url),
        block_direct=settings.derp.block_direct,
        force_websockets=settings.derp.force_websockets,
        outbound=recipe.outbound,
    )
    return Deployment(
        settings=settings,
        access_url=access_url,
        store=store,
        clock=clock,
        site=here,
        maps=derp_maps,
        map_recipe=recipe,
        certificate_problem=certificate_problem,
        oidc=_provider(settings, access_url, recipe.outbound, clock),
        introductions=introductions,
        node=ServerNode(plan, introductions, derp_maps, clock),
        resume=await resume_keys.load(store, clock),
        runner=BuildRunner(provisioners or _provisioners(clock, settings.outbound.ca_file)),
        apps=await apps.load(store, clock),
        login_limits=_login_limits(settings.http),
        api_limits=Pace(Limit(0 if settings.http.disable_rate_limits else settings.http.api_rate_limit, 60.0)),
    )


def _outbound_rules(settings: Settings) -> Outbound:
    outside = settings.outbound
    return Outbound.of(outside.ca_file, outside.cert_file, outside.key_file)


def _serving_apps(edge: Edge, deployment: Deployment) -> Callable[[Mapping[str, bytes]], None]:
    """Return what tells the edge with which keys tickets are signed."""
    wildcard = deployment.settings.apps.wildcard_access_url
    problem = wildcard and app_names.wildcard_problem(wildcard)
    if problem:
        raise ConfigError(f"--wildcard-access-url: {problem}")
    dashboard = urlsplit(deployment.access_url).hostname or ""

    def tell(keys: Mapping[str, bytes]) -> None:
        secret = deployment.apps.secret
        edge.set_apps(AppSettings(wildcard=wildcard, dashboard=dashboard, secret=secret, keys=keys))

    return tell


def _provisioners(clock: Clock, ca_file: str) -> Mapping[Kind, Provisioner]:
    return {
        Kind.PROCESS: ProcessProvisioner(clock, ca_file=ca_file),
        Kind.DOCKER: DockerProvisioner(clock),
        Kind.SSH: SshProvisioner(),
    }


def _provider(settings: Settings, access_url: str, outbound: Outbound, clock: Clock) -> Provider | None:
    chosen = settings.oidc
    if not chosen.issuer_url:
        return None
    if not chosen.client_id:
        raise ConfigError("--oidc-issuer-url needs the name of this deployment there: give --oidc-client-id.")
    secret = read_setting(chosen.client_secret_file).decode().strip() if chosen.client_secret_file else ""
    where = f"{access_url.rstrip('/')}/api/v2/users/oidc/callback"
    return Provider(Client(chosen.issuer_url, chosen.client_id, secret, where, chosen.scopes), outbound, clock.now)


def _login_limits(settings: HttpSettings) -> LoginLimits:
    return LoginLimits(NO_LIMIT, NO_LIMIT, NO_LIMIT) if settings.disable_rate_limits else LoginLimits()


def _verifies(settings: Settings) -> bool:
    """Whether the relay serves nodes that were introduced only; else browser-only would leave it to everybody."""
    return settings.derp.verify_clients or settings.http.browser_only


def _plan(settings: Settings, upstream: str) -> EdgeSettings:
    derp = settings.derp
    if derp.mesh_with and not derp.mesh_key_file:
        raise ConfigError("--derp-server-mesh-with needs the region's secret: give --derp-server-mesh-key-file.")
    return EdgeSettings(
        listen=(listen_address(settings.http.address, "http-address"),) if settings.http.address else (),
        listen_tls=(listen_address(settings.tls.address, "tls-address"),) if settings.tls.enable else (),
        certificates=tuple(zip(settings.tls.cert_files, settings.tls.key_files, strict=True))
        if settings.tls.enable
        else (),
        tls_13_only=settings.tls.min_version == "tls13",
        upstream=upstream,
        derp=derp.enable,
        require_announced=_verifies(settings),
        stun=_stun_addresses(derp),
        mesh_key=mesh_key(derp.mesh_key_file) if derp.mesh_key_file else None,
        mesh=derp.mesh_with,
        mesh_roots=read_setting(derp.mesh_ca_file) if derp.mesh_ca_file else None,
        mesh_name=derp.mesh_cert_name or None,
        outbound=_outbound_rules(settings),
        trusted_proxies=settings.http.proxy_trusted_origins,
    )


def _stun_addresses(derp: DerpSettings) -> tuple[str, ...]:
    """Return where STUN is answered: two ports, so that a node can tell whether its NAT maps by destination."""
    if not derp.enable or derp.block_direct or derp.stun_port < 0:
        return ()
    ports = (0, 0) if derp.stun_port == 0 else (derp.stun_port, derp.stun_port + 1)
    any_address = "[::]" if _has_ipv6() else "0.0.0.0"  # noqa: S104 - asked for by whoever did not turn it off
    return tuple(f"{any_address}:{port}" for port in ports)


def _has_ipv6() -> bool:
    """Whether this system has IPv6 sockets. They take IPv4 too."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


def own_url(addresses: Sequence[str], scheme: str) -> str:
    """Return the URL at which this process itself reaches the edge, HTTP where it has it."""
    return derive_access_url(addresses[0], scheme)


def _pin(settings: Settings, own_url: str | None) -> Callable[[], str | None]:
    """Return what reads by what the edge's certificate is to be known, None where the node needs none."""
    if own_url is None or not own_url.startswith("https:"):
        return lambda: None
    return lambda: certificate_pin(read_setting(settings.tls.cert_files[0]))


def derive_access_url(address: str, scheme: str) -> str:
    """Make an access URL from a listening address. It serves this machine only."""
    parts = urlsplit(f"http://{address}")
    host = parts.hostname or "127.0.0.1"
    if host in {"0.0.0.0", "::"}:  # noqa: S104
        host = "127.0.0.1"
    return f"{scheme}://[{host}]:{parts.port}" if ":" in host else f"{scheme}://{host}:{parts.port}"


@contextmanager
def _unix_socket(path: Path) -> Iterator[socket.socket]:
    # It listens before the edge does, so that requests of the first moment wait instead of failing.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(1024)
        listener.setblocking(False)
        yield listener


@contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    wanted = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup is obeyed
        wanted.append(signal.SIGHUP)
    for each in wanted:
        loop.add_signal_handler(each, stop.set)
    try:
        yield
    finally:
        for each in wanted:
            loop.remove_signal_handler(each)


async def _serve(
    deployment: Deployment,
    listener: socket.socket,
    stop: asyncio.Event,
    observe: Observe | None,
    ready: Callable[[], None],
) -> None:
    server = web_server(create_app(deployment, observe))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    stopping = asyncio.create_task(stop.wait())
    keeping = [
        asyncio.create_task(pruning.prune(deployment)),
        asyncio.create_task(certificates.watch(deployment.certificate_problem, deployment.clock)),
        asyncio.create_task(keeping_hours.keep(deployment)),
        asyncio.create_task(resume_keys.renew(deployment.resume, deployment.store, deployment.clock)),
        asyncio.create_task(maps.follow(deployment.maps, deployment.map_recipe, deployment.clock)),
    ]
    try:
        await deployment.runner.resume(deployment)
        ready()
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        log.info("server.stopping")
        await deployment.runner.stop()
        deployment.introductions.shutdown()
        await deployment.sockets.stop(GRACE)
    finally:
        stopping.cancel()
        for task in keeping:
            task.cancel()
        server.should_exit = True
        await asyncio.gather(serving, *keeping, return_exceptions=True)
        serving.result()
    log.info("server.stopped")
