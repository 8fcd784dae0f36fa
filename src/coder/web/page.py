"""One request for a page: who asks, what they sent, and how the answer is made."""

import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from jinja2 import ChainableUndefined, Environment, PackageLoader
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from coder.access import cookies
from coder.web import api, security, text
from coder.web.assets import Assets
from coder.web.notices import FAILURES, NOTICES

MAX_FORM = 64 * 1024
"""Bytes of a form; none of ours comes near."""
TAG = "X-Part-Tag"
"""Header in which a page says which state of a part it shows, so that an unchanged one is not sent again."""

_PLACES = {
    "users": ("user", "read"),
    "templates": ("deployment", "update"),
    "audit": ("audit_log", "read"),
    "health": ("deployment", "read"),
}
"""Entries of the menu that not everybody sees, and what one must be allowed for them."""


class Dashboard:
    """What all pages share."""

    def __init__(self, access_url: str, now: Callable[[], datetime], assets: Assets | None = None) -> None:
        parts = urlsplit(access_url)
        self.access_url = access_url
        self.origin = f"{parts.scheme}://{parts.netloc}".lower()
        self.now = now
        self.assets = assets or Assets()
        self.templates = Environment(
            loader=PackageLoader("coder.web"),
            autoescape=True,
            undefined=ChainableUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.globals.update(asset=self.assets.url, assets_built=self.assets.built)
        self.templates.filters.update(
            plain=text.plain,
            ago=lambda value: text.ago(value, now()),
            minute=text.minute,
            ms=text.milliseconds,
            span=lambda first, last: text.span(first, last, now()),
            hours=text.in_hours,
            pair=lambda value: (value, value),
            path=lambda value: quote(str(value), safe=""),
            dict_of=lambda values, **more: urlencode({**values, **more}),
        )


@dataclass(slots=True)
class Viewer:
    """The signed-in user a page is for."""

    id: str
    username: str
    email: str
    name: str
    places: frozenset[str]
    """The entries of the menu that are theirs besides everybody's."""


@dataclass(slots=True)
class Page:
    """One request."""

    dashboard: Dashboard
    request: Request
    viewer: Viewer | None = None
    form: dict[str, str] = field(default_factory=dict, repr=False)
    many: dict[str, list[str]] = field(default_factory=dict, repr=False)
    """The form's fields that may come more than once."""

    @property
    def me(self) -> Viewer:
        """The signed-in user; pages that need none must not ask."""
        assert self.viewer is not None
        return self.viewer

    def asked(self, name: str, default: str = "") -> str:
        """Return a parameter of the query."""
        return self.request.query_params.get(name, default)

    async def ask(self, method: str, route: str, body: Any = None, **query: Any) -> Any:
        """Ask the API. Raises Refused."""
        return (await api.call(self.request, method, route, body, query)).body

    async def ask_or(self, fallback: Any, route: str, **query: Any) -> Any:
        """Ask the API for something a page can do without."""
        try:
            return await self.ask("GET", route, **query)
        except api.Refused:
            return fallback

    async def know_viewer(self) -> None:
        """Find out whose browser this is. Raises Refused (401) for nobody's."""
        me = await self.ask("GET", "/users/me")
        checks = {
            name: {"object": {"resource_type": kind}, "action": action} for name, (kind, action) in _PLACES.items()
        }
        allowed = await self.ask("POST", api.AUTHCHECK, {"checks": checks})
        self.viewer = Viewer(
            me["id"], me["username"], me["email"], me["name"], frozenset(name for name, may in allowed.items() if may)
        )

    async def read_form(self) -> None:
        """Read the fields that were sent. Raises Refused for a form that did not come from a page of ours."""
        request = self.request
        if not security.may_send(request.headers, self.dashboard.origin):
            raise refusal(403, "This form was not sent by a page of this server.", self._elsewhere())
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_FORM:
                raise refusal(413, "The form is too large.")
        try:
            pairs = parse_qsl(bytes(body).decode(), keep_blank_values=True, max_num_fields=100)
        except ValueError:
            raise refusal(400, "The form cannot be read.") from None
        for name, value in pairs:
            self.form[name] = value
            self.many.setdefault(name, []).append(value)
        if not security.token_fits(request.cookies, self.form.get("form_token", ""), self.dashboard.origin):
            raise refusal(403, "This form is out of date.", "Go back, load the page again, and repeat what you did.")

    def _elsewhere(self) -> str:
        return f"Open the dashboard at {self.dashboard.access_url} and try again."

    def render(self, file: str, status: int = 200, *, connect: Iterable[str] = (), **values: Any) -> HTMLResponse:
        """Answer with a page."""
        held, origin = dict(self.request.cookies), self.dashboard.origin
        name = cookies.name(cookies.FORM, origin)
        fresh = "" if security.form_token(held, origin) else secrets.token_urlsafe(24)
        if fresh:
            held[name] = fresh
        page = self._text(file, values | {"form_token": security.form_token(held, origin)})
        answer = HTMLResponse(page, status, security.headers(origin, connect=connect))
        if fresh:
            secure = origin.startswith("https:")
            answer.set_cookie(name, fresh, httponly=True, samesite="strict", secure=secure)
        return answer

    def part(self, file: str, **values: Any) -> Response:
        """Answer with a part of a page; with nothing when it is what the page shows already."""
        shown = self._text(
            file, values | {"form_token": security.form_token(self.request.cookies, self.dashboard.origin)}
        )
        tag = sha256(shown.encode()).hexdigest()[:16]
        headers = security.headers(self.dashboard.origin) | {TAG: tag}
        if self.request.headers.get(TAG) == tag:
            return Response(status_code=204, headers=headers)
        return HTMLResponse(shown, headers=headers)

    def _text(self, file: str, values: Mapping[str, Any]) -> str:
        theme = self.request.cookies.get("coder_theme", "")
        common: dict[str, Any] = {
            "viewer": self.viewer,
            "here": self.request.url.path,
            "theme": theme if theme in {"light", "dark"} else "",
            "notice": NOTICES.get(self.asked("done"), ""),
            "failure": FAILURES.get(self.asked("done"), ""),
            "access_url": self.dashboard.access_url,
            "problem": None,
        }
        return self.dashboard.templates.get_template(file).render({**common, **values})

    def go(self, path: str, done: str = "", set_cookies: Sequence[str] = ()) -> Response:
        """Answer by sending the browser to a page of ours, which then says what was done."""
        where = path + (("&" if "?" in path else "?") + f"done={done}" if done else "")
        headers = security.headers(self.dashboard.origin) | {"Location": where}
        answer = Response(status_code=303, headers=headers)
        for each in set_cookies:
            answer.headers.append("Set-Cookie", each)
        return answer


Handler = Callable[[Page], Awaitable[Response]]


def refusal(status: int, message: str, detail: str = "") -> api.Refused:
    """Return a refusal of our own, told like the API's."""
    return api.Refused(status, {"message": message, "detail": detail}, {})
