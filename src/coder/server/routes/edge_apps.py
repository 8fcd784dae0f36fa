"""What the edge asks about requests for apps: it gets a ticket, or what the browser is to see instead.

Only the edge can ask: it holds a secret of this process, and takes the headers of its questions out of everything else.
"""

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from coder.access import app_names, sharing
from coder.access.app_names import Named, Short
from coder.access.roles import Action, Resource
from coder.access.tickets import TICKET_LIFETIME, Ticket
from coder.db import builds
from coder.errors import CoderError
from coder.server import agent_status, app_sessions, app_targets, auth, keeping_hours
from coder.server.app_pages import page
from coder.server.app_targets import Target
from coder.server.deployment import Deployed, Deployment
from coder.server.problems import Problem
from coder.server.transport import EDGE
from coder.tailnet.addresses import agent_address

router = APIRouter()

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
PASSTHRU: Final = "passthru"
"""Of templates whose apps answer pages of other origins by themselves."""
_METHODS: Final = "HEAD, GET, POST, PUT, PATCH, DELETE"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """The request that the edge asks about."""

    deployment: Deployment
    request: Request
    at: str
    """Host of the app, or its path."""
    host: str
    """As the browser sent it, with its port."""
    method: str
    target: str
    """Path and query."""
    upgrade: bool
    failure: str

    @property
    def by_path(self) -> bool:
        return self.at.startswith("/")

    @property
    def origin(self) -> str | None:
        """The page that asks, when it is of another origin than the app."""
        given = self.request.headers.get("Origin")
        own = given is not None and given.lower().partition("://")[2] == self.host.lower()
        return None if own else given

    @property
    def home(self) -> tuple[str, str]:
        return ("Go to the dashboard", self.deployment.access_url)

    @property
    def again(self) -> tuple[str, str]:
        return ("Try again", _local(self.target))


@router.get(EDGE, include_in_schema=False)
async def judge(request: Request, deployment: Deployed) -> Response:
    """Answer the edge."""
    headers = request.headers
    if not deployment.apps.is_edge(headers.get("Coder-Edge-Secret", "")):
        raise Problem(404, "Route not found.")
    asked = _Asked(
        deployment=deployment,
        request=request,
        at=headers["Coder-Edge-At"],
        host=headers.get("Coder-Edge-Host", ""),
        method=headers["Coder-Edge-Method"],
        target=headers["Coder-Edge-Target"],
        upgrade="Coder-Edge-Upgrade" in headers,
        failure=headers.get("Coder-Edge-Failure", ""),
    )
    return _elsewhere(asked) or await _by_name(asked)


def _elsewhere(asked: _Asked) -> Response | None:
    """Say where the browser has to go first."""
    tls, http = asked.deployment.settings.tls, asked.deployment.settings.http
    wants_tls = http.redirect_to_access_url or (tls.enable and tls.redirect_http)
    if wants_tls and asked.deployment.access_url.startswith("https:") and asked.request.url.scheme != "https":
        whole = app_names.wildcard_host(asked.at, asked.deployment.access_url)
        base = asked.deployment.access_url if asked.by_path else f"https://{whole}"
        return RedirectResponse(f"{base}{asked.target}", 307)
    if not asked.by_path:
        return None
    path, mark, query = asked.target.partition("?")
    if path.count("/") == asked.at.count("/") - 1:
        return RedirectResponse(f"{path}/{mark}{query}", 307)
    return None


async def _by_name(asked: _Asked) -> Response:
    label = app_names.label_of(asked.at, asked.deployment.settings.apps.wildcard_access_url) or ""
    if label == app_names.LOGOUT:
        return RedirectResponse(asked.deployment.access_url, 303)
    name = app_names.parse_path(asked.at) if asked.by_path else app_names.parse_label(label)
    if name is None:
        text = "The address names no app. It reads app--agent--workspace--user, then the domain."
        return page(400, "This is no app's address", text, links=[asked.home])
    if refusal := _refused(asked, name):
        return refusal
    back, code = app_sessions.without_code(asked.target)
    return await _open(asked, name) if code is None else await _signed_in(asked, back, code)


def _refused(asked: _Asked, name: Named | Short) -> Response | None:
    """Refuse names that no app has, whoever asks."""
    settings = asked.deployment.settings.apps
    if asked.by_path and settings.disable_path_apps and not settings.wildcard_access_url:
        text = (
            "The server has no domain for apps yet. Whoever runs it can give it one (--wildcard-access-url), or allow"
            " apps below the dashboard's own address, which trusts them with it (--disable-path-apps=false)."
        )
        return page(403, "Apps need hosts of their own", text, links=[asked.home])
    if isinstance(name, Named) and name.owner.lower() == "me":
        return page(404, "No such app", "The address needs the user's full name.", links=[asked.home])
    if asked.by_path and name.port:
        return page(400, "Ports have no paths", "A port is reached under a host name only.", links=[asked.home])
    return None


async def _signed_in(asked: _Asked, back: str, code: str) -> Response:
    """Start the session of somebody who comes back from signing in."""
    token = None if asked.by_path else await app_sessions.redeem(asked.deployment, code, asked.at)
    if token is None:
        text = "The address was used before, or is too old."
        return page(400, "This did not sign you in", text, links=[("Try again", _local(back)), asked.home])
    answer = RedirectResponse(_local(back), 303, {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})
    name = app_sessions.cookie_name(asked.deployment.settings.apps.wildcard_access_url)
    answer.headers.append("Set-Cookie", app_sessions.cookie(asked.deployment, name, token))
    return answer


def _local(target: str) -> str:
    """Keep a path from being read as a host."""
    return "/" + target.lstrip("/\\")


async def _open(asked: _Asked, name: Named | Short) -> Response:
    deployment = asked.deployment
    async with deployment.store.read() as session:
        target = await app_targets.find(session, name, deployment.settings.apps, by_path=asked.by_path)
    siblings = target is not None and await _of_same_user(asked, target)
    passes = target is not None and target.workspace.template.cors_behavior == PASSTHRU
    # Nobody is signed in for this, so what is not there is answered like what is. Only apps that are open to everybody
    # hear of it.
    open_to_all = target is not None and passes and _admitted(asked, target, None)
    if not open_to_all and asked.method == "OPTIONS" and "Access-Control-Request-Method" in asked.request.headers:
        return _preflight(asked, siblings=siblings)
    owner = target.owner.id if target else None
    who, by_cookie = await app_sessions.who_asks(asked.request, deployment, owner, by_path=asked.by_path)
    if who is None:
        await auth.anyone(asked.request, deployment)
    if target is None or not _admitted(asked, target, who):
        return _to_sign_in(asked) if who is None else _no_such_app(asked)
    may_ask = sharing.may_ask(
        level=target.level,
        own_origin=asked.origin is None,
        siblings=siblings or asked.origin == deployment.origin,
        by_cookie=by_cookie,
        upgrade=asked.upgrade,
        safe=asked.method in _SAFE,
    )
    if not may_ask:
        text = "A page of another site sent this request. Open the app itself instead."
        return page(403, "Another site asked for this", text, links=[asked.home])
    if asked.by_path and deployment.settings.apps.disable_path_apps:
        return _to_own_host(asked, name, target)
    return _unusable(asked, target) or await _ticket(asked, target, allow_origin=siblings and not passes)


def _to_own_host(asked: _Asked, name: Named | Short, target: Target) -> Response:
    """Lead from an app's path to its host, where its pages are of an origin of their own."""
    full = Named(app=name.app, agent=target.agent.name, workspace=target.workspace.name, owner=target.owner.username)
    access = asked.deployment.access_url
    whole = app_names.wildcard_host(asked.deployment.settings.apps.wildcard_access_url, access)
    host = whole.replace("*", app_names.label(full, target.workspace.id), 1)
    return RedirectResponse(f"{urlsplit(access).scheme}://{host}/{asked.target[len(asked.at) :].lstrip('/')}", 307)


async def _of_same_user(asked: _Asked, target: Target) -> bool:
    """Say whether the page that asks is an app of the same user: one that exists, not one that is merely named so.

    Another port of its host, or another scheme, is somebody else's page.
    """
    settings, access = asked.deployment.settings.apps, asked.deployment.access_url
    scheme, _, place = (asked.origin or "").partition("://")
    host, _, port = place.partition(":")
    ports = {
        each.partition(":")[2] for each in (asked.host, app_names.wildcard_host(settings.wildcard_access_url, access))
    }
    if port not in ports or scheme not in {urlsplit(access).scheme, asked.request.url.scheme}:
        return False
    name = app_names.parse_label(app_names.label_of(host, settings.wildcard_access_url) or "")
    if name is None:
        return False
    async with asked.deployment.store.read() as session:
        found = await app_targets.find(session, name, settings, by_path=False)
    return found is not None and found.owner.id == target.owner.id


def _preflight(asked: _Asked, *, siblings: bool) -> Response:
    headers = {"Vary": "Origin, Access-Control-Request-Headers"}
    if siblings and asked.origin:
        wanted = asked.request.headers.get("Access-Control-Request-Headers")
        headers |= {
            "Access-Control-Allow-Origin": asked.origin,
            "Access-Control-Allow-Credentials": "true",
            "Access-Control-Allow-Methods": _METHODS,
            **({"Access-Control-Allow-Headers": wanted} if wanted else {}),
        }
    return Response(status_code=204, headers=headers)


def _admitted(asked: _Asked, target: Target, who: auth.Caller | None) -> bool:
    owner = target.owner.id
    connects = who is not None and who.may(Action.CONNECT, Resource.WORKSPACE, owner)
    if asked.by_path and not asked.deployment.settings.apps.allow_path_app_owner_access:
        connects = who is not None and who.user.id == owner
    member = who is not None and who.user.organization_id == target.workspace.organization_id
    return sharing.admits(target.level, signed_in=who is not None, member=member, connects=connects)


def _to_sign_in(asked: _Asked) -> Response:
    if asked.upgrade:
        return page(401, "You are signed out", "Sign in, then open the app again.", links=[asked.home])
    if asked.by_path:
        where = app_sessions.login_url(asked.deployment, asked.target)
    else:
        where = app_sessions.sign_in_url(asked.deployment, asked.at, asked.target)
    return RedirectResponse(where, 303, {"Cache-Control": "no-store"})


def _no_such_app(asked: _Asked) -> Response:
    text = "There is no such app, or it is not shared with you. Its owner can share it."
    return page(404, "No such app", text, links=[asked.home])


def _unusable(asked: _Asked, target: Target) -> Response | None:
    """Say why an app cannot be reached now."""
    if target.place.port < app_names.LOWEST_PORT:
        text = f"Ports below {app_names.LOWEST_PORT} are not for apps; this one has {target.place.port}."
        return page(400, "This port is not for apps", text, links=[asked.home])
    name = target.workspace.name
    if target.workspace.latest_build.transition != builds.START:
        text = f"Start {name} from the dashboard, then try again."
        return page(400, "The workspace is stopped", text, links=[asked.again, asked.home])
    state = agent_status.status(target.agent, asked.deployment.clock.now())
    if state is not agent_status.Status.CONNECTED:
        text = f"The agent {target.agent.name} of {name} is {state}. The dashboard says more."
        return page(502, "The workspace does not answer", text, links=[asked.again, asked.home])
    return _down(asked, target) if asked.failure else None


def _down(asked: _Asked, target: Target) -> Response:
    """Describe an app that is down, by what the edge found."""
    where = f"port {target.place.port} of {target.workspace.name}"
    text = {
        "refused": f"Nothing listens on {where}. Start the app there, then try again.",
        "no answer in time": f"There was no answer from {where} in time.",
        "no tunnel": f"There is no tunnel to {target.workspace.name} at the moment.",
        "broken": f"What {where} answered is not HTTP, or it ended too early.",
    }.get(asked.failure, f"There is no connection to {where}: {asked.failure}.")
    status = 503 if asked.failure == "refused" else 502
    links = [asked.again, asked.home]
    label, dot, domain = asked.host.partition(".")
    first, dashes, rest = label.partition("--")
    if app_names.port(first) and not asked.by_path and asked.failure != "refused":
        other, words = (first[:-1], "Switch to HTTP") if target.place.tls else (f"{first}s", "Switch to HTTPS")
        scheme = urlsplit(asked.deployment.access_url).scheme
        links.insert(1, (words, f"{scheme}://{other}{dashes}{rest}{dot}{domain}{asked.target}"))
    return page(status, "The app does not answer", text, links=links, headers={"Retry-After": "5"})


async def _ticket(asked: _Asked, target: Target, *, allow_origin: bool) -> Response:
    deployment = asked.deployment
    if problem := await _no_tunnel(deployment, target.agent.id):
        text = f"There is no tunnel to {target.workspace.name}: {problem}."
        return page(502, "The workspace does not answer", text, links=[asked.again, asked.home])
    await keeping_hours.used(deployment, target.workspace.id)
    place = Ticket(
        at=asked.at,
        to=f"[{agent_address(target.agent.id)}]:{target.place.port}",
        tls=target.place.tls,
        path=target.place.path,
        query=target.place.query,
        cors=target.workspace.template.cors_behavior == PASSTHRU,
    )
    ticket = deployment.apps.signer.ticket(place, deployment.clock.now()).reveal()
    answer = Response(status_code=204, headers={"Coder-Edge-Ticket": ticket})
    path, seconds = asked.at if asked.by_path else "/", int(TICKET_LIFETIME.total_seconds())
    answer.headers.append(
        "Set-Cookie", app_sessions.cookie(deployment, app_sessions.TICKET_COOKIE, ticket, path=path, seconds=seconds)
    )
    if allow_origin and asked.origin:
        answer.headers["Coder-Edge-Allow-Origin"] = asked.origin
    return answer


async def _no_tunnel(deployment: Deployment, agent_id: UUID) -> str:
    """See to it that there is a tunnel; return why there is none."""
    if deployment.apps.tunnels is None:
        return ""
    try:
        await deployment.apps.tunnels.ensure(agent_id)
    except CoderError as fault:
        return fault.message
    return ""
