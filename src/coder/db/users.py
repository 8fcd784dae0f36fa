"""Users. Those that were deleted stay as rows, for history, and are found by their id alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import exists, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from coder.access import roles as names_of
from coder.db.models import User, UserLink

ACTIVE, SUSPENDED, DELETED = "active", "suspended", "deleted"
PASSWORD, OIDC = "password", "oidc"


async def any_exist(session: AsyncSession) -> bool:
    """Say whether the first user has been made."""
    return bool(await session.scalar(select(exists(select(User.id)))))


async def get(session: AsyncSession, user_id: UUID) -> User | None:
    """Return a user by id."""
    return await session.get(User, user_id)


async def by_name(session: AsyncSession, username: str) -> User | None:
    """Return a user by name, whatever its case."""
    query = select(User).where(func.lower(User.username) == username.lower(), User.status != DELETED)
    return await session.scalar(query)


async def by_email(session: AsyncSession, email: str) -> User | None:
    """Return a user by address, whatever its case."""
    return await session.scalar(select(User).where(func.lower(User.email) == email.lower(), User.status != DELETED))


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Conditions a listed user meets. None: any."""

    text: str | None = None
    """Part of the name or the address."""
    status: str | None = None
    role: str | None = None


async def search(session: AsyncSession, wanted: Search) -> Sequence[User]:
    """Return the users that a search finds, by name."""
    query = select(User).where(User.status != DELETED).order_by(func.lower(User.username))
    if wanted.text:
        text = wanted.text.lower()
        parts = (User.username, User.name, User.email)
        query = query.where(or_(*(func.lower(part).contains(text, autoescape=True) for part in parts)))
    if wanted.status:
        query = query.where(User.status == wanted.status)
    found = (await session.scalars(query)).all()
    if wanted.role in {None, names_of.MEMBER}:
        return found
    return [user for user in found if wanted.role in user.role_names]


async def create(
    session: AsyncSession,
    *,
    organization_id: UUID,
    username: str,
    email: str,
    name: str,
    password_hash: str,
    roles: Iterable[str],
    now: datetime,
    login_type: str = PASSWORD,
) -> User:
    """Add a user. Raises IntegrityError when name or address is taken."""
    user = User(
        id=uuid4(),
        organization_id=organization_id,
        username=username,
        email=email,
        name=name,
        password_hash=password_hash,
        login_type=login_type,
        roles=_joined(roles),
        status=ACTIVE,
        created_at=now,
        updated_at=now,
        last_seen_at=now,
    )
    session.add(user)
    await session.flush()
    return user


def _joined(roles: Iterable[str]) -> str:
    return ",".join(sorted(set(roles) - {names_of.MEMBER}))


async def set_roles(session: AsyncSession, user_id: UUID, roles: Iterable[str], now: datetime) -> None:
    """Give a user exactly these roles."""
    await change(session, user_id, now, roles=_joined(roles))


async def change(session: AsyncSession, user_id: UUID, now: datetime, **values: Any) -> None:
    """Store new values. Raises IntegrityError when a name or an address is taken."""
    await session.execute(update(User).where(User.id == user_id).values(**values, updated_at=now))


async def has_active_owner(session: AsyncSession) -> bool:
    """Say whether anybody is left who may do everything."""
    active = (await session.scalars(select(User.roles).where(User.status == ACTIVE))).all()
    return any(names_of.OWNER in roles.split(",") for roles in active)


async def set_status(session: AsyncSession, user_id: UUID, status: str, now: datetime) -> None:
    """Suspend or delete a user, or make them active again."""
    await change(session, user_id, now, status=status)


async def seen(session: AsyncSession, user_id: UUID, now: datetime) -> None:
    """Note that a user was here."""
    await session.execute(update(User).where(User.id == user_id).values(last_seen_at=now))


async def by_link(session: AsyncSession, issuer: str, subject: str) -> User | None:
    """Return whom a provider's subject is here."""
    query = select(User).join(UserLink, UserLink.user_id == User.id)
    return await session.scalar(query.where(UserLink.issuer == issuer, UserLink.subject == subject))


async def is_linked(session: AsyncSession, user_id: UUID) -> bool:
    """Say whether a user is somebody's at a provider already."""
    return bool(await session.scalar(select(exists().where(UserLink.user_id == user_id))))


async def link(session: AsyncSession, user_id: UUID, issuer: str, subject: str, now: datetime) -> None:
    """Note who a user is at a provider. Raises IntegrityError when either is linked already."""
    session.add(UserLink(issuer=issuer, subject=subject, user_id=user_id, created_at=now))
    await session.flush()
