"""A user's workspaces and agents as the Tailnet service tells them: all of them first, then what changed. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from coder.db.models import Workspace
from coder.wire.proto import tailnet_pb2 as pb


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a client has been told."""

    workspaces: dict[UUID, str] = field(default_factory=dict)
    """Name by id. Those that are listed run: their machines are their users' own."""
    agents: dict[UUID, tuple[str, UUID]] = field(default_factory=dict)
    """Name and workspace by id."""


def snapshot(rows: Iterable[Workspace]) -> Snapshot:
    """Take the living workspaces of one owner."""
    seen = Snapshot()
    for row in rows:
        seen.workspaces[row.id] = row.name
        seen.agents.update({agent.id: (agent.name, row.id) for agent in row.latest_build.agents})
    return seen


def difference(before: Snapshot, after: Snapshot) -> pb.WorkspaceUpdate:
    """Return the update that leads from one to the other. An agent that changed is deleted and made anew."""
    running, deleted = pb.Workspace.RUNNING, pb.Workspace.DELETED
    return pb.WorkspaceUpdate(
        upserted_workspaces=[
            pb.Workspace(id=number.bytes, name=name, status=running)
            for number, name in after.workspaces.items()
            if before.workspaces.get(number) != name
        ],
        upserted_agents=_agents(after, before),
        deleted_workspaces=[
            pb.Workspace(id=number.bytes, name=name, status=deleted)
            for number, name in before.workspaces.items()
            if number not in after.workspaces
        ],
        deleted_agents=_agents(before, after),
    )


def _agents(these: Snapshot, others: Snapshot) -> list[pb.Agent]:
    return [
        pb.Agent(id=number.bytes, name=name, workspace_id=workspace.bytes)
        for number, (name, workspace) in these.agents.items()
        if others.agents.get(number) != (name, workspace)
    ]
