"""Builds on their way: which wait, what becomes of them, what they print; and when workspaces stop and start."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from coder.access.templates import Kind
from coder.db.models import Template, Workspace, WorkspaceAgent, WorkspaceBuild
from coder.db.models_builds import BuildLog

START, STOP, DELETE = "start", "stop", "delete"
PENDING, RUNNING, SUCCEEDED, FAILED = "pending", "running", "succeeded", "failed"
CANCELING, CANCELED = "canceling", "canceled"
ACTIVE = frozenset({PENDING, RUNNING, CANCELING})
"""States of a build that is not over."""
LOGS = "build logs"
"""What changes when a build prints or ends; a subject of announcements together with the build's id."""
MAX_LOG_LINES = 10_000
"""Lines that are kept of one build; what comes later is dropped."""
_SLACK = timedelta(minutes=1)
"""A deadline that would move by less stays where it is, so that busy workspaces do not write all the time."""


async def add(
    session: AsyncSession,
    workspace: Workspace,
    *,
    version_id: UUID,
    initiator_id: UUID,
    transition: str,
    now: datetime,
    reason: str = "initiator",
    parameters: dict[str, Any] | None = None,
) -> WorkspaceBuild:
    """Add the next build of a workspace, which waits for its turn. Raises IntegrityError when another was faster."""
    last = await session.scalar(
        select(func.max(WorkspaceBuild.number)).where(WorkspaceBuild.workspace_id == workspace.id)
    )
    build = WorkspaceBuild(
        id=uuid4(),
        workspace_id=workspace.id,
        template_version_id=version_id,
        initiator_id=initiator_id,
        number=(last or 0) + 1,
        transition=transition,
        status=PENDING,
        reason=reason,
        parameters=parameters or {},
        job_id=uuid4(),
        resource_id=uuid4(),
        created_at=now,
    )
    session.add(build)
    await session.flush()
    return build


async def change(session: AsyncSession, build_id: UUID, **values: Any) -> None:
    """Set columns of a build."""
    await session.execute(update(WorkspaceBuild).where(WorkspaceBuild.id == build_id).values(**values))


async def status(session: AsyncSession, build_id: UUID) -> str:
    """Return the state of a build."""
    return await session.scalar(select(WorkspaceBuild.status).where(WorkspaceBuild.id == build_id)) or FAILED


async def unfinished(session: AsyncSession) -> Sequence[WorkspaceBuild]:
    """Return all builds that are not over, the oldest first."""
    query = select(WorkspaceBuild).where(WorkspaceBuild.status.in_(ACTIVE)).order_by(WorkspaceBuild.created_at)
    return (await session.scalars(query)).all()


def newest_number() -> Any:
    """Return the number of the latest build of the workspace a statement selects, as a part of that statement."""
    return (
        select(func.max(WorkspaceBuild.number))
        .where(WorkspaceBuild.workspace_id == Workspace.id)
        .correlate(Workspace)
        .scalar_subquery()
    )


def _latest() -> Any:
    """Select the latest build of each living workspace."""
    return (
        select(Workspace.id)
        .join(WorkspaceBuild, WorkspaceBuild.workspace_id == Workspace.id)
        .where(
            Workspace.deleted_at.is_(None), WorkspaceBuild.number == newest_number(), WorkspaceBuild.status == SUCCEEDED
        )
    )


async def started(session: AsyncSession) -> Sequence[tuple[UUID, UUID]]:
    """Return the workspaces whose agents the server starts and that are meant to run now, each with its build."""
    provisioned = (Template.id == Workspace.template_id) & (Template.kind != Kind.MACHINE)
    query = _latest().join(Template, provisioned).where(WorkspaceBuild.transition == START)
    rows = await session.execute(query.with_only_columns(Workspace.id, WorkspaceBuild.id))
    return [(row[0], row[1]) for row in rows]


async def overdue(session: AsyncSession, now: datetime) -> Sequence[UUID]:
    """Return the running workspaces whose deadline has passed."""
    due = _latest().where(WorkspaceBuild.transition == START, WorkspaceBuild.deadline <= now)
    return (await session.scalars(due)).all()


async def stopped_with_schedule(session: AsyncSession) -> Sequence[tuple[UUID, str, datetime]]:
    """Return the stopped workspaces that start by a schedule: id, schedule, and when they were stopped."""
    query = _latest().where(WorkspaceBuild.transition == STOP, Workspace.autostart_schedule.is_not(None))
    rows = await session.execute(
        query.with_only_columns(Workspace.id, Workspace.autostart_schedule, WorkspaceBuild.ended_at)
    )
    return [(row[0], row[1], row[2]) for row in rows]


async def used(session: AsyncSession, workspace_id: UUID, now: datetime) -> bool:
    """Note that a workspace is in use: it is stopped that much later. Returns whether its deadline moved."""
    ttl = await session.scalar(select(Workspace.ttl_ms).where(Workspace.id == workspace_id))
    await session.execute(update(Workspace).where(Workspace.id == workspace_id).values(last_used_at=now))
    if not ttl:
        return False
    wanted = now + timedelta(milliseconds=ttl)
    running = [
        WorkspaceBuild.workspace_id == workspace_id,
        WorkspaceBuild.transition == START,
        WorkspaceBuild.deadline < wanted - _SLACK,
    ]
    moved = await session.execute(update(WorkspaceBuild).where(*running).values(deadline=wanted))
    return bool(moved.rowcount)  # type: ignore[attr-defined]  # an UPDATE's result has it


async def move_agents(session: AsyncSession, workspace_id: UUID, build_id: UUID, now: datetime) -> int:
    """Give a workspace's agents to its new build, as they are: their machine is not ours. Returns how many."""
    last = (
        select(func.max(WorkspaceBuild.number))
        .join(WorkspaceAgent, WorkspaceAgent.build_id == WorkspaceBuild.id)
        .where(WorkspaceBuild.workspace_id == workspace_id)
        .scalar_subquery()
    )
    source = select(WorkspaceBuild.id).where(WorkspaceBuild.workspace_id == workspace_id, WorkspaceBuild.number == last)
    query = update(WorkspaceAgent).where(WorkspaceAgent.build_id == source.scalar_subquery())
    moved = await session.execute(
        query.values(build_id=build_id, updated_at=now).execution_options(synchronize_session=False)
    )
    return int(moved.rowcount)  # type: ignore[attr-defined]  # an UPDATE's result has it


async def add_agent(
    session: AsyncSession, build_id: UUID, token_hash: bytes, now: datetime, columns: dict[str, Any]
) -> UUID:
    """Add an agent that has not connected yet. `columns` are those that its template decides on."""
    agent = WorkspaceAgent(
        id=uuid4(),
        build_id=build_id,
        token_hash=token_hash,
        created_at=now,
        updated_at=now,
        lifecycle_state="created",
        version="",
        api_version="",
        expanded_directory="",
        subsystems="",
        logs_length=0,
        logs_overflowed=False,
        **columns,
    )
    session.add(agent)
    await session.flush()
    return agent.id


async def agents_of(session: AsyncSession, build_id: UUID) -> Sequence[WorkspaceAgent]:
    """Return the agents of a build, in order."""
    query = select(WorkspaceAgent).where(WorkspaceAgent.build_id == build_id)
    return (await session.scalars(query.order_by(WorkspaceAgent.display_order, WorkspaceAgent.name))).all()


async def add_logs(session: AsyncSession, lines: Sequence[BuildLog]) -> None:
    """Keep lines of one build, as far as there is room."""
    if not lines:
        return
    query = select(func.count()).select_from(BuildLog).where(BuildLog.build_id == lines[0].build_id)
    room = MAX_LOG_LINES - (await session.scalar(query) or 0)
    session.add_all(lines[: max(0, room)])
    await session.flush()


async def logs_after(session: AsyncSession, build_id: UUID, after: int) -> Sequence[BuildLog]:
    """Return a build's lines after the one of that number, in order."""
    query = select(BuildLog).where(BuildLog.build_id == build_id, BuildLog.id > after).order_by(BuildLog.id)
    return (await session.scalars(query)).all()


async def forget_logs(session: AsyncSession, now: datetime, kept_for: timedelta) -> None:
    """Forget what builds printed that long ago, but for the latest of each living workspace; 0 keeps everything."""
    if not kept_for:
        return
    before = now - kept_for
    past = or_(Workspace.deleted_at.is_not(None), WorkspaceBuild.number < newest_number())
    old = select(WorkspaceBuild.id).join(Workspace).where(WorkspaceBuild.created_at < before, past)
    forgotten = delete(BuildLog).where(BuildLog.build_id.in_(old), BuildLog.created_at < before)
    await session.execute(forgotten.execution_options(synchronize_session=False))
