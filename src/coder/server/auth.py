"""Who is calling: finds the token of a request and what it stands for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, cast
from uuid import UUID

from fastapi import Depends
from starlette.requests import HTTPConnection

from coder.access import cookies, limits, roles, sessions, tokens
from coder.access.roles import Action, Decision, Resource
from coder.access.templates import may_have
from coder.db import agents, keys, users
from coder.db.models import ApiKey, User
from coder.server import audit
from coder.server.deployment import Deployed, Deployment
from coder.server.problems import Problem, forbidden, not_found, too_many

HEADER = "Coder-Session-Token"
BYPASS = "X-Coder-Bypass-Ratelimit"
ASKED = "coder.asked"
"""Key in the scope of a request whose caller was verified before its body was read: who it is."""
_EVERYTHING = frozenset({"all"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_SIGNED_OUT = "You are signed out, or your session has ended. Sign in again."


@dataclass(frozen=True, slots=True)
class Presented:
    """A token as it came in."""

    text: str = field(repr=False)
    by_cookie: bool
    """Whether a browser may have added it by itself, without its user or the page wanting so."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A signed-in user."""

    user: User
    key: ApiKey

    def may(self, action: Action, resource: Resource, owner: UUID | None = None) -> bool:
        """Say whether the user may do that with a thing of this owner; without one, with everybody's."""
        return roles.allowed(self.user.role_names, action, resource, own=owner == self.user.id)

    def require(self, action: Action, resource: Resource, owner: UUID | None = None) -> None:
        """Raise Problem unless the user may do that: 403, or 404 when they may not even know that it is there."""
        match roles.decide(self.user.role_names, action, resource, own=owner == self.user.id):
            case Decision.FORBIDDEN:
                raise forbidden("Your roles do not allow this; ask an owner of the deployment.")
            case Decision.HIDDEN:
                raise not_found()
            case Decision.ALLOWED:
                pass


def presented(connection: HTTPConnection, access_url: str) -> Presented | None:
    """Find the token: cookie, query, header, bearer, query again. The first that is not empty counts."""
    header = connection.headers.get(HEADER, "")
    if held := cookies.session(connection.cookies, connection.headers, access_url):
        return Presented(held, by_cookie=held != header)
    scheme, _, credential = connection.headers.get("Authorization", "").partition(" ")
    bearer = credential.strip() if scheme.lower() == "bearer" else ""
    query = connection.query_params
    for text in (query.get(cookies.SESSION), header, bearer, query.get("access_token")):
        if text:
            return Presented(text, by_cookie=False)
    return None


def require_own_origin(connection: HTTPConnection, found: Presented, origin: str) -> None:
    """Refuse what another site makes a browser do: cookies go along, but so does the true Origin.

    Writes need it, WebSockets may lack it only because no browser leaves it out there.
    """
    if not found.by_cookie:
        return
    given = connection.headers.get("Origin")
    websocket = connection.scope["type"] == "websocket"
    if given is None and (websocket or connection.scope.get("method") in _SAFE_METHODS):
        return
    if (given or "").lower() != origin and (websocket or connection.scope.get("method") not in _SAFE_METHODS):
        raise forbidden("A request with the session cookie must come from a page of this server (Origin).")


def address(connection: HTTPConnection) -> str:
    """Return the address a request comes from; the edge vouches for it."""
    return connection.client.host if connection.client else ""


def _pace(deployment: Deployment, subject: str) -> None:
    _refuse(deployment, deployment.api_limits.hit(subject, deployment.clock.monotonic()))


def _refuse(deployment: Deployment, seconds: float) -> None:
    if seconds:
        count = deployment.api_limits.limit.count
        raise too_many(f"Too many requests: one user, agent or address may send {count} a minute.", seconds)


async def anyone(connection: HTTPConnection, deployment: Deployed) -> None:
    """Let everybody in, but no address too often. Raises Problem (429)."""
    if ASKED not in connection.scope:
        _pace(deployment, limits.source(address(connection)))


@asynccontextmanager
async def _counting_failures(connection: HTTPConnection, deployment: Deployment) -> AsyncIterator[None]:
    """Count refusals against the address they go to, and look nothing up for one that has used up its allowance.

    Tokens that were good a while ago are looked up nevertheless: their users may share the address with somebody else.
    """
    found = presented(connection, deployment.access_url)
    token, seen = found.text if found else "", deployment.good_tokens
    if token not in seen:
        where = limits.source(address(connection))
        _refuse(deployment, deployment.api_limits.wait(where, deployment.clock.monotonic()))
    try:
        yield
    except Problem:
        seen.discard(token)
        await anyone(connection, deployment)
        raise
    seen.add(token)


async def caller(connection: HTTPConnection, deployment: Deployed) -> Caller:
    """Return the signed-in user. Raises Problem: 401 for everybody else, 403 for other sites' pages, 429."""
    if ASKED in connection.scope:
        return cast("Caller", connection.scope[ASKED])
    async with _counting_failures(connection, deployment):
        who = await _signed_in(connection, deployment)
    if not (who.may(Action.UPDATE, Resource.DEPLOYMENT) and connection.headers.get(BYPASS) == "true"):
        _pace(deployment, str(who.user.id))
    audit.by(who.user)
    return who


async def _signed_in(connection: HTTPConnection, deployment: Deployment) -> Caller:
    found = presented(connection, deployment.access_url)
    if found is None:
        raise Problem(401, _SIGNED_OUT, detail="The request holds no token.")
    require_own_origin(connection, found, deployment.origin)
    try:
        token = tokens.parse_session_token(found.text)
    except tokens.TokenFormatError as fault:
        raise _rejected(str(fault)) from None
    return await _verified(deployment, token)


async def holder(deployment: Deployment, text: str, scopes: frozenset[str]) -> Caller | None:
    """Return whom a token of one of these scopes stands for; None if it stands for nobody."""
    try:
        return await _verified(deployment, tokens.parse_session_token(text), scopes)
    except (tokens.TokenFormatError, Problem):
        return None


async def _verified(deployment: Deployment, token: tokens.SessionToken, scopes: frozenset[str] = _EVERYTHING) -> Caller:
    async with deployment.store.read() as session:
        key = await keys.get(session, token.id)
    if key is None:
        raise _rejected("The token is not known.")
    if not tokens.matches(key.hashed_secret, token.hashed):
        raise _rejected("The secret of the token is wrong.")
    await _use(deployment, key, scopes)
    return Caller(key.user, key)


async def still_valid(deployment: Deployment, who: Caller) -> bool:
    """Say whether the session of a caller still stands; having a connection open counts as using it."""
    async with deployment.store.read() as session:
        key = await keys.get(session, who.key.id)
    if key is None:
        return False
    try:
        await _use(deployment, key)
    except Problem:
        return False
    return True


async def _use(deployment: Deployment, key: ApiKey, scopes: frozenset[str] = _EVERYTHING) -> None:
    """Use a key: refuse it when it has ended, note the use otherwise."""
    now = deployment.clock.now()
    lease = keys.lease(key)
    if sessions.is_expired(lease, now):
        raise _rejected(f"The token ended at {key.expires_at.isoformat()}.")
    if key.user.status != users.ACTIVE:
        raise _rejected(f"The user is {key.user.status}.")
    if key.scope not in scopes:
        raise _rejected(f"A token of scope {key.scope} does not open the API.")
    use = sessions.use(lease, now, extend=not deployment.settings.sessions.disable_refresh)
    if use:
        async with deployment.store.write() as session:
            await keys.record_use(session, key.id, use)
            await users.seen(session, key.user_id, now)


def _rejected(detail: str) -> Problem:
    return Problem(
        401, _SIGNED_OUT, detail=detail, headers={"WWW-Authenticate": 'Bearer realm="coder", error="invalid_token"'}
    )


async def agent_caller(connection: HTTPConnection, deployment: Deployed) -> agents.Identity:
    """Return the agent whose token the request holds. Raises Problem (401, 403, 429)."""
    if ASKED in connection.scope:
        return cast("agents.Identity", connection.scope[ASKED])
    async with _counting_failures(connection, deployment):
        identity = await _agent(connection, deployment)
    _pace(deployment, str(identity.agent.id))
    return identity


async def _agent(connection: HTTPConnection, deployment: Deployment) -> agents.Identity:
    found = presented(connection, deployment.access_url)
    if found is None:
        raise Problem(
            401, "An agent token is needed.", detail=f"Send it as the cookie {cookies.SESSION} or the header {HEADER}."
        )
    require_own_origin(connection, found, deployment.origin)
    try:
        token = UUID(found.text)
    except ValueError:
        raise Problem(401, "The agent token is not valid.", detail="An agent token is a UUID.") from None
    async with deployment.store.read() as session:
        identity = await agents.by_token(session, tokens.hash_agent_token(token))
    good = identity is not None and identity.owner.status == users.ACTIVE
    if identity is None or not good or not may_have(identity.owner.role_names, identity.workspace.template.kind):
        why = "No running workspace has this token: it may be stopped or deleted, or have a newer token."
        raise Problem(401, "The agent is not authorised.", detail=why)
    return identity


ANYONE = Depends(anyone)
SignedIn = Annotated[Caller, Depends(caller)]
AgentCaller = Annotated[agents.Identity, Depends(agent_caller)]


async def user_named(deployment: Deployment, who: Caller, name: str) -> User:
    """Find the user of a route: `me`, a name or an id. Raises Problem (404), also for users the caller may not see."""
    if name == "me" or name.lower() in {who.user.username.lower(), str(who.user.id)}:
        audit.about(who.user.id, who.user.username)
        return who.user
    who.require(Action.READ, Resource.USER)
    async with deployment.store.read() as session:
        try:
            found = await users.get(session, UUID(name))
        except ValueError:
            found = await users.by_name(session, name)
    if found is None or found.status == users.DELETED:
        raise not_found()
    audit.about(found.id, found.username)
    return found
