"""How much of everything there is."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from coder.db.builds import newest_number
from coder.db.models import User, Workspace, WorkspaceAgent, WorkspaceBuild
from coder.db.users import DELETED


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What lives now: what is deleted counts nowhere."""

    users: Mapping[str, int]
    """By status."""
    workspaces: Mapping[tuple[str, str], int]
    """By transition and status of the latest build."""
    agents: int


async def totals(session: AsyncSession) -> Totals:
    """Count, in three queries."""
    of_users = select(User.status, func.count()).where(User.status != DELETED).group_by(User.status)
    latest = (
        select(WorkspaceBuild)
        .join(Workspace, Workspace.id == WorkspaceBuild.workspace_id)
        .where(Workspace.deleted_at.is_(None), WorkspaceBuild.number == newest_number())
    )
    states = (WorkspaceBuild.transition, WorkspaceBuild.status)
    of_builds = latest.with_only_columns(*states, func.count()).group_by(*states)
    of_agents = latest.join(WorkspaceAgent, WorkspaceAgent.build_id == WorkspaceBuild.id)
    users = await session.execute(of_users)
    builds = await session.execute(of_builds)
    return Totals(
        users=dict(users.all()),
        workspaces={(transition, status): count for transition, status, count in builds},
        agents=(await session.scalars(of_agents.with_only_columns(func.count()))).one(),
    )
