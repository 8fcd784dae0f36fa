"""The audit log: who did what to which thing, when, from where, and with which result.

`Audited` writes one entry for each request that changes something, before its answer goes out. What the entry is about
is told by the route while it runs (`about`), who asked by what verified them (`by`). Requests of nobody known are not
recorded, but for logins: a flood of them would push out what matters.
"""

from contextvars import ContextVar
from dataclasses import dataclass
from uuid import UUID, uuid4

import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coder.db.models import AuditLog, User
from coder.server.deployment import Deployment

log = structlog.get_logger(__name__)

CREATE, WRITE, DELETE = "create", "write", "delete"
LOGIN = "/users/login"
OIDC = "/users/oidc/callback"
"""Comes as a GET from a browser that the provider sends back."""
_TOO_MANY = 429

RECORDED: dict[tuple[str, str], tuple[str, str]] = {
    ("POST", "/users/first"): ("register", "user"),
    ("POST", LOGIN): ("login", "api_key"),
    ("GET", OIDC): ("login", "api_key"),
    ("POST", "/users/logout"): ("logout", "api_key"),
    ("POST", "/users"): (CREATE, "user"),
    ("DELETE", "/users/{user}"): (DELETE, "user"),
    ("PUT", "/users/{user}/profile"): (WRITE, "user"),
    ("PUT", "/users/{user}/status/{status}"): (WRITE, "user"),
    ("PUT", "/users/{user}/roles"): (WRITE, "user"),
    ("PUT", "/users/{user}/password"): (WRITE, "user"),
    ("PUT", "/users/{user}/browser-only"): (WRITE, "user"),
    ("POST", "/users/{user}/keys"): (CREATE, "api_key"),
    ("POST", "/users/{user}/keys/tokens"): (CREATE, "api_key"),
    ("DELETE", "/users/{user}/keys/{key_id}"): (DELETE, "api_key"),
    ("POST", "/users/{user}/workspaces"): (CREATE, "workspace"),
    ("POST", "/organizations/{organization}/members/{user}/workspaces"): (CREATE, "workspace"),
    ("PATCH", "/workspaces/{workspace}"): (WRITE, "workspace"),
    ("DELETE", "/workspaces/{workspace}"): (DELETE, "workspace"),
    ("POST", "/workspaces/{workspace}/builds"): (WRITE, "workspace"),
    ("PUT", "/workspaces/{workspace}/ttl"): (WRITE, "workspace"),
    ("PUT", "/workspaces/{workspace}/autostart"): (WRITE, "workspace"),
    ("PUT", "/workspaces/{workspace}/extend"): (WRITE, "workspace"),
    ("PATCH", "/workspacebuilds/{build}/cancel"): (WRITE, "workspace"),
    ("POST", "/organizations/{organization}/templates"): (CREATE, "template"),
    ("PATCH", "/templates/{template}"): (WRITE, "template"),
    ("DELETE", "/templates/{template}"): (DELETE, "template"),
    ("POST", "/workspaces/{workspace}/port-share"): (WRITE, "workspace"),
    ("DELETE", "/workspaces/{workspace}/port-share"): (WRITE, "workspace"),
    ("POST", "/workspaceagents/{agent}/token"): (WRITE, "workspace"),
}
"""What each route that changes something does to what. A test demands a line here, or below, of every such route."""

UNRECORDED = {
    ("POST", "/authcheck"),
    ("POST", "/templateversions/{version}/dry-run"),
    ("POST", "/workspaces/{workspace}/usage"),
    ("POST", "/workspaceagents/{agent}/speedtest"),
    ("POST", "/workspaceagents/me/log-source"),
    ("PATCH", "/workspaceagents/me/logs"),
}
"""Routes that only look as if they changed something, do so each minute, or are the workspace's own."""

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_VERBS = {"POST": CREATE, "DELETE": DELETE}


@dataclass(slots=True)
class _Entry:
    user: User | None = None
    action: str | None = None
    resource_id: str = ""
    target: str = ""
    detail: str = ""


_entry: ContextVar[_Entry | None] = ContextVar("audit_entry", default=None)


def by(user: User) -> None:
    """Say who asks."""
    if entry := _entry.get():
        entry.user = user


def about(resource_id: UUID | None, target: str, *, action: str | None = None) -> None:
    """Say which thing it is about, by id and by the name people know it by; the last word counts."""
    if entry := _entry.get():
        entry.resource_id, entry.target = str(resource_id or ""), target
        entry.action = action or entry.action


def detail(text: str) -> None:
    """Say what is changed of it; nothing secret."""
    if entry := _entry.get():
        entry.detail = text


class Audited:
    """ASGI middleware that writes the entries."""

    def __init__(self, app: ASGIApp, deployment: Deployment) -> None:
        self._app = app
        self._deployment = deployment

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or (scope["method"] in _SAFE and not scope["path"].endswith(OIDC)):
            await self._app(scope, receive, send)
            return
        entry = _Entry()

        async def recording(message: Message) -> None:
            if message["type"] == "http.response.start":
                await self._record(scope, entry, message["status"])
            await send(message)

        before = _entry.set(entry)
        try:
            await self._app(scope, receive, recording)
        finally:
            _entry.reset(before)

    async def _record(self, scope: Scope, entry: _Entry, status: int) -> None:
        what = _what(scope)
        if what is None or status == _TOO_MANY or (entry.user is None and scope["route"].path != LOGIN):
            return
        action, resource_type = what
        user = entry.user
        row = AuditLog(
            id=uuid4(),
            request_id=scope.get("state", {}).get("request_id", ""),
            time=self._deployment.clock.now(),
            user_id=user.id if user else None,
            username=user.username if user else "",
            ip=(scope["client"][0] if scope.get("client") else "")[:64],
            user_agent=Headers(scope=scope).get("User-Agent", "")[:256],
            action=entry.action or action,
            resource_type=resource_type,
            resource_id=entry.resource_id,
            resource_target=entry.target[:254],
            detail=entry.detail[:254],
            status_code=status,
        )
        try:
            async with self._deployment.store.write() as session:
                session.add(row)
        except SQLAlchemyError as fault:
            log.error(  # noqa: TRY400 - the database's own words say it all
                "audit.unwritten", action=row.action, resource=resource_type, status=status, fault=str(fault)
            )


def _what(scope: Scope) -> tuple[str, str] | None:
    """Return action and type of resource of the route that answered. One without a line is recorded all the same."""
    path: str | None = getattr(scope.get("route"), "path", None)
    if path is None or (scope["method"], path) in UNRECORDED:
        return None
    kind = path.strip("/").partition("/")[0][:32]
    return RECORDED.get((scope["method"], path), (_VERBS.get(scope["method"], WRITE), kind))
