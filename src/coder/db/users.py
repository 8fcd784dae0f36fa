"""Users."""

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from coder.db.models import User

OWNER, MEMBER = "owner", "member"
ACTIVE, SUSPENDED = "active", "suspended"


async def any_exist(session: AsyncSession) -> bool:
    """Say whether the first user has been made."""
    return bool(await session.scalar(select(exists(select(User.id)))))


async def get(session: AsyncSession, user_id: UUID) -> User | None:
    """Return a user by id."""
    return await session.get(User, user_id)


async def by_name(session: AsyncSession, username: str) -> User | None:
    """Return a user by name, whatever its case."""
    return await session.scalar(select(User).where(func.lower(User.username) == username.lower()))


async def by_email(session: AsyncSession, email: str) -> User | None:
    """Return a user by address, whatever its case."""
    return await session.scalar(select(User).where(func.lower(User.email) == email.lower()))


async def create(
    session: AsyncSession,
    *,
    organization_id: UUID,
    username: str,
    email: str,
    name: str,
    password_hash: str,
    role: str,
    now: datetime,
) -> User:
    """Add a user. Raises IntegrityError when name or address is taken."""
    user = User(
        id=uuid4(),
        organization_id=organization_id,
        username=username,
        email=email,
        name=name,
        password_hash=password_hash,
        role=role,
        status=ACTIVE,
        created_at=now,
        updated_at=now,
        last_seen_at=now,
    )
    session.add(user)
    await session.flush()
    return user


async def set_status(session: AsyncSession, user_id: UUID, status: str, now: datetime) -> None:
    """Suspend a user or make them active again."""
    await session.execute(update(User).where(User.id == user_id).values(status=status, updated_at=now))


async def seen(session: AsyncSession, user_id: UUID, now: datetime) -> None:
    """Note that a user was here."""
    await session.execute(update(User).where(User.id == user_id).values(last_seen_at=now))
