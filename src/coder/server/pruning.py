"""Forgets what the logs have kept long enough."""

import structlog
from sqlalchemy.exc import SQLAlchemyError

from coder.db import logs
from coder.server.deployment import Deployment

log = structlog.get_logger(__name__)

PRUNE_EVERY = 3600.0
"""Seconds between looks at the logs."""


async def prune(deployment: Deployment) -> None:
    """Forget old entries now and every hour, for ever."""
    kept = deployment.settings.retention
    while True:
        try:
            async with deployment.store.write() as session:
                await logs.prune(
                    session,
                    deployment.clock.now(),
                    audit_for=kept.audit_logs,
                    connections_for=kept.connection_logs,
                )
        except SQLAlchemyError as fault:
            log.warning("logs.unpruned", fault=str(fault))
        await deployment.clock.sleep(PRUNE_EVERY)
