"""Stops workspaces that nobody uses, and starts those whose time has come."""

from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from coder.access.schedule import Schedule
from coder.db import builds, workspaces
from coder.db.builds import START, STOP
from coder.errors import CoderError
from coder.server import builds as orders
from coder.server.deployment import Deployment
from coder.server.problems import Problem

log = structlog.get_logger(__name__)

LOOK_EVERY = 30.0
"""Seconds between looks."""


async def keep(deployment: Deployment) -> None:
    """Look now and twice a minute, for ever."""
    while True:
        try:
            await look(deployment)
        except SQLAlchemyError as fault:
            log.warning("hours.unkept", fault=str(fault))
        await deployment.clock.sleep(LOOK_EVERY)


async def look(deployment: Deployment) -> None:
    """Stop and start what is due now. Raises SQLAlchemyError."""
    now = deployment.clock.now()
    async with deployment.store.read() as session:
        idle = await builds.overdue(session, now)
        waiting = await builds.stopped_with_schedule(session)
    for workspace_id in idle:
        await _order(deployment, workspace_id, STOP, "autostop")
    for workspace_id, line, stopped in waiting:
        try:
            due = Schedule.parse(line).after(stopped)
        except CoderError:  # a zone that this machine does not know any more
            continue
        if due <= now:
            await _order(deployment, workspace_id, START, "autostart")


async def _order(deployment: Deployment, workspace_id: UUID, transition: str, reason: str) -> None:
    async with deployment.store.read() as session:
        row = await workspaces.get(session, workspace_id)
    if row is None:
        return
    try:
        await orders.request(deployment, row.id, orders.Order(transition=transition, reason=reason), row.owner_id)
        log.info("workspace.by_itself", workspace=row.name, transition=transition)
    except Problem as refusal:
        log.info("workspace.not_by_itself", workspace=row.name, transition=transition, why=refusal.message)


async def used(deployment: Deployment, workspace_id: UUID) -> None:
    """Note that a workspace is in use now."""
    async with deployment.store.write() as session:
        moved = await builds.used(session, workspace_id, deployment.clock.now())
    if moved:
        deployment.changes.announce(workspace_id)
