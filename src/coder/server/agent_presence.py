"""Which connection is an agent's: keeps the times of it, and refuses a second agent that has the same token."""

import structlog

from coder.db import agents
from coder.rpc.server import Pinger
from coder.server.deployment import Deployment
from coder.server.problems import Problem

INSTANCE = "Coder-Agent-Instance"
"""Header with which an agent's process says which one it is; released agents send none."""

PATIENCE = 3.0
"""Seconds the agent that is there has to show that it still is, when another comes."""

log = structlog.get_logger(__name__)


class Monitor:
    """Keeps the times of one agent's connection. The newest connection of an agent owns its record."""

    def __init__(self, deployment: Deployment, identity: agents.Identity, instance: str, address: str) -> None:
        self._deployment = deployment
        self._agent_id = identity.agent.id
        self._workspace_id = identity.workspace.id
        self._workspace_name = identity.workspace.name
        self.instance = instance
        self.address = address
        self.pinger = Pinger()
        """Asks the agent for a sign of life."""

    async def require_free(self) -> None:
        """Take the agent's place. Raises Problem (409) when another process is this agent, and answers.

        A process that says it is the same one takes its place back at once: its old connection is dead, and we do not
        know yet. Those that say nothing are told apart by whether the old connection still answers.
        """
        silent = None
        presence = self._deployment.presence
        while isinstance(other := presence.get(self._agent_id), Monitor) and other is not silent:
            if self.instance and other.instance == self.instance:
                break
            if await other.pinger.alive(PATIENCE):
                raise self._refusal(other)
            silent = other
        presence[self._agent_id] = self  # with no wait in between: of several that come at once one gets the place

    def _refusal(self, other: "Monitor") -> Problem:
        log.warning(
            "agent.refused_second",
            workspace=self._workspace_name,
            reason="another process is connected with the same token",
            connected_from=other.address,
            refused=self.address,
        )
        return Problem(
            409,
            "Another agent is connected with this token.",
            detail=f"It is at {other.address or 'an unknown address'}, and answers.",
        )

    async def started(self) -> None:
        """Note the connection's start."""
        async with self._deployment.store.write() as session:
            await agents.connected(session, self._agent_id, self._deployment.clock.now())
        self._deployment.changes.announce(self._workspace_id)
        log.info("agent.connected")

    async def answered(self, _round_trip: float) -> None:
        """Note that the agent answered a ping. Takes the record back if a newer connection has come and gone."""
        presence = self._deployment.presence
        taken_back = self._agent_id not in presence
        if presence.setdefault(self._agent_id, self) is not self:
            return
        async with self._deployment.store.write() as session:
            await agents.alive(session, self._agent_id, self._deployment.clock.now())
        if taken_back:
            self._deployment.changes.announce(self._workspace_id)

    async def ended(self, reason: str) -> None:
        """Note the connection's end, unless the agent has come back on another one meanwhile."""
        if self._deployment.presence.get(self._agent_id) is not self:
            return
        del self._deployment.presence[self._agent_id]
        async with self._deployment.store.write() as session:
            await agents.disconnected(session, self._agent_id, self._deployment.clock.now(), reason)
        self._deployment.changes.announce(self._workspace_id)
        log.info("agent.disconnected", reason=reason)
