"""Keeps the keys of resume tokens as the database has them, and renews them in time."""

import structlog
from sqlalchemy.exc import SQLAlchemyError

from coder.clock import Clock
from coder.db import signing
from coder.db.store import Store
from coder.tailnet.resume import LIFETIME, ResumeTokens

log = structlog.get_logger(__name__)

LOOK_EVERY = 3600.0
"""Seconds between looks at the keys."""


async def load(store: Store, clock: Clock) -> ResumeTokens:
    """Return the tokens with all their keys, the first of which is made now if there is none."""
    return ResumeTokens(*await _keys(store, clock))


async def renew(tokens: ResumeTokens, store: Store, clock: Clock) -> None:
    """Renew keys and forget old ones, for ever."""
    while True:
        await clock.sleep(LOOK_EVERY)
        try:
            tokens.replace(*await _keys(store, clock))
        except SQLAlchemyError as fault:
            log.warning("resume_keys.unreadable", fault=str(fault))


async def _keys(store: Store, clock: Clock) -> tuple[dict[str, bytes], str]:
    async with store.write() as session:
        found = await signing.keys(session, signing.RESUME, clock.now(), keep=LIFETIME)
    return {str(key.sequence): key.secret for key in found}, str(found[0].sequence)
