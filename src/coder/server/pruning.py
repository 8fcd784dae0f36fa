"""Forgets what has been kept long enough: log entries, ended sessions and tokens, what agents and builds printed."""

from datetime import timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError

from coder.db import agent_logs, builds, keys, logs
from coder.server.deployment import Deployment

log = structlog.get_logger(__name__)

PRUNE_EVERY = 3600.0
"""Seconds between looks."""
_EXPIRED_KEPT = timedelta(days=7)
"""How long an ended token is still listed, so that its user sees why it is refused."""


async def prune(deployment: Deployment) -> None:
    """Forget it now and every hour, for ever."""
    while True:
        try:
            await forget(deployment)
        except SQLAlchemyError as fault:
            log.warning("logs.unpruned", fault=str(fault))
        await deployment.clock.sleep(PRUNE_EVERY)


async def forget(deployment: Deployment) -> None:
    """Forget what is too old now. Raises SQLAlchemyError."""
    kept, now = deployment.settings.retention, deployment.clock.now()
    async with deployment.store.write() as session:
        await keys.forget_expired(session, now - _EXPIRED_KEPT)
        await logs.prune(session, now, audit_for=kept.audit_logs, connections_for=kept.connection_logs)
        await agent_logs.forget_replaced(session)
        await builds.forget_logs(session, now, kept.build_logs)
