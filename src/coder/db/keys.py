"""Sessions and tokens."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete as delete_from
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload

from coder.access.sessions import Lease, Use
from coder.access.tokens import SessionToken
from coder.db.models import ApiKey

PASSWORD, OIDC, TOKEN, APP = "password", "oidc", "token", "app"


def lease(key: ApiKey) -> Lease:
    """Return the times that decide about a key. Logins with a password are extended by use.

    Those through a provider end, so that it is asked again; tokens end when they were made to.
    """
    return Lease(
        expires_at=key.expires_at,
        last_used=key.last_used,
        lifetime=timedelta(seconds=key.lifetime_seconds),
        extends=key.login_type == PASSWORD,
    )


async def create(
    session: AsyncSession,
    token: SessionToken,
    *,
    user_id: UUID,
    login_type: str,
    lifetime: timedelta,
    now: datetime,
    scope: str = "all",
    name: str | None = None,
) -> ApiKey:
    """Store a new key's hash. Raises IntegrityError when the user has a token of that name."""
    key = ApiKey(
        id=token.id,
        hashed_secret=token.hashed,
        user_id=user_id,
        login_type=login_type,
        scope=scope,
        token_name=name,
        lifetime_seconds=int(lifetime.total_seconds()),
        created_at=now,
        updated_at=now,
        last_used=now,
        expires_at=now + lifetime,
    )
    session.add(key)
    await session.flush()
    return key


async def get(session: AsyncSession, key_id: str) -> ApiKey | None:
    """Return a key with its user."""
    return await session.scalar(select(ApiKey).where(ApiKey.id == key_id).options(joinedload(ApiKey.user)))


async def by_name(session: AsyncSession, user_id: UUID, name: str) -> ApiKey | None:
    """Return a user's token by its name."""
    query = select(ApiKey).where(ApiKey.user_id == user_id, ApiKey.token_name == name)
    return await session.scalar(query.options(joinedload(ApiKey.user)))


async def tokens(session: AsyncSession, user_id: UUID | None) -> Sequence[ApiKey]:
    """Return the tokens of a user, or of everybody (None), oldest first. Logins are not among them."""
    query = select(ApiKey).where(ApiKey.login_type == TOKEN).order_by(ApiKey.created_at, ApiKey.id)
    if user_id:
        query = query.where(ApiKey.user_id == user_id)
    return (await session.scalars(query.options(joinedload(ApiKey.user)))).all()


async def record_use(session: AsyncSession, key_id: str, use: Use) -> None:
    """Store that a key was used, and its new end."""
    values = {"last_used": use.last_used, "expires_at": use.expires_at, "updated_at": use.last_used}
    await session.execute(update(ApiKey).where(ApiKey.id == key_id).values(values))


async def delete(session: AsyncSession, key_id: str) -> None:
    """Forget a key."""
    await session.execute(delete_from(ApiKey).where(ApiKey.id == key_id))


async def forget_expired(session: AsyncSession, before: datetime) -> None:
    """Forget sessions and tokens that ended before then."""
    await session.execute(delete_from(ApiKey).where(ApiKey.expires_at < before))


async def end(
    session: AsyncSession, user_id: UUID, *, but: str | None = None, sessions_only: bool = False
) -> Sequence[str]:
    """Forget the keys of a user, except one: tokens too, or sessions only. Returns the ids of those that ended."""
    conditions = [ApiKey.user_id == user_id]
    if but is not None:
        conditions.append(ApiKey.id != but)
    if sessions_only:
        conditions.append(ApiKey.login_type != TOKEN)
    ended = (await session.scalars(select(ApiKey.id).where(*conditions))).all()
    await session.execute(delete_from(ApiKey).where(*conditions))
    return ended


async def end_apps(session: AsyncSession, user_id: UUID) -> None:
    """Forget a user's sessions on hosts of apps."""
    await session.execute(delete_from(ApiKey).where(ApiKey.user_id == user_id, ApiKey.login_type == APP))
