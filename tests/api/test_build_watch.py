"""Agents that have ended are started again, and never beside a build of their workspace."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from api.conftest import Server
from api.test_builds import Provisioned, build, deployment, made_of, offer, provisioned, settled, welcome
from coder.db import builds
from coder.server.build_watch import LAST_PAUSE, MOST_STARTS, STEADY, Restarts
from coder.server.deployment import Deployment
from coder.server.provision import AgentJob, Job, ProvisionError

__all__ = ["deployment", "provisioned"]
ENDED = "The agent main ended and is started again. It last said: out of memory"
TWO = [{"name": "main"}, {"name": "db"}]


def test_starts_in_a_row_come_ever_later_and_end():
    restarts = Restarts(0.0)
    pauses = [restarts.pause(0.0) for _ in range(MOST_STARTS)]
    assert pauses == [0, 5, 10, 20, 40, 80, 160, 300]
    assert pauses[-1] == LAST_PAUSE
    assert restarts.pause(0.0) is None
    restarts.started(1000.0)
    assert restarts.pause(1000.0 + STEADY - 1) is None
    assert restarts.pause(1000.0 + STEADY) == 0


async def running(server: Server, **more: Any) -> dict[str, Any]:
    workspace = await made_of(server, (await offer(server, **more))["id"])
    return await settled(server, workspace["id"])


async def printed(server: Server, workspace: dict[str, Any]) -> list[str]:
    lines = await server.get(f"/workspacebuilds/{workspace['latest_build']['id']}/logs")
    return [line["output"] for line in lines if line["stage"] == "Restart"]


async def test_an_agent_that_ends_is_started_again_alone(server: Server, provisioned: Provisioned):
    workspace = await running(server, agents=TWO)
    before = dict(provisioned.tokens)
    provisioned.alive.discard((UUID(workspace["id"]), "main"))
    await server.clock.advance(2)
    await server.deployment.runner.wait()
    assert provisioned.calls == ["start", "start"]
    assert provisioned.tokens["main"] != before["main"]
    assert provisioned.tokens["db"] == before["db"], "the other one runs on"
    assert await welcome(server, provisioned.tokens["main"])
    assert await printed(server, workspace) == [ENDED, "pulling the image"]


async def test_agents_that_are_connected_are_left_alone(server: Server, provisioned: Provisioned):
    workspace = await running(server)
    (agent,) = workspace["latest_build"]["resources"][0]["agents"]
    server.deployment.presence[UUID(agent["id"])] = object()
    await server.clock.advance(2)
    provisioned.alive.clear()
    await server.clock.advance(600)
    assert provisioned.calls == ["start"]
    del server.deployment.presence[UUID(agent["id"])]
    server.deployment.changes.announce(UUID(workspace["id"]))
    await server.clock.advance(2)
    await server.deployment.runner.wait()
    assert provisioned.calls == ["start", "start"]


async def test_one_that_ends_again_and_again_is_given_up_with_a_word(server: Server, provisioned: Provisioned):
    workspace = await running(server)
    provisioned.fault = ProvisionError("no such program")
    provisioned.alive.clear()
    for _ in range(60):
        await server.clock.advance(60)
        await server.deployment.runner.wait()
    assert provisioned.calls == ["start"] * (1 + MOST_STARTS)
    said = await printed(server, workspace)
    assert said[:2] == [ENDED, "pulling the image"]
    assert said[2] == "That failed: no such program."
    assert said[-1] == "The agent main ended 8 times in a row: left alone until a restart."


async def test_a_host_that_is_away_costs_no_start(server: Server, provisioned: Provisioned, monkeypatch):
    await running(server)

    async def away(job: Job) -> frozenset[str]:
        raise ProvisionError("no route to host")

    monkeypatch.setattr(provisioned, "running", away)
    await server.clock.advance(3600)
    monkeypatch.undo()
    provisioned.alive.clear()
    await server.clock.advance(60)
    await server.deployment.runner.wait()
    assert provisioned.calls == ["start", "start"]


@pytest.mark.parametrize("transition", ["stop", "delete"])
async def test_a_build_waits_for_the_end_of_a_start_it_interrupts(
    server: Server, provisioned: Provisioned, transition: str, monkeypatch
):
    """The server is started anew, finds a workspace's agents gone, and its user stops it at that moment."""
    workspace = await running(server)
    await server.deployment.runner.stop()
    provisioned.alive.clear()
    ending, begun, order = asyncio.Event(), asyncio.Event(), list[str]()

    async def slow(job: Job, agents: tuple[AgentJob, ...]) -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            order.append("canceled")
            await ending.wait()
            order.append("start is over")

    async def end(job: Job) -> None:
        order.append(transition)

    monkeypatch.setattr(provisioned, "start", slow)
    monkeypatch.setattr(provisioned, transition, end)
    await server.deployment.runner.resume(server.deployment)
    await begun.wait()
    assert (await build(server, workspace["id"], transition)).status_code == 201
    await server.clock.advance(0)
    assert order == ["canceled"]
    ending.set()
    await server.deployment.runner.wait()
    assert order == ["canceled", "start is over", transition]
    await server.clock.advance(600)
    assert order[-1] == transition, "nothing is started again"


async def test_a_stop_that_comes_before_the_look_is_what_counts(
    server: Server, provisioned: Provisioned, deployment: Deployment, monkeypatch
):
    """What the server found running when it began may be stopped before it gets there."""
    workspace = await running(server)
    async with deployment.store.read() as session:
        found = await builds.started(session)

    async def as_found(_session: object) -> Any:
        return found

    monkeypatch.setattr(builds, "started", as_found)
    assert (await build(server, workspace["id"], "stop")).status_code == 201
    await deployment.runner.wait()
    await deployment.runner.resume(deployment)
    await deployment.runner.wait()
    assert found == [(UUID(workspace["id"]), UUID(workspace["latest_build"]["id"]))]
    assert provisioned.calls == ["start", "stop"]


async def test_a_workspace_that_is_forgotten_is_not_watched(server: Server, provisioned: Provisioned):
    workspace = await running(server)
    assert (await build(server, workspace["id"], "delete", orphan=True)).status_code == 201
    provisioned.alive.clear()
    await server.clock.advance(600)
    assert provisioned.calls == ["start"]
