"""Stops workspaces that nobody uses, and starts those whose time has come."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
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
NOTE_EVERY = 60.0
"""Seconds between two notes of a use that goes on."""


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
    except Exception:  # one workspace that cannot be built is no reason to leave the others
        log.exception("workspace.not_by_itself", workspace=row.name, transition=transition)


async def used(deployment: Deployment, workspace_id: UUID) -> None:
    """Note that a workspace is in use now."""
    async with deployment.store.write() as session:
        moved = await builds.used(session, workspace_id, deployment.clock.now())
    if moved:
        deployment.changes.announce(workspace_id)


@contextmanager
def in_use(deployment: Deployment, workspace_id: UUID) -> Iterator[None]:
    """Note, again and again, that a workspace is in use while the block runs."""
    noting = asyncio.create_task(_note(deployment, workspace_id))
    try:
        yield
    finally:
        noting.cancel()


async def _note(deployment: Deployment, workspace_id: UUID) -> None:
    while True:
        await deployment.clock.sleep(NOTE_EVERY)  # first, since the agent reports that it begins
        try:
            await used(deployment, workspace_id)
        except SQLAlchemyError as fault:
            log.warning("hours.unkept", fault=str(fault))
