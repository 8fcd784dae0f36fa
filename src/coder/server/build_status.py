"""What a build's transition and state say about its workspace. Pure."""

from coder.db.builds import PENDING, RUNNING, SUCCEEDED
from coder.db.models import Workspace, WorkspaceBuild

_UNDER_WAY = {"start": "starting", "stop": "stopping", "delete": "deleting"}
_DONE = {"start": "running", "stop": "stopped", "delete": "deleted"}
_RESOURCE = {"machine": "machine", "process": "process", "docker": "docker_container", "ssh": "ssh_host"}


def status(build: WorkspaceBuild) -> str:
    """Return the state that clients show of a workspace with this latest build."""
    return name(build.transition, build.status)


def name(transition: str, outcome: str) -> str:
    """Return the state that clients show of a workspace whose latest build is of this kind and has got that far."""
    if outcome == PENDING:
        return PENDING
    if outcome == RUNNING:
        return _UNDER_WAY.get(transition, RUNNING)
    if outcome == SUCCEEDED:
        return _DONE.get(transition, RUNNING)
    return outcome


def resource_type(workspace: Workspace) -> str:
    """Return what the agents of a workspace run on."""
    return _RESOURCE.get(workspace.template.kind, workspace.template.kind)
