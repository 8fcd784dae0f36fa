"""What all routes share: the parts of one running server, handed over by the composition."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, cast
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import Depends
from starlette.requests import HTTPConnection

from coder.access.limits import LoginLimits, Pace, Remembered
from coder.clock import Clock
from coder.config import Settings
from coder.db.site import Site
from coder.db.store import Store
from coder.server.apps import Apps
from coder.server.changes import Changes
from coder.server.health import Findings
from coder.server.introductions import Introductions
from coder.server.kept import Kept
from coder.server.maps import DerpMaps, Recipe
from coder.server.node import ServerNode
from coder.server.oidc import Provider
from coder.server.sockets import Sockets
from coder.server.terminals import OpenTerminals
from coder.tailnet.resume import ResumeTokens

if TYPE_CHECKING:
    from coder.server.build_runner import BuildRunner


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """The parts of a server."""

    settings: Settings
    access_url: str
    """URL that clients are told; never made from what a request says."""
    store: Store
    clock: Clock
    site: Site
    maps: DerpMaps
    map_recipe: Recipe
    introductions: Introductions
    resume: ResumeTokens
    runner: "BuildRunner"
    """Carries out the builds of workspaces."""
    apps: Apps
    node: ServerNode
    """Tunnels to agents."""
    changes: Changes = field(default_factory=Changes)
    sockets: Sockets = field(default_factory=Sockets)
    oidc: Provider | None = None
    """Through which users may sign in."""
    login_limits: LoginLimits
    api_limits: Pace
    good_tokens: Remembered = field(default_factory=Remembered)
    """The tokens that were good when last seen."""
    presence: dict[UUID, object] = field(default_factory=dict)
    """By agent: what owns the record of its connection, the newest of its connections."""
    terminals: OpenTerminals = field(default_factory=OpenTerminals)
    speedtests: set[UUID] = field(default_factory=set)
    """Users whose browser, and agents whose tunnel, is measured now."""
    certificate_problem: Callable[[], str | None] = lambda: None
    """Says why changed files of a certificate are not in use."""
    health: Kept[Findings] = field(default_factory=Kept)
    """What was found when the deployment was last looked over."""

    @property
    def origin(self) -> str:
        """What a browser on our own pages sends as Origin."""
        parts = urlsplit(self.access_url)
        return f"{parts.scheme}://{parts.netloc}".lower()


def deployment(connection: HTTPConnection) -> Deployment:
    """Return the deployment that serves a connection."""
    return cast("Deployment", connection.app.state.deployment)


Deployed = Annotated[Deployment, Depends(deployment)]
