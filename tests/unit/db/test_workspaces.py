"""Workspaces as they grow old: what is loaded of their builds, and what is kept of their agents."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from coder.access.templates import AgentSpec
from coder.db import agent_logs, builds, site, templates, users, workspaces
from coder.db.models import Workspace
from coder.db.models_builds import BuildLog
from coder.db.store import SqliteStore

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[AsyncSession]:
    store = await SqliteStore.open(tmp_path)
    async with store.write() as opened:
        yield opened
    await store.close()


async def made(session: AsyncSession, *transitions: str) -> tuple[Workspace, list[UUID]]:
    """Make a workspace; return it with its builds' ids."""
    here = await site.ensure(session, NOW)
    who = {"username": "alice", "email": "alice@example.com", "name": "", "password_hash": "", "roles": [], "now": NOW}
    user = await users.create(session, organization_id=here.organization.id, **who)
    offer = await templates.by_name(session, "machine")
    assert offer is not None
    row = await workspaces.create(session, owner=user, template_id=offer.template.id, name="dev", now=NOW)
    whose = {"version_id": offer.version.id, "initiator_id": user.id, "now": NOW}
    return row, [(await builds.add(session, row, transition=each, **whose)).id for each in transitions]


def numbers(row: Workspace | None) -> list[int]:
    return [build.number for build in row.builds] if row else []


async def test_of_many_builds_those_since_the_last_start_are_loaded(session: AsyncSession):
    row, ids = await made(session, "start", "stop", "start", "stop", "stop")
    session.expunge_all()
    assert numbers(await workspaces.get(session, row.id)) == [3, 4, 5]
    assert numbers(await workspaces.get_build(session, ids[0])) == [1, 3, 4, 5]
    assert numbers(await workspaces.get(session, row.id, history=True)) == [1, 2, 3, 4, 5]


async def test_what_agents_printed_goes_with_their_successors_and_their_workspace(session: AsyncSession):
    row, ids = await made(session, "start", "start", "stop")
    line = {"source_id": agent_logs.EXTERNAL, "level": "info", "output": "hello", "created_at": NOW}
    agents = []
    for number, build in enumerate(ids[:2]):
        columns = AgentSpec(name="main").columns() | {"display_order": 0}
        agents.append(await builds.add_agent(session, build, bytes([number]), NOW, columns))
        await agent_logs.add(session, agents[-1], [line], NOW)
    await agent_logs.forget_replaced(session)
    assert [len(await agent_logs.between(session, each)) for each in agents] == [0, 1]
    await workspaces.delete(session, row.id, NOW)
    await agent_logs.forget_replaced(session)
    assert not await agent_logs.between(session, agents[1])


async def test_what_builds_printed_is_kept_for_a_while_and_that_of_the_latest_always(session: AsyncSession):
    row, ids = await made(session, "start", "stop", "start")
    long_ago, lately = NOW - timedelta(days=100), NOW - timedelta(days=1)
    for each in ids:
        await builds.change(session, each, created_at=long_ago)
        for when in (long_ago, lately):
            line = BuildLog(
                build_id=each, created_at=when, source="provisioner", level="info", stage="", output="hello"
            )
            await builds.add_logs(session, [line])

    async def left() -> list[int]:
        return [len(await builds.logs_after(session, each, 0)) for each in ids]

    await builds.forget_logs(session, NOW, timedelta(0))
    assert await left() == [2, 2, 2]
    await builds.forget_logs(session, NOW, timedelta(days=90))
    assert await left() == [1, 1, 2]
    await builds.forget_logs(session, NOW + timedelta(days=90), timedelta(days=90))
    assert await left() == [0, 0, 2]
    await workspaces.delete(session, row.id, NOW)
    await builds.forget_logs(session, NOW + timedelta(days=90), timedelta(days=90))
    assert await left() == [0, 0, 0]
