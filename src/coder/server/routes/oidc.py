"""Signing in through a provider (OpenID Connect): the browser goes there with a state and comes back with a code.

The secrets of one login (state, nonce, PKCE verifier) stay in a cookie of the browser that began it, so a code that
somebody else was given opens nothing here.
"""

import hmac
import secrets
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

import structlog
from fastapi import APIRouter, Request, Response
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import RedirectResponse

from coder.access import cookies, oidc, roles
from coder.db import keys, users
from coder.db.models import User
from coder.errors import CoderError, Unreachable
from coder.server import audit
from coder.server.auth import ANYONE
from coder.server.deployment import Deployed, Deployment
from coder.server.oidc import Attempt, Provider
from coder.server.problems import Problem
from coder.server.routes.users import limit_logins, new_session, set_cookie

log = structlog.get_logger(__name__)
router = APIRouter(tags=["users"])

_PATIENCE: Final = 600
"""Seconds a person may take at the provider."""
_NAMES: Final = 20
"""How many names are tried for a new user whose own is taken."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A login that did not come about: what the page says by name, and what a program is told."""

    notice: str
    status: int
    message: str
    detail: str = ""


class _FailedError(Exception):
    def __init__(self, notice: str, status: int, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.failure = Failure(notice, status, message, detail)


@router.get("/users/oidc/callback", dependencies=[ANYONE])
async def callback(
    request: Request, deployment: Deployed, *, code: str = "", state: str = "", error: str = "", redirect: str = "/"
) -> Response:
    """Begin a login, by sending the browser to the provider; or end it, when it comes back with a code or an error."""
    provider = deployment.oidc
    if provider is None:
        raise Problem(404, "Logins through a provider are not set up.", detail="Set --oidc-issuer-url on the server.")
    try:
        if not (code or state or error):
            return await _begin(request, deployment, provider, oidc.own_path(redirect))
        return await _finish(request, deployment, provider, code=code, state=state, error=error)
    except _FailedError as failed:
        return _refused(request, failed.failure)


async def _begin(request: Request, deployment: Deployment, provider: Provider, onward: str) -> Response:
    limit_logins(request, "", deployment)
    attempt = Attempt(*(secrets.token_urlsafe(32) for _ in range(3)))
    try:
        where = await provider.address(attempt)
    except CoderError as fault:
        raise _unusable(fault) from fault
    answer = RedirectResponse(where, 303)
    kept = ".".join((attempt.state, attempt.nonce, attempt.verifier, quote(onward, safe="")))
    answer.set_cookie(
        _cookie(deployment), kept, max_age=_PATIENCE, httponly=True, samesite="lax", secure=_secure(deployment)
    )
    return answer


async def _finish(
    request: Request, deployment: Deployment, provider: Provider, *, code: str, state: str, error: str
) -> Response:
    attempt, onward = _attempt(request.cookies.get(_cookie(deployment), ""))
    if attempt is None or not hmac.compare_digest(attempt.state.encode(), state.encode()):
        raise _FailedError("oidc-state", 400, "This login was not begun in this browser, or too long ago.")
    if error or not code:
        log.info("oidc.refused", error=error[:64])
        raise _FailedError("oidc-refused", 403, "The provider did not let you in.", error[:64])
    who = ""
    try:
        claims = await provider.claims(code, attempt)
        who = str(claims.get(_policy(deployment).email_field) or claims.get("sub"))[:254]
        person = oidc.person(claims, _policy(deployment))
        user = await _account(deployment, provider.client.issuer, person)
    except oidc.NotLetInError as refused:
        log.info("oidc.not_let_in", who=who, reason=str(refused))
        raise _FailedError("oidc-not-let-in", 403, str(refused), refused.remedy) from refused
    except CoderError as fault:
        raise _unusable(fault) from fault
    audit.about(user.id, user.username)
    audit.detail("through the provider")
    token = await new_session(deployment, user, keys.OIDC)
    audit.by(user)
    answer = RedirectResponse(onward, 303)
    set_cookie(answer, deployment, token.text)
    answer.delete_cookie(_cookie(deployment), httponly=True, samesite="lax", secure=_secure(deployment))
    return answer


def _attempt(kept: str) -> tuple[Attempt | None, str]:
    parts = kept.split(".", 3)
    if len(parts) != 4:
        return None, "/"
    return Attempt(*parts[:3]), oidc.own_path(unquote(parts[3]))


def _policy(deployment: Deployment) -> oidc.Policy:
    settings = deployment.settings.oidc
    return oidc.Policy(
        email_field=settings.email_field,
        username_field=settings.username_field,
        domains=settings.email_domain,
        ignore_verified=settings.ignore_email_verified,
    )


async def _account(deployment: Deployment, issuer: str, person: oidc.Person) -> User:
    """Return whose account a person at the provider opens: the one linked to them, or a new one.

    An account is never taken over by its address, but for one an administrator made to be signed in to this way.
    """
    try:
        async with deployment.store.write() as session:
            user = await users.by_link(session, issuer, person.subject)
            if user is None:
                user = await _first_time(session, deployment, issuer, person)
    except IntegrityError:
        raise oidc.NotLetInError("The account changed meanwhile.", remedy="Sign in again.") from None
    if user.login_type != users.OIDC:
        raise oidc.NotLetInError("This account is opened with a password.", remedy="Sign in with it.")
    if user.status != users.ACTIVE:
        raise oidc.NotLetInError(f"The account is {user.status}.", remedy="Ask an owner of the deployment.")
    return user


async def _first_time(session: AsyncSession, deployment: Deployment, issuer: str, person: oidc.Person) -> User:
    now = deployment.clock.now()
    user = await users.by_email(session, person.email)
    if user is not None and (user.login_type != users.OIDC or await users.is_linked(session, user.id)):
        raise oidc.NotLetInError(
            "There is an account with this e-mail address that is opened in another way.",
            remedy="Sign in with its password, or ask an owner of the deployment.",
        )
    if user is None:
        if not deployment.settings.oidc.allow_signups:
            raise oidc.NotLetInError("You have no account here.", remedy="Ask an owner of the deployment for one.")
        first = not await users.any_exist(session)
        user = await users.create(
            session,
            organization_id=deployment.site.organization.id,
            username=await _free_name(session, person.username),
            email=person.email,
            name=person.name,
            password_hash="",
            roles=[roles.OWNER] if first else [],
            now=now,
            login_type=users.OIDC,
        )
    await users.link(session, user.id, issuer, person.subject, now)
    return user


async def _free_name(session: AsyncSession, wished: str) -> str:
    for number in range(1, _NAMES + 1):
        ending = f"-{number}" if number > 1 else ""
        name = wished[: 32 - len(ending)].rstrip("-") + ending
        if await users.by_name(session, name) is None:
            return name
    return f"user-{secrets.token_hex(6)}"


def _unusable(fault: CoderError) -> _FailedError:
    log.warning("oidc.provider", fault=str(fault))
    away = isinstance(fault, Unreachable)
    return _FailedError("oidc-provider", 502, f"The provider cannot be used now: {'it is away' if away else fault}")


def _refused(request: Request, failure: Failure) -> Response:
    """Tell a browser on the login page, by a name, so that nobody can put words there; anybody else as JSON."""
    if "text/html" in request.headers.get("Accept", ""):
        return RedirectResponse(f"/login?done={failure.notice}", 303)
    raise Problem(failure.status, failure.message, detail=failure.detail)


def _cookie(deployment: Deployment) -> str:
    return cookies.name(cookies.OIDC, deployment.access_url)


def _secure(deployment: Deployment) -> bool:
    return deployment.access_url.startswith("https:")
