"""Numbers for Prometheus, in its text format, on an address of their own.

Whoever reads them is not asked who they are, so the address is one that only the operator reaches.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from coder import BUILD_VERSION
from coder.db import statistics
from coder.db.statistics import Totals
from coder.server import build_status
from coder.server.app import API
from coder.server.deployment import Deployment

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_EDGE_GAUGES: Final = frozenset(
    {"connections", "relay_clients", "relay_at_home", "relay_queued_bytes", "relay_links"}
)  # all else of the edge only grows

Counters = Callable[[], Mapping[str, int]]
"""Reads what the edge has done so far."""


class Metrics:
    """What is measured while the server runs, and what is counted when somebody asks."""

    def __init__(self, deployment: Deployment, counters: Counters) -> None:
        self._deployment, self._counters = deployment, counters
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._seconds = Histogram(
            "coder_api_request_seconds",
            "Time from a request to the last byte of its answer, by route.",
            ("method", "route", "status"),
            registry=self._registry,
            buckets=_BUCKETS,
        )
        self._counted: list[Metric] = []
        self._registry.register(self)

    def observe(self, scope: Scope, status: int, seconds: float) -> None:
        """Note an answer. Routes are patterns, such as `/api/v2/users/{user}`, so that there are few."""
        method, route = scope["method"], "other"
        if "route" in scope:
            route = scope["route"].path
            if scope["path"].startswith(f"{API}/"):
                route = API + route
        self._seconds.labels(method if method in _METHODS else "other", route, status).observe(seconds)

    def collect(self) -> Iterable[Metric]:
        """Return what was counted last; the registry asks."""
        return self._counted

    async def read(self) -> bytes:
        """Count, and write everything in the text format. Raises SQLAlchemyError when the database does not answer."""
        async with self._deployment.store.read() as session:
            totals = await statistics.totals(session)
        self._counted = [*_things(totals, self._deployment), *_edge(self._counters())]
        return generate_latest(self._registry)


def create_app(metrics: Metrics) -> Starlette:
    """Build the application that shows them."""

    async def show(_: Request) -> Response:
        try:
            text = await metrics.read()
        except SQLAlchemyError:
            return PlainTextResponse("The database does not answer; the server's log says why.\n", 503)
        return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return Starlette(routes=[Route("/metrics", show)])


def _things(totals: Totals, deployment: Deployment) -> Iterable[Metric]:
    yield _gauge("coder_info", "The version that runs.", ("version",), {(BUILD_VERSION,): 1})
    by_status: dict[tuple[str, ...], int] = {(status,): count for status, count in totals.users.items()}
    yield _gauge("coder_users", "Users by status.", ("status",), by_status)
    states: dict[tuple[str, ...], int] = {}
    for (transition, outcome), count in totals.workspaces.items():
        state = (build_status.name(transition, outcome),)
        states[state] = states.get(state, 0) + count
    yield _gauge("coder_workspaces", "Workspaces by status.", ("status",), states)
    yield _gauge("coder_agents", "Agents of workspaces.", (), {(): totals.agents})
    yield _gauge("coder_agents_connected", "Agents that are connected.", (), {(): len(deployment.presence)})
    yield _gauge("coder_peers", "Nodes at the coordinator.", (), {(): deployment.introductions.peers})
    yield _gauge("coder_tunnels", "The server's own tunnels to agents.", (), {(): deployment.node.tunnels})
    yield _gauge("coder_terminals", "Terminals that browsers show.", (), {(): deployment.terminals.total})


def _edge(counters: Mapping[str, int]) -> Iterable[Metric]:
    for name, value in counters.items():
        family = GaugeMetricFamily if name in _EDGE_GAUGES else CounterMetricFamily
        yield family(f"coder_edge_{name}", "The edge: relay, TLS and apps.", value=value)


def _gauge(
    name: str, about: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], float]
) -> GaugeMetricFamily:
    made = GaugeMetricFamily(name, about, labels=labels)
    for key, value in sorted(values.items()):
        made.add_metric(key, value)
    return made
