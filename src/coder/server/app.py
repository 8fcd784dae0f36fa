"""The web application: all routes around one deployment."""

from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from coder import __version__
from coder.server import problems
from coder.server.deployment import Deployment
from coder.server.envelope import Envelope
from coder.server.problems import Json
from coder.server.routes import accounts, agent_self, agents, builds, docs, keys, site, tailnet, users, workspaces

API = "/api/v2"


def create_app(deployment: Deployment) -> ASGIApp:
    """Build the application. It holds no state of its own."""
    app = FastAPI(
        title="Coder",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=docs.DESCRIPTION,
        default_response_class=Json,
        redirect_slashes=False,
        responses={"default": {"description": "Refused.", "content": {"application/json": {"schema": _PROBLEM}}}},
    )
    app.state.deployment = deployment
    problems.install(app)
    app.include_router(site.root)
    app.include_router(docs.router)
    # Routes of agents come first: `me` and `connection` would otherwise be read as the id of an agent.
    for part in (site, users, accounts, keys, workspaces, builds, agent_self, agents, tailnet):
        app.include_router(part.router, prefix=API)
    return Envelope(app)  # outside of everything, so that answers to our own bugs carry it too


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
