"""The web application: all routes around one deployment."""

from typing import Any

from fastapi import FastAPI

from coder import __version__
from coder.server import problems
from coder.server.deployment import Deployment
from coder.server.envelope import Envelope
from coder.server.routes import agent_self, agents, builds, keys, site, users, workspaces

API = "/api/v2"
DOCS = "/api/docs"


def create_app(deployment: Deployment) -> FastAPI:
    """Build the application. It holds no state of its own."""
    app = FastAPI(
        title="Coder",
        version=__version__,
        docs_url=DOCS,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        redirect_slashes=False,
        responses={"default": {"description": "Refused.", "content": {"application/json": {"schema": _PROBLEM}}}},
    )
    app.state.deployment = deployment
    problems.install(app)
    app.include_router(site.root)
    # Routes of agents come first: `me` and `connection` would otherwise be read as the id of an agent.
    for part in (site, users, keys, workspaces, builds, agent_self, agents):
        app.include_router(part.router, prefix=API)
    app.add_middleware(Envelope)
    return app


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
