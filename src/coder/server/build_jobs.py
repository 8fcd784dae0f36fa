"""Makes of a build's rows what its provisioner is told."""

from collections.abc import Mapping
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from coder.access import templates
from coder.db import templates as stored
from coder.db import workspaces
from coder.db.models import TemplateVersion, Workspace, WorkspaceBuild
from coder.ids import Secret
from coder.server.deployment import Deployment
from coder.server.provision import AgentJob, Job, Say


async def read(session: AsyncSession, build_id: UUID) -> tuple[Workspace, WorkspaceBuild, TemplateVersion]:
    """Return a build with its workspace and the version of the template it follows."""
    row = await workspaces.get_build(session, build_id)
    assert row is not None
    build = next(each for each in row.builds if each.id == build_id)
    version = await stored.version(session, build.template_version_id)
    assert version is not None
    return row, build, version


def job_of(deployment: Deployment, row: Workspace, version: TemplateVersion, say: Say) -> Job:
    """Return what a provisioner acts on. Raises ValidationError when the template's settings cannot be read."""
    return Job(
        workspace_id=row.id,
        agents=tuple(spec.name for spec in templates.agents_of(version.agents)),
        settings=templates.settings_of(row.template.kind, version.settings),
        access_url=deployment.access_url,
        state=deployment.settings.state_path / "workspaces" / str(row.id),
        say=say,
    )


def agent_jobs(made: Mapping[str, Secret]) -> tuple[AgentJob, ...]:
    """Return the agents to start, of their tokens by name."""
    return tuple(AgentJob(name, token) for name, token in made.items())
