"""The first user, login and logout."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from coder.access import cookies, names, passwords, tokens
from coder.access.roles import OWNER
from coder.db import keys, users
from coder.db.models import User
from coder.server import audit
from coder.server.asking import AskedFirst
from coder.server.auth import ANYONE, SignedIn, address
from coder.server.deployment import Deployed, Deployment
from coder.server.own_pages import NO_OTHER_PAGE
from coder.server.problems import Problem, invalid, too_many
from coder.server.texts import Line, Typed

router = APIRouter(tags=["users"], route_class=AskedFirst)

_WRONG = "The e-mail address or the password is wrong."


class FirstUser(BaseModel):
    """The user that owns a new deployment."""

    email: Typed
    username: Typed
    password: Typed
    name: Line = Field(default="", max_length=128)


class Login(BaseModel):
    """What a person signs in with."""

    email: Typed
    password: Typed


@router.get("/users/first", dependencies=[ANYONE])
async def first_user_exists(deployment: Deployed) -> dict[str, str]:
    """Say whether the first user exists: 200, or 404."""
    async with deployment.store.read() as session:
        if await users.any_exist(session):
            return {"message": "The first user exists already."}
    raise Problem(404, "There is no first user yet.")


@router.post("/users/first", status_code=201, dependencies=[ANYONE, NO_OTHER_PAGE])
async def create_first_user(wanted: FirstUser, deployment: Deployed) -> dict[str, str]:
    """Create the first user; they own the deployment."""
    check(wanted)
    hashed = await asyncio.to_thread(passwords.hash_password, wanted.password)
    async with deployment.store.write() as session:
        if await users.any_exist(session):
            raise Problem(409, "The first user exists already.")
        user = await users.create(
            session,
            organization_id=deployment.site.organization.id,
            username=wanted.username,
            email=wanted.email,
            name=wanted.name,
            password_hash=hashed,
            roles=[OWNER],
            now=deployment.clock.now(),
        )
    audit.by(user)
    audit.about(user.id, user.username)
    return {"user_id": str(user.id), "organization_id": str(user.organization_id)}


def check(wanted: FirstUser, *only: str) -> None:
    """Raise Problem naming what nobody can be called, or sign in with; of some fields only."""
    found = {
        "email": names.email_problem(wanted.email),
        "username": names.username_problem(wanted.username),
        "password": passwords.password_problem(wanted.password),
    }
    faults = [(name, fault) for name, fault in found.items() if fault and (not only or name in only)]
    if faults:
        raise invalid(*faults)


@router.post("/users/login", status_code=201, dependencies=[ANYONE])
async def login(wanted: Login, request: Request, response: Response, deployment: Deployed) -> dict[str, str]:
    """Sign in with a password: a session token, also as the cookie of a browser."""
    if fault := names.email_problem(wanted.email):
        raise invalid(("email", fault))
    limit_logins(request, wanted.email, deployment)
    audit.about(None, wanted.email)
    async with deployment.store.read() as session:
        user = await users.by_email(session, wanted.email)
    stored = user.password_hash if user else None
    if not await asyncio.to_thread(passwords.verify_password, stored, wanted.password) or user is None:
        raise Problem(401, _WRONG)
    if user.status != users.ACTIVE:
        raise Problem(401, f"The account is {user.status}.", detail="Ask an owner of the deployment.")
    if deployment.settings.sessions.disable_password_auth and OWNER not in user.role_names:
        raise Problem(403, "Logins with a password are turned off.")
    token = await new_session(deployment, user)
    audit.by(user)
    set_cookie(response, deployment, token.text)
    return {"session_token": token.text}


def limit_logins(request: Request, account: str, deployment: Deployment) -> None:
    """Count one try of a password. Raises Problem (429)."""
    seconds = deployment.login_limits.hit(address(request), account, deployment.clock.monotonic())
    if seconds:
        raise too_many("Too many logins were tried.", seconds)


async def new_session(deployment: Deployment, user: User, login_type: str = keys.PASSWORD) -> tokens.SessionToken:
    """Start a session of a user as they were when their password was compared. Raises Problem (401)."""
    token, now = tokens.new_session_token(), deployment.clock.now()
    async with deployment.store.write() as session:
        current = await users.get(session, user.id)
        if current is None or (current.status, current.password_hash) != (users.ACTIVE, user.password_hash):
            raise Problem(401, _WRONG)  # changed since it was compared
        lifetime = deployment.settings.sessions.duration
        await keys.create(session, token, user_id=user.id, login_type=login_type, lifetime=lifetime, now=now)
        await users.seen(session, user.id, now)
    deployment.good_tokens.add(token.text)
    return token


def set_cookie(response: Response, deployment: Deployment, value: str) -> None:
    """Give a browser its session, or take it back (empty)."""
    http = deployment.settings.http
    https = deployment.access_url.startswith("https:")
    secure = https or http.secure_auth_cookie or http.samesite_auth_cookie == "none"
    samesite: Any = http.samesite_auth_cookie
    name = cookies.name(cookies.SESSION, deployment.access_url)
    if value:
        response.set_cookie(name, value, path="/", httponly=True, samesite=samesite, secure=secure)
    else:
        response.delete_cookie(name, path="/", httponly=True, samesite=samesite, secure=secure)


@router.post("/users/logout")
async def logout(who: SignedIn, response: Response, deployment: Deployed) -> dict[str, str]:
    """End the session that was used for this call, and the connections made with it."""
    async with deployment.store.write() as session:
        await keys.delete(session, who.key.id)
        await keys.end_apps(session, who.user.id)
    deployment.sockets.end(who.key.id, "signed out")
    set_cookie(response, deployment, "")
    return {"message": "Signed out."}


@router.get("/users/authmethods", dependencies=[ANYONE])
async def auth_methods(deployment: Deployed) -> dict[str, Any]:
    """Say how one may sign in."""
    oidc = deployment.settings.oidc
    return {
        "terms_of_service_url": "",
        "password": {"enabled": not deployment.settings.sessions.disable_password_auth},
        "github": {"enabled": False, "default_provider_configured": False},
        "oidc": {
            "enabled": deployment.oidc is not None,
            "signInText": oidc.sign_in_text if deployment.oidc else "",
            "iconUrl": oidc.icon_url if deployment.oidc else "",
        },
    }
