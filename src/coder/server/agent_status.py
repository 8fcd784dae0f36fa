"""What an agent's times say about it. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from coder.db.models import WorkspaceAgent

PING_EVERY = 15.0
"""Seconds between the server's pings on an agent's socket; each answer is noted."""
INACTIVE_AFTER = timedelta(seconds=30)
"""An agent that has not answered for two pings is disconnected."""


class Status(StrEnum):
    """Connection of an agent, as clients see it."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    TIMEOUT = "timeout"


_REASONS = {
    Status.TIMEOUT: "The agent takes too long to connect.",
    Status.DISCONNECTED: "The agent has lost its connection.",
    Status.CONNECTING: "The agent has not connected yet.",
}


@dataclass(frozen=True, slots=True)
class Health:
    """Whether an agent can be used, and if not, why."""

    healthy: bool
    reason: str = ""


def status(agent: WorkspaceAgent, now: datetime) -> Status:
    """Return an agent's status. The first condition that holds decides."""
    if agent.last_connected_at is None or agent.first_connected_at is None:
        limit = agent.connection_timeout_seconds
        late = limit > 0 and now - agent.created_at > timedelta(seconds=limit)
        return Status.TIMEOUT if late else Status.CONNECTING
    if agent.disconnected_at and agent.disconnected_at >= agent.last_connected_at:
        return Status.DISCONNECTED
    if now - agent.last_connected_at > INACTIVE_AFTER:
        return Status.DISCONNECTED
    return Status.CONNECTED


def health(agent: WorkspaceAgent, now: datetime) -> Health:
    """Return an agent's health, made of its connection and of what it says of its own start."""
    reason = _REASONS.get(status(agent, now), "")
    if not reason and agent.lifecycle_state in {"start_error", "shutting_down", "off"}:
        reason = f"The agent reports {agent.lifecycle_state.replace('_', ' ')}."
    return Health(not reason, reason)
