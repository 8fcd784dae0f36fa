"""What a build's transition and state say about its workspace. Pure."""

from coder.db.builds import PENDING, RUNNING, SUCCEEDED
from coder.db.models import Workspace, WorkspaceBuild

_UNDER_WAY = {"start": "starting", "stop": "stopping", "delete": "deleting"}
_DONE = {"start": "running", "stop": "stopped", "delete": "deleted"}
_RESOURCE = {"machine": "machine", "process": "process", "docker": "docker_container", "ssh": "ssh_host"}


def status(build: WorkspaceBuild) -> str:
    """Return the state that clients show of a workspace with this latest build."""
    if build.status == PENDING:
        return PENDING
    if build.status == RUNNING:
        return _UNDER_WAY.get(build.transition, RUNNING)
    if build.status == SUCCEEDED:
        return _DONE.get(build.transition, RUNNING)
    return build.status


def resource_type(workspace: Workspace) -> str:
    """Return what the agents of a workspace run on."""
    return _RESOURCE.get(workspace.template.kind, workspace.template.kind)
