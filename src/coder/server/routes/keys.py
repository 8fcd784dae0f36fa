"""Session keys and tokens of users."""

from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field
from sqlalchemy.exc import IntegrityError

from coder.access import names, tokens
from coder.access.roles import Action, Resource
from coder.db import keys
from coder.db.models import ApiKey
from coder.server import audit, views
from coder.server.asking import AskedFirst
from coder.server.auth import Caller, SignedIn, user_named
from coder.server.deployment import Deployed, Deployment
from coder.server.problems import Problem, forbidden, invalid, not_found
from coder.server.texts import Typed

router = APIRouter(tags=["tokens"], route_class=AskedFirst)

SESSION_KEY_LIFETIME = timedelta(days=7)
"""Lifetime of a key made for another program of the same user, such as the command line."""

_NS = 1_000_000_000


class NewToken(BaseModel):
    """What a new token is to be."""

    lifetime: int = Field(default=0, ge=0)
    """Nanoseconds; 0 takes the default."""
    scope: Typed = ""
    token_name: Typed = ""


@router.post("/users/{user}/keys", status_code=201)
async def create_key(user: str, who: SignedIn, deployment: Deployed) -> dict[str, str]:
    """Start another session of the caller, for another program of theirs."""
    found = await user_named(deployment, who, user)
    if not who.may(Action.CREATE, Resource.SESSION, found.id):
        raise forbidden("A session is started by its own user.")
    token, now = tokens.new_session_token(), deployment.clock.now()
    made: dict[str, Any] = {"login_type": who.key.login_type, "lifetime": SESSION_KEY_LIFETIME}
    if who.key.login_type == keys.TOKEN:  # what a token makes is a token too, listed, and ends when it does
        made |= {"lifetime": min(SESSION_KEY_LIFETIME, who.key.expires_at - now), "name": _any_name(token)}
    async with deployment.store.write() as session:
        await keys.create(session, token, user_id=found.id, now=now, **made)
    return {"key": token.text}


@router.get("/users/{user}/keys/tokens/tokenconfig")
async def token_config(user: str, who: SignedIn, deployment: Deployed) -> dict[str, int]:
    """Say how long a token may live, in nanoseconds."""
    await user_named(deployment, who, user)
    return {"max_token_lifetime": int(deployment.settings.sessions.max_token_lifetime.total_seconds()) * _NS}


@router.post("/users/{user}/keys/tokens", status_code=201)
async def create_token(user: str, wanted: NewToken, who: SignedIn, deployment: Deployed) -> dict[str, str]:
    """Make a token. It is shown this once."""
    found = await user_named(deployment, who, user)
    who.require(Action.CREATE, Resource.TOKEN, found.id)
    lifetime = _lifetime(wanted, deployment)
    if wanted.scope not in {"", "all", "application_connect"}:
        raise invalid(("scope", "Expected all or application_connect."))
    token = tokens.new_session_token()
    name = wanted.token_name or _any_name(token)
    audit.about(None, name)
    audit.detail(f"of {found.username}")
    if fault := names.name_problem(name):
        raise invalid(("token_name", fault))
    try:
        async with deployment.store.write() as session:
            await keys.create(
                session,
                token,
                user_id=found.id,
                login_type=keys.TOKEN,
                lifetime=lifetime,
                now=deployment.clock.now(),
                scope=wanted.scope or "all",
                name=name,
            )
    except IntegrityError:
        raise Problem(409, f"A token named {name!r} exists already.", validations=[("token_name", "Taken.")]) from None
    return {"key": token.text}


def _any_name(token: tokens.SessionToken) -> str:
    return f"token-{token.id.lower()}"


def _lifetime(wanted: NewToken, deployment: Deployment) -> timedelta:
    settings = deployment.settings.sessions
    if not wanted.lifetime:
        return min(settings.default_token_lifetime, settings.max_token_lifetime)
    if wanted.lifetime > settings.max_token_lifetime.total_seconds() * _NS:
        hours = settings.max_token_lifetime.total_seconds() / 3600
        raise invalid(("lifetime", f"At most {hours:g} hours are allowed here."))
    return max(timedelta(seconds=wanted.lifetime // _NS), timedelta(seconds=1))


@router.get("/users/{user}/keys/tokens")
async def list_tokens(user: str, who: SignedIn, deployment: Deployed, include_all: bool = False) -> list[views.Json]:
    """List the tokens of a user; owners may ask for everybody's."""
    found = await user_named(deployment, who, user)
    who.require(Action.READ, Resource.TOKEN, found.id)
    everybody = include_all and who.may(Action.READ, Resource.TOKEN)
    async with deployment.store.read() as session:
        return [views.api_key(key) for key in await keys.tokens(session, None if everybody else found.id)]


@router.get("/users/{user}/keys/tokens/{name}")
async def show_token(user: str, name: str, who: SignedIn, deployment: Deployed) -> views.Json:
    """Show a token by its name."""
    found = await user_named(deployment, who, user)
    async with deployment.store.read() as session:
        key = await keys.by_name(session, found.id, name)
    return views.api_key(_visible(key, who, Action.READ))


@router.get("/users/{user}/keys/{key_id}")
async def show_key(user: str, key_id: str, who: SignedIn, deployment: Deployed) -> views.Json:
    """Show a session or token by its id."""
    return views.api_key(await _key(user, key_id, who, deployment, Action.READ))


@router.delete("/users/{user}/keys/{key_id}", status_code=204)
async def delete_key(user: str, key_id: str, who: SignedIn, deployment: Deployed) -> Response:
    """End a session or token, and the connections made with it."""
    key = await _key(user, key_id, who, deployment, Action.DELETE)
    async with deployment.store.write() as session:
        await keys.delete(session, key.id)
        await keys.end_apps(session, key.user_id)  # one of them may have been started with it
    deployment.sockets.end(key.id, "token deleted")
    return Response(status_code=204)


async def _key(user: str, key_id: str, who: Caller, deployment: Deployment, action: Action) -> ApiKey:
    await user_named(deployment, who, user)
    async with deployment.store.read() as session:
        return _visible(await keys.get(session, key_id), who, action)


def _visible(key: ApiKey | None, who: Caller, action: Action) -> ApiKey:
    # An id alone names a key, so that `me` in the path serves for the keys of others too.
    if key is None:
        raise not_found()
    audit.about(None, key.token_name or key.id)
    who.require(action, Resource.TOKEN if key.login_type == keys.TOKEN else Resource.SESSION, key.user_id)
    return key
