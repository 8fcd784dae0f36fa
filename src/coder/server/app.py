"""The web application: all routes around one deployment."""

from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp

from coder import __version__
from coder.server import problems
from coder.server.audit import Audited
from coder.server.bodies import MAX_BODY, AnnouncedLength
from coder.server.deployment import Deployment
from coder.server.envelope import Envelope, Observe
from coder.server.problems import Json
from coder.server.routes import (
    accounts,
    agent_self,
    agent_work,
    agents,
    applications,
    builds,
    docs,
    edge_apps,
    keys,
    logs,
    network,
    oidc,
    port_shares,
    pty,
    schedules,
    site,
    tailnet,
    templates,
    users,
    workspaces,
)
from coder.server.transport import Transport
from coder.web import routes as web

API = "/api/v2"

# Routes of agents come first: `me` and `connection` would otherwise be read as the id of an agent.
_PARTS = (
    site,
    oidc,
    users,
    accounts,
    keys,
    workspaces,
    schedules,
    templates,
    builds,
    logs,
    agent_self,
    agent_work,
    agents,
    pty,
    tailnet,
    network,
    applications,
    port_shares,
)
ROUTERS: tuple[tuple[APIRouter, str], ...] = (
    (site.root, ""),
    (docs.router, ""),
    (edge_apps.router, ""),
    *((part.router, API) for part in _PARTS),
)
"""All routes there are, and below which path."""


def create_app(deployment: Deployment, observe: Observe | None = None) -> ASGIApp:
    """Build the application. It holds no state of its own; `observe` is told of each answer."""
    app = FastAPI(
        title="Coder",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=docs.DESCRIPTION,
        default_response_class=Json,
        redirect_slashes=False,
        max_body_size=MAX_BODY,
        responses={"default": {"description": "Refused.", "content": {"application/json": {"schema": _PROBLEM}}}},
    )
    app.state.deployment = deployment
    problems.install(app)
    for router, prefix in ROUTERS:
        app.include_router(router, prefix=prefix)
    app.router.routes.extend(web.routes(deployment.access_url, deployment.clock.now))
    app.add_middleware(Audited, deployment=deployment)
    app.add_middleware(Transport, settings=deployment.settings, access_url=deployment.access_url)
    return Envelope(
        AnnouncedLength(app), observe
    )  # outside of everything, so that answers to our own bugs carry it too


_PROBLEM: dict[str, Any] = {
    "type": "object",
    "required": ["message"],
    "properties": {
        "message": {"type": "string"},
        "detail": {"type": "string"},
        "validations": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}
