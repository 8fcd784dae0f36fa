"""What serving apps needs: keys of tickets, the edge's secret, the tunnels to agents."""

import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from coder.access.tickets import Signer
from coder.clock import Clock
from coder.db import signing
from coder.db.store import Store
from coder.ids import Secret

log = structlog.get_logger(__name__)

_KEEP = timedelta(minutes=5)
"""Tickets and codes live for a minute; clocks of replicas differ by less than the rest."""
_LOOK_EVERY = 60.0


class Tunnels(Protocol):
    """The server's own node."""

    async def ensure(self, agent_id: UUID) -> object:
        """See to it that there is a tunnel to an agent. Raises CoderError."""


@dataclass(slots=True, kw_only=True)
class Apps:
    """The parts of one running server that are there for apps."""

    signer: Signer
    secret: Secret
    """What the edge proves itself with."""
    tunnels: Tunnels | None = None
    """Without it apps are known and cannot be reached."""

    def is_edge(self, presented: str) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(self.secret.reveal().encode(), presented.encode())


async def load(store: Store, clock: Clock) -> Apps:
    """Make the parts, with the keys that the database has."""
    return Apps(signer=Signer(*await _keys(store, clock)), secret=Secret(secrets.token_hex(32)))


async def renew(apps: Apps, store: Store, clock: Clock, told: Callable[[Mapping[str, bytes]], None]) -> None:
    """Take the database's keys over, for ever, and tell the edge when they have changed."""
    while True:
        await clock.sleep(_LOOK_EVERY)
        try:
            keys, current = await _keys(store, clock)
        except SQLAlchemyError as fault:
            log.warning("app_keys.unreadable", fault=str(fault))
            continue
        if keys != apps.signer.keys:
            told(keys)
            apps.signer.replace(keys, current)


async def _keys(store: Store, clock: Clock) -> tuple[dict[str, bytes], str]:
    async with store.write() as session:
        found = await signing.keys(session, signing.APPS, clock.now(), keep=_KEEP)
    return {str(key.sequence): key.secret for key in found}, str(found[0].sequence)
