"""Keys that sign tokens: the newest signs, all that are kept verify."""

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from coder.db.models import CryptoKey

RESUME = "tailnet_resume"
"""Feature name of the keys that sign resume tokens."""
APPS = "workspace_apps_token"
"""Feature name of the keys that sign tickets of apps."""
RENEW_AFTER = timedelta(days=30)
"""Age at which a key gets a successor."""
KEY_SIZE = 64


async def keys(session: AsyncSession, feature: str, now: datetime, *, keep: timedelta) -> Sequence[CryptoKey]:
    """Return the keys of a feature, the one that signs first.

    Makes the first key, and the next one when the newest is old. Forgets a key once its successor has signed for
    `keep`, the lifetime of what they sign.
    """
    query = select(CryptoKey).where(CryptoKey.feature == feature).order_by(CryptoKey.sequence.desc())
    found = list((await session.scalars(query)).all())
    if not found or now - found[0].created_at >= RENEW_AFTER:
        sequence = found[0].sequence + 1 if found else 1
        new = CryptoKey(feature=feature, sequence=sequence, secret=secrets.token_bytes(KEY_SIZE), created_at=now)
        session.add(new)
        found.insert(0, new)
    kept = found[:1]
    for successor, key in pairwise(found):
        if now - successor.created_at >= keep:
            await session.delete(key)
        else:
            kept.append(key)
    return kept
