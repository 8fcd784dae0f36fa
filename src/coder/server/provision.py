"""What starts and stops the agents of a workspace: one protocol, a small shell for each kind of template."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

from coder.access.templates import Settings
from coder.errors import CoderError
from coder.ids import Secret

T = TypeVar("T")

Say = Callable[[str], None]
"""Adds a line to the log of the build."""

STOP_PATIENCE = 15.0
"""Seconds an agent has for its goodbyes before it is killed."""


class ProvisionError(CoderError):
    """A workspace could not be started or stopped."""


@dataclass(frozen=True, slots=True)
class AgentJob:
    """An agent to start: its name, and the token it comes in with."""

    name: str
    token: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A workspace to act on. Names in it keep the rules for names, so they are safe as parts of paths and arguments."""

    workspace_id: UUID
    agents: tuple[str, ...]
    settings: Settings
    access_url: str
    state: Path
    """Directory of this workspace in the server's state; made when it is needed."""
    say: Say


class Provisioner(Protocol):
    """Acts on the agents of a workspace. Each call may be repeated: what is there already is taken away or left."""

    async def start(self, job: Job, agents: tuple[AgentJob, ...]) -> None:
        """Start these agents. Ends those that still run, but for the job's others. Raises ProvisionError."""

    async def stop(self, job: Job) -> None:
        """End the agents, so that none runs when it returns. Raises ProvisionError."""

    async def delete(self, job: Job) -> None:
        """End the agents, and remove what outlives a stop. Raises ProvisionError."""

    async def running(self, job: Job) -> frozenset[str]:
        """Return those of its agents that run. Raises ProvisionError when that cannot be found out."""

    async def last_words(self, job: Job, agent: str) -> str:
        """Return the last line an agent printed since its start; empty: none. Raises ProvisionError."""


def others(job: Job, agents: tuple[AgentJob, ...]) -> frozenset[str]:
    """Return the names of a job's agents that are none of these."""
    return frozenset(job.agents) - {agent.name for agent in agents}


def require_reachable(url: str, place: str, remedy: str) -> None:
    """Raise ProvisionError when this machine alone can reach a URL, and agents elsewhere are to use it."""
    host = urlsplit(url).hostname or ""
    if is_loopback(host):
        raise ProvisionError(f"agents in {place} cannot reach the server at {url}", remedy=remedy)


def is_loopback(host: str) -> bool:
    """Say whether a name or an address means the machine itself."""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def settings_of(job: Job, kind: type[T]) -> T:
    """Return the settings as those of a kind. Raises ProvisionError when they are another kind's: our own mistake."""
    if not isinstance(job.settings, kind):
        raise ProvisionError(f"these are no {kind.__name__}")
    return job.settings
