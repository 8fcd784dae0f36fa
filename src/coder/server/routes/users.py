"""Users: the first one, login and logout, and who somebody is."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from sqlalchemy.exc import IntegrityError

from coder.access import names, passwords, tokens
from coder.db import keys, users
from coder.db.models import User
from coder.server import views
from coder.server.auth import ANYONE, COOKIE, SignedIn, address, user_named
from coder.server.deployment import Deployed, Deployment
from coder.server.problems import Problem, invalid, too_many

router = APIRouter(tags=["users"])

_WRONG = "The e-mail address or the password is wrong."


class FirstUser(BaseModel):
    """The user that owns a new deployment."""

    email: str
    username: str
    password: str
    name: str = ""


class Login(BaseModel):
    """What a person signs in with."""

    email: str
    password: str


@router.get("/users/first", dependencies=[ANYONE])
async def first_user_exists(deployment: Deployed) -> dict[str, str]:
    """Say whether the first user exists: 200, or 404."""
    async with deployment.store.read() as session:
        if await users.any_exist(session):
            return {"message": "The first user exists already."}
    raise Problem(404, "There is no first user yet.")


@router.post("/users/first", status_code=201, dependencies=[ANYONE])
async def create_first_user(wanted: FirstUser, deployment: Deployed) -> dict[str, str]:
    """Create the first user; they own the deployment."""
    _check(wanted)
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
            role=users.OWNER,
            now=deployment.clock.now(),
        )
    return {"user_id": str(user.id), "organization_id": str(user.organization_id)}


def _check(wanted: FirstUser) -> None:
    found = {
        "email": names.email_problem(wanted.email),
        "username": names.username_problem(wanted.username),
        "password": passwords.password_problem(wanted.password),
    }
    faults = [(name, fault) for name, fault in found.items() if fault]
    if faults:
        raise invalid(*faults)


@router.post("/users/login", status_code=201, dependencies=[ANYONE])
async def login(wanted: Login, request: Request, response: Response, deployment: Deployed) -> dict[str, str]:
    """Sign in with a password: a session token, also as the cookie of a browser."""
    _limit(request, wanted, deployment)
    async with deployment.store.read() as session:
        user = await users.by_email(session, wanted.email)
    stored = user.password_hash if user else None
    if not await asyncio.to_thread(passwords.verify_password, stored, wanted.password) or user is None:
        raise Problem(401, _WRONG)
    if user.status != users.ACTIVE:
        raise Problem(401, f"The account is {user.status}.", detail="Ask an owner of the deployment.")
    if deployment.settings.sessions.disable_password_auth and user.role != users.OWNER:
        raise Problem(403, "Logins with a password are turned off.")
    token = await new_session(deployment, user)
    _set_cookie(response, deployment, token.text)
    return {"session_token": token.text}


def _limit(request: Request, wanted: Login, deployment: Deployment) -> None:
    seconds = deployment.login_limits.hit(address(request), wanted.email, deployment.clock.monotonic())
    if seconds:
        raise too_many("Too many logins were tried.", seconds)


async def new_session(deployment: Deployment, user: User) -> tokens.SessionToken:
    """Start a session of a user."""
    token, now = tokens.new_session_token(), deployment.clock.now()
    async with deployment.store.write() as session:
        lifetime = deployment.settings.sessions.duration
        await keys.create(session, token, user_id=user.id, login_type=keys.PASSWORD, lifetime=lifetime, now=now)
        await users.seen(session, user.id, now)
    return token


def _set_cookie(response: Response, deployment: Deployment, value: str) -> None:
    http = deployment.settings.http
    secure = http.secure_auth_cookie or http.samesite_auth_cookie == "none"
    samesite: Any = http.samesite_auth_cookie
    if value:
        response.set_cookie(COOKIE, value, path="/", httponly=True, samesite=samesite, secure=secure)
    else:
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite=samesite, secure=secure)


@router.post("/users/logout")
async def logout(who: SignedIn, response: Response, deployment: Deployed) -> dict[str, str]:
    """End the session that was used for this call, and the connections made with it."""
    async with deployment.store.write() as session:
        await keys.delete(session, who.key.id)
    deployment.sockets.end(who.key.id, "signed out")
    _set_cookie(response, deployment, "")
    return {"message": "Signed out."}


@router.get("/users/authmethods", dependencies=[ANYONE])
async def auth_methods(deployment: Deployed) -> dict[str, Any]:
    """Say how one may sign in."""
    return {
        "terms_of_service_url": "",
        "password": {"enabled": not deployment.settings.sessions.disable_password_auth},
        "github": {"enabled": False, "default_provider_configured": False},
        "oidc": {"enabled": False, "signInText": "", "iconUrl": ""},
    }


@router.get("/users/me/organizations")
async def own_organizations(_who: SignedIn, deployment: Deployed) -> list[views.Json]:
    """List the organizations of the caller."""
    return [views.organization(deployment.site.organization)]


@router.get("/users/{user}")
async def show_user(user: str, who: SignedIn, deployment: Deployed) -> views.Json:
    """Show a user: `me`, a name or an id."""
    return views.user(await user_named(deployment, who, user))


@router.put("/users/{user}/status/{status}")
async def set_status(user: str, status: str, who: SignedIn, deployment: Deployed) -> views.Json:
    """Suspend a user, which ends their connections, or make them active again. For owners."""
    wanted = {"suspend": users.SUSPENDED, "activate": users.ACTIVE}.get(status)
    if wanted is None or not who.is_owner:
        raise Problem(404, "Route not found.")
    found = await user_named(deployment, who, user)
    if found.id == who.user.id:
        raise Problem(400, "You cannot change your own status.")
    async with deployment.store.write() as session:
        await users.set_status(session, found.id, wanted, deployment.clock.now())
        changed = await users.get(session, found.id)
    if wanted == users.SUSPENDED:
        deployment.sockets.end(found.id, "user suspended")
    assert changed is not None
    return views.user(changed)


@router.post("/users", status_code=201)
async def create_user(wanted: FirstUser, who: SignedIn, deployment: Deployed) -> views.Json:
    """Create a further user, a member. For owners."""
    if not who.is_owner:
        raise Problem(403, "Forbidden.", detail="Only owners create users.")
    _check(wanted)
    hashed = await asyncio.to_thread(passwords.hash_password, wanted.password)
    try:
        async with deployment.store.write() as session:
            user = await users.create(
                session,
                organization_id=deployment.site.organization.id,
                username=wanted.username,
                email=wanted.email,
                name=wanted.name,
                password_hash=hashed,
                role=users.MEMBER,
                now=deployment.clock.now(),
            )
    except IntegrityError:
        raise Problem(409, "A user with this name or e-mail address exists already.") from None
    return views.user(user)
