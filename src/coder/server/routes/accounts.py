"""The accounts of users: who there is, what they may do, their passwords, and how an account ends."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from coder.access import names, passwords, roles
from coder.access.roles import Action, Resource
from coder.db import keys, users, workspaces
from coder.db.models import User
from coder.server import audit, builds, user_search, views
from coder.server.asking import AskedFirst
from coder.server.auth import Caller, SignedIn, user_named
from coder.server.deployment import Deployed, Deployment
from coder.server.problems import Problem, forbidden, invalid
from coder.server.routes.users import FirstUser, check, limit_logins
from coder.server.sockets import agents_of
from coder.server.texts import Line, Typed

router = APIRouter(tags=["users"], route_class=AskedFirst)

_TAKEN = "A user with this name or e-mail address exists already."
_STATUS = {"suspend": users.SUSPENDED, "activate": users.ACTIVE}


class NewUser(FirstUser):
    """A further user, who signs in with a password or through the provider."""

    password: Typed = ""
    login_type: Literal["password", "oidc"] = "password"


class Profile(BaseModel):
    """What a user is called."""

    username: Typed
    name: Line | None = Field(default=None, max_length=128)


class Roles(BaseModel):
    """The roles a user is to have, all of them."""

    roles: list[Typed] = Field(max_length=16)


class BrowserOnly(BaseModel):
    """Whether a user reaches workspaces through the server's pages only."""

    browser_only: bool


class Passwords(BaseModel):
    """A new password; the old one too when it is one's own."""

    password: Typed
    old_password: Typed = ""


@router.get("/users/me/organizations")
async def own_organizations(_who: SignedIn, deployment: Deployed) -> list[views.Json]:
    """List the organizations of the caller."""
    return [views.organization(deployment.site.organization)]


@router.get("/users/roles")
async def list_roles(who: SignedIn) -> list[views.Json]:
    """List the roles there are, and whether the caller may give them."""
    return [
        {
            "name": name,
            "display_name": display,
            "assignable": roles.may_assign(who.user.role_names, [name]) and who.may(Action.UPDATE, Resource.USER),
            "built_in": True,
        }
        for name, display in roles.DISPLAY.items()
        if name != roles.MEMBER
    ]


@router.get("/users")
async def list_users(
    who: SignedIn,
    deployment: Deployed,
    q: str = "",
    limit: Annotated[int, Query(ge=0)] = 0,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> views.Json:
    """List the users that a search finds; members find themselves."""
    async with deployment.store.read() as session:
        rows = await users.search(session, user_search.parse(q))
    found = [row for row in rows if who.may(Action.READ, Resource.USER, row.id)]
    shown = found[offset : offset + limit] if limit else found[offset:]
    return {"users": [views.user(row) for row in shown], "count": len(found)}


@router.post("/users", status_code=201)
async def create_user(wanted: NewUser, who: SignedIn, deployment: Deployed) -> views.Json:
    """Create a further user, a member."""
    if not who.may(Action.CREATE, Resource.USER):
        raise forbidden("Your roles do not let you create users; ask an owner of the deployment.")
    audit.about(None, wanted.username)
    if wanted.login_type == users.PASSWORD:
        check(wanted)
        hashed = await asyncio.to_thread(passwords.hash_password, wanted.password)
    else:
        check(wanted, "email", "username")
        hashed = ""
    async with _unique(deployment) as session:
        user = await users.create(
            session,
            organization_id=deployment.site.organization.id,
            username=wanted.username,
            email=wanted.email,
            name=wanted.name,
            password_hash=hashed,
            roles=[],
            now=deployment.clock.now(),
            login_type=wanted.login_type,
        )
    audit.about(user.id, user.username)
    return views.user(user)


@router.get("/users/{user}")
async def show_user(user: str, who: SignedIn, deployment: Deployed) -> views.Json:
    """Show a user: `me`, a name or an id."""
    return views.user(await user_named(deployment, who, user))


@router.get("/users/{user}/login-type")
async def login_type(user: str, who: SignedIn, deployment: Deployed) -> dict[str, str]:
    """Say how a user signs in."""
    return {"login_type": (await user_named(deployment, who, user)).login_type}


@router.put("/users/{user}/profile")
async def set_profile(user: str, wanted: Profile, who: SignedIn, deployment: Deployed) -> views.Json:
    """Change what a user is called."""
    found = await _account(deployment, who, user, Action.UPDATE)
    audit.detail(f"name: {wanted.username}")
    if fault := names.username_problem(wanted.username):
        raise invalid(("username", fault))
    values = {"username": wanted.username} | ({} if wanted.name is None else {"name": wanted.name})
    async with _unique(deployment) as session:
        await users.change(session, found.id, deployment.clock.now(), **values)
    return await _shown(deployment, found)


@router.put("/users/{user}/status/{status}")
async def set_status(user: str, status: str, who: SignedIn, deployment: Deployed) -> views.Json:
    """Suspend a user, which ends their connections and refuses their sessions and tokens; or make them active again.

    Then their tokens work again; for a session they sign in anew.
    """
    wanted = _STATUS.get(status)
    if wanted is None:
        raise Problem(404, "Route not found.")
    audit.detail(f"status: {wanted}")
    found = await _account(deployment, who, user, Action.UPDATE, others_only="You cannot change your own status.")
    await _set_status(deployment, found, wanted)
    return await _shown(deployment, found)


@router.delete("/users/{user}")
async def delete_user(user: str, who: SignedIn, deployment: Deployed) -> dict[str, str]:
    """Delete a user who has no workspaces, with their sessions and tokens. Their name is free again."""
    found = await _account(deployment, who, user, Action.DELETE, others_only="You cannot delete yourself.")
    await _set_status(deployment, found, users.DELETED)
    return {"message": "The user has been deleted."}


async def _set_status(deployment: Deployment, found: User, wanted: str) -> None:
    async with deployment.store.write() as session:
        if wanted == users.DELETED:
            await _require_no_workspaces(session, found)
        await users.set_status(session, found.id, wanted, deployment.clock.now())
        if wanted == users.DELETED:
            await keys.end(session, found.id)
        elif wanted == users.ACTIVE and found.status != users.ACTIVE:
            await keys.end(session, found.id, sessions_only=True)
        await _require_an_owner(session)
    if wanted != users.ACTIVE:
        deployment.sockets.end(found.id, f"user {wanted}")
        deployment.sockets.end(agents_of(found.id), f"user {wanted}")


async def _require_no_workspaces(session: AsyncSession, found: User) -> None:
    if await workspaces.count(session, workspaces.Search(owner_id=found.id)):
        raise Problem(409, f"{found.username} still has workspaces.", detail="Delete them first.")


async def _require_an_owner(session: AsyncSession) -> None:
    # Nobody acts on themselves, but two owners may act on each other at once.
    if not await users.has_active_owner(session):
        raise Problem(409, "Nobody would be left who owns the deployment.", detail="Make somebody else an owner first.")


@router.get("/users/{user}/roles")
async def show_roles(user: str, who: SignedIn, deployment: Deployed) -> views.Json:
    """List the roles of a user."""
    found = await user_named(deployment, who, user)
    return {"roles": sorted(found.role_names), "organization_roles": {}}


@router.put("/users/{user}/roles")
async def set_roles(user: str, wanted: Roles, who: SignedIn, deployment: Deployed) -> views.Json:
    """Give a user exactly these roles. What they have open ends, so that nothing stays open that they now may not."""
    audit.detail(f"roles: {', '.join(wanted.roles) or roles.MEMBER}")
    found = await _account(deployment, who, user, Action.UPDATE, others_only="You cannot change your own roles.")
    if unknown := roles.unknown(wanted.roles):
        known = ", ".join(sorted(roles.ANYWHERE))
        raise invalid(("roles", f"There is no role {unknown[0][:40]!r}; there are {known}."))
    if not roles.may_assign(who.user.role_names, wanted.roles):
        raise forbidden("Only an owner of the deployment gives roles.")
    async with deployment.store.write() as session:
        await users.set_roles(session, found.id, wanted.roles, deployment.clock.now())
        await _require_an_owner(session)
    deployment.sockets.end(found.id, "roles changed")
    await builds.stop_refused(deployment, found.id, who.user.id)
    return await _shown(deployment, found)


@router.put("/users/{user}/browser-only")
async def set_browser_only(user: str, wanted: BrowserOnly, who: SignedIn, deployment: Deployed) -> views.Json:
    """Hold a user to the browser, which ends their tunnels, or let them have tunnels again."""
    audit.detail(f"browser only: {wanted.browser_only}")
    found = await _account(deployment, who, user, Action.UPDATE, others_only="You cannot change this of yourself.")
    async with deployment.store.write() as session:
        await users.change(session, found.id, deployment.clock.now(), browser_only=wanted.browser_only)
    deployment.sockets.end(found.id, "browser-only changed")
    return await _shown(deployment, found)


@router.put("/users/{user}/password", status_code=204)
async def set_password(user: str, wanted: Passwords, request: Request, who: SignedIn, deployment: Deployed) -> Response:
    """Set a password. It ends all sessions and tokens of its user but the session this was asked with."""
    audit.detail("password")
    found = await _account(deployment, who, user, Action.UPDATE)
    if found.id == who.user.id:
        if found.login_type != users.PASSWORD:
            raise Problem(400, "You sign in through the provider; there is no password here to change.")
        limit_logins(request, found.email, deployment)
        if not await asyncio.to_thread(passwords.verify_password, found.password_hash, wanted.old_password):
            raise invalid(("old_password", "The old password is wrong."))
    if fault := passwords.password_problem(wanted.password):
        raise invalid(("password", fault))
    hashed = await asyncio.to_thread(passwords.hash_password, wanted.password)
    async with deployment.store.write() as session:
        await users.change(session, found.id, deployment.clock.now(), password_hash=hashed, login_type=users.PASSWORD)
        ended = await keys.end(session, found.id, but=who.key.id)
    _end(deployment, ended)
    return Response(status_code=204)


def _end(deployment: Deployment, key_ids: Sequence[str]) -> None:
    for key_id in key_ids:
        deployment.sockets.end(key_id, "password changed")


async def _account(
    deployment: Deployment, who: Caller, name: str, action: Action, *, others_only: str | None = None
) -> User:
    """Return a user whose account the caller may change that way. Raises Problem (400, 403, 404)."""
    found = await user_named(deployment, who, name)
    if found.id == who.user.id:
        if others_only:
            raise Problem(400, others_only)
        return found
    who.require(action, Resource.USER, found.id)
    if not roles.may_act_on(who.user.role_names, found.role_names):
        raise forbidden(f"{found.username} has roles that only an owner of the deployment gives.")
    return found


@asynccontextmanager
async def _unique(deployment: Deployment) -> AsyncIterator[AsyncSession]:
    try:
        async with deployment.store.write() as session:
            yield session
    except IntegrityError:
        raise Problem(409, _TAKEN) from None


async def _shown(deployment: Deployment, found: User) -> views.Json:
    async with deployment.store.read() as session:
        changed = await users.get(session, found.id)
    assert changed is not None
    return views.user(changed)
