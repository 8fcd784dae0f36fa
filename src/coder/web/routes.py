"""Which page answers where."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from coder.web import api, security
from coder.web.assets import PATH, Assets
from coder.web.page import Dashboard, Handler, Page
from coder.web.pages import account, entry, logs, network, people, templates, terminal, workspace, workspaces

_READ, _SEND = ("GET",), ("POST",)

_OPEN: tuple[tuple[str, tuple[str, ...], Handler], ...] = (
    ("/", _READ, entry.root),
    ("/setup", _READ, entry.show_setup),
    ("/setup", _SEND, entry.set_up),
    ("/login", _READ, entry.show_login),
    ("/login", _SEND, entry.log_in),
)
"""Pages for everybody."""

_SIGNED_IN: tuple[tuple[str, tuple[str, ...], Handler], ...] = (
    ("/logout", _SEND, entry.log_out),
    ("/cli-auth", _READ, account.show_cli_auth),
    ("/cli-auth", _SEND, account.cli_auth),
    ("/settings/account", _READ, account.show),
    ("/settings/account", _SEND, account.change),
    ("/settings/tokens", _READ, account.show_tokens),
    ("/settings/tokens", _SEND, account.create_token),
    ("/settings/tokens/delete", _SEND, account.delete_token),
    ("/workspaces", _READ, workspaces.show),
    ("/workspaces/new", _READ, workspaces.show_new),
    ("/workspaces/new", _SEND, workspaces.create),
    ("/templates", _READ, templates.show),
    ("/templates/new", _READ, templates.show_new),
    ("/templates/new", _SEND, templates.create),
    ("/templates/{name}", _READ, templates.show_one),
    ("/templates/{name}", _SEND, templates.change),
    ("/users", _READ, people.show),
    ("/users", _SEND, people.create),
    ("/users/{user}", _READ, people.show_one),
    ("/users/{user}", _SEND, people.change),
    ("/audit", _READ, logs.audit),
    ("/connectionlog", _READ, logs.connections),
    ("/health", _READ, network.health),
    ("/regions", _READ, network.regions),
    ("/@{owner}/{name}", _READ, workspace.show),
    ("/@{owner}/{name}", _SEND, workspace.act),
    ("/@{owner}/{name}/{part:str}.part", _READ, workspace.part),
    ("/@{owner}/{name}/terminal", _READ, terminal.show),
)
"""Pages for those who are signed in; others are asked to first."""


def routes(access_url: str, now: Callable[[], datetime], assets: Assets | None = None) -> list[Route]:
    """Return the routes of the dashboard. They expect the API in the same application."""
    dashboard = Dashboard(access_url, now, assets)
    return [
        Route(f"{PATH}/{{file}}", dashboard.assets.serve, include_in_schema=False),
        *(_route(dashboard, *each, signed_in=False) for each in _OPEN),
        *(_route(dashboard, *each, signed_in=True) for each in _SIGNED_IN),
    ]


def _route(dashboard: Dashboard, path: str, methods: tuple[str, ...], handler: Handler, *, signed_in: bool) -> Route:
    async def answer(request: Request) -> Response:
        request.scope["coder.origin"] = dashboard.origin
        page = Page(dashboard, request)
        try:
            if signed_in:
                await page.know_viewer()
            if request.method == "POST":
                await page.read_form()
            return await handler(page)
        except api.Refused as refused:
            return _refused(page, refused)

    named: Callable[[Request], Awaitable[Response]] = answer
    return Route(path, named, methods=list(methods), include_in_schema=False)


def _refused(page: Page, refused: api.Refused) -> Response:
    if refused.status == 401 and page.viewer is None:
        return _to_login(page)
    answer = page.render("refused.html", refused.status, refused=refused)
    if refused.retry_after:
        answer.headers["Retry-After"] = refused.retry_after
    return answer


def _to_login(page: Page) -> Response:
    request = page.request
    if "HX-Request" in request.headers:  # a part of a page: the whole page has to go
        return Response(status_code=401, headers=security.headers(page.dashboard.origin) | {"HX-Redirect": "/login"})
    back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return page.go("/login" if request.method != "GET" or back == "/" else f"/login?redirect={quote(back, safe='')}")
