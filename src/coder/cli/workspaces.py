"""Workspaces as the server describes them, and finding the agent a command means."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coder.cli import errors, times
from coder.cli.errors import ApiError

if TYPE_CHECKING:
    from coder.cli.api import Api

ME = "me"

_ARGUMENT = re.compile(r"(?:([^/.]+)/)?([^/.@]+)(?:\.([^/.]+))?")

_STATUS = {
    "pending": "Queued", "starting": "Starting", "running": "Started", "stopping": "Stopping", "stopped": "Stopped",
    "failed": "Failed", "canceling": "Canceling", "canceled": "Canceled", "deleting": "Deleting", "deleted": "Deleted",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """What `[owner/]workspace[.agent]` names."""

    owner: str
    workspace: str
    agent: str | None

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Read the argument. Raises CoderError."""
        found = _ARGUMENT.fullmatch(text)
        if found is None:
            raise errors.bad_name(text)
        return cls(found[1] or ME, found[2], found[3])

    @classmethod
    def whole(cls, text: str) -> "Target":
        """Read the argument of what is done to a workspace with all its agents. Raises CoderError."""
        target = cls.parse(text)
        if target.agent is not None:
            raise errors.whole_workspace(target.name, target.agent)
        return target

    @property
    def name(self) -> str:
        """The workspace as its user would type it."""
        return self.workspace if self.owner == ME else f"{self.owner}/{self.workspace}"


def find(api: "Api", target: Target) -> Any:
    """Return the workspace. Raises NotFound, which on this API also stands for "not yours"."""
    try:
        return api.workspace(target.owner, target.workspace)
    except ApiError as error:
        if error.code == 404:
            raise errors.workspace_unknown(target.name) from error
        raise


def require(api: "Api", owner: str | None, name: str) -> None:
    """Raise NotFound when no workspace that we may see has that name."""
    query = f'name:"{name}"' + (f' owner:"{owner}"' if owner else "")
    if not any(one["name"] == name for one in api.workspaces(query)):
        raise errors.no_such_workspace(f"{owner}/{name}" if owner else name)


def agents(workspace: Any) -> list[Any]:
    """Return the agents of the workspace's latest build, in the server's order."""
    resources = workspace["latest_build"].get("resources") or []
    return [agent for resource in resources for agent in resource.get("agents") or []]


def named(workspace: Any, name: str) -> Any:
    """Return the agent of that name. Raises NotFound, naming those there are."""
    found = agents(workspace)
    for agent in found:
        if agent["name"] == name:
            return agent
    raise errors.agent_unknown(name, [agent["name"] for agent in found])


def choose_agent(workspace: Any, target: Target) -> Any:
    """Return the agent a connection goes to: the one named, or the only one.

    Raises Conflict or NotFound, naming the agents there are.
    """
    if workspace["latest_build"]["transition"] != "start":
        raise errors.not_started(target.name)
    candidates = agents(workspace)
    names = [agent["name"] for agent in candidates]
    if not candidates:
        raise errors.no_agents(target.name)
    if target.agent is not None:
        return named(workspace, target.agent)
    if len(candidates) > 1:
        raise errors.ambiguous_agent(target.name, names)
    return candidates[0]


def connection_text(agent: Any) -> str:
    """Say whether an agent is connected, and since when it is not."""
    status = str(agent.get("status") or "")
    if status in {"disconnected", "timeout"} and (since := times.ago(agent.get("disconnected_at"))):
        return f"{status} {since}"
    return status


def status_text(workspace: Any) -> str:
    """Say a workspace's state as the table does."""
    return _STATUS.get(workspace["latest_build"].get("status", ""), "Unknown")
