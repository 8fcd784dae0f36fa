"""Templates, and the builds of workspaces made of them; what is provisioned is played by a fake."""

import asyncio
import json
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from api.conftest import TOKEN_HEADER, Server
from coder.access.templates import Kind
from coder.db import builds, workspaces
from coder.server import keeping_hours
from coder.server.build_runner import BuildRunner
from coder.server.deployment import Deployment
from coder.server.provision import AgentJob, Job, ProvisionError

TEMPLATES = "/organizations/default/templates"
DOCKER = {"name": "box", "kind": "docker", "settings": {"image": "ubuntu:24.04"}}


@dataclass
class Provisioned:
    """Starts nothing, and remembers what it was asked to."""

    calls: list[str] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)
    fault: ProvisionError | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    alive: set[tuple[UUID, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.gate.set()

    async def start(self, job: Job, agents: tuple[AgentJob, ...]) -> None:
        self.calls.append("start")
        self.asked.set()
        self.tokens |= {agent.name: agent.token.reveal() for agent in agents}
        await self.gate.wait()
        job.say("pulling the image")
        if self.fault:
            raise self.fault
        self.alive |= {(job.workspace_id, agent.name) for agent in agents}

    async def stop(self, job: Job) -> None:
        self.calls.append("stop")
        if self.fault:
            raise self.fault
        self.alive -= {(job.workspace_id, name) for name in job.agents}

    async def delete(self, job: Job) -> None:
        self.calls.append("delete")

    async def running(self, job: Job) -> frozenset[str]:
        return frozenset(name for name in job.agents if (job.workspace_id, name) in self.alive)

    async def last_words(self, job: Job, agent: str) -> str:
        return "out of memory"


@pytest.fixture
def provisioned() -> Provisioned:
    return Provisioned()


@pytest.fixture
async def deployment(deployment: Deployment, provisioned: Provisioned) -> Any:
    made = replace(deployment, runner=BuildRunner(dict.fromkeys((Kind.DOCKER, Kind.PROCESS), provisioned)))
    yield made
    await made.runner.stop()


async def offer(server: Server, **more: Any) -> dict[str, Any]:
    answer = await server.call("POST", TEMPLATES, json=DOCKER | more)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def made_of(server: Server, template: str, name: str = "dev", **more: Any) -> dict[str, Any]:
    answer = await server.call("POST", "/users/me/workspaces", json={"name": name, "template_id": template, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def build(server: Server, workspace: str, transition: str, **more: Any) -> Any:
    return await server.call("POST", f"/workspaces/{workspace}/builds", json={"transition": transition, **more})


async def welcome(server: Server, token: str) -> bool:
    """Whether an agent with this token is one of ours."""
    headers = {TOKEN_HEADER: token}
    answer = await server.call("PATCH", "/workspaceagents/me/logs", json={"logs": []}, headers=headers)
    assert answer.status_code in {200, 401}
    return answer.status_code == 200


async def settled(server: Server, workspace: str) -> dict[str, Any]:
    await server.deployment.runner.wait()
    return await server.get(f"/workspaces/{workspace}")


async def test_the_built_in_templates_are_always_there(server: Server):
    found = {each["name"]: each for each in await server.get("/templates")}
    assert {name: each["kind"] for name, each in found.items()} == {"machine": "machine", "process": "process"}
    for name, each in found.items():
        assert (await server.call("DELETE", f"/templates/{each['id']}")).status_code == 409
        renamed = await server.call("PATCH", f"/templates/{each['id']}", json={"name": f"{name}2"})
        assert renamed.status_code == 409


async def test_a_workspace_lives_through_its_builds(server: Server, provisioned: Provisioned):
    template = await offer(server, default_ttl_ms=3_600_000)
    workspace = await made_of(server, template["id"])
    assert workspace["latest_build"]["status"] == "pending"
    assert "agent_token" not in workspace
    running = await settled(server, workspace["id"])
    latest = running["latest_build"]
    assert (latest["status"], latest["job"]["status"], latest["resources"][0]["type"]) == (
        "running",
        "succeeded",
        "docker_container",
    )
    assert latest["deadline"] == "2030-01-01T01:00:00Z"
    first = provisioned.tokens["main"]
    assert await welcome(server, first)
    lines = await server.get(f"/workspacebuilds/{latest['id']}/logs")
    assert [(line["stage"], line["output"], line["log_source"]) for line in lines] == [
        ("Start", "pulling the image", "provisioner")
    ]
    assert await server.get(f"/workspacebuilds/{latest['id']}/logs?after={lines[-1]['id']}") == []

    assert (await build(server, workspace["id"], "stop")).status_code == 201
    stopped = await settled(server, workspace["id"])
    assert (stopped["latest_build"]["status"], stopped["latest_build"]["resources"]) == ("stopped", [])
    assert (await server.get("/workspaces", params={"q": "status:stopped"}))["count"] == 1
    assert not await welcome(server, first)

    assert (await build(server, workspace["id"], "start")).status_code == 201
    await settled(server, workspace["id"])
    assert provisioned.tokens["main"] != first
    assert (await build(server, workspace["id"], "delete")).status_code == 201
    await server.deployment.runner.wait()
    assert provisioned.calls == ["start", "stop", "start", "delete"]
    assert (await server.get("/workspaces"))["count"] == 0


async def test_a_failed_start_says_why_and_ends_what_it_started(server: Server, provisioned: Provisioned):
    provisioned.fault = ProvisionError("there is no such image", remedy="Pull it.")
    workspace = await made_of(server, (await offer(server))["id"])
    latest = (await settled(server, workspace["id"]))["latest_build"]
    assert (latest["status"], latest["job"]["error"]) == ("failed", "There is no such image. Pull it.")
    assert provisioned.calls == ["start", "stop"]
    lines = await server.get(f"/workspacebuilds/{latest['id']}/logs")
    assert lines[-1]["log_level"] == "error"
    provisioned.fault = None
    assert (await build(server, workspace["id"], "start")).status_code == 201
    assert (await settled(server, workspace["id"]))["latest_build"]["status"] == "running"


async def test_two_builds_at_once_are_refused_and_one_can_be_canceled(server: Server, provisioned: Provisioned):
    provisioned.gate.clear()
    workspace = await made_of(server, (await offer(server))["id"])
    number = workspace["latest_build"]["id"]
    await provisioned.asked.wait()
    assert (await build(server, workspace["id"], "stop")).status_code == 409
    assert (await server.get(f"/workspaces/{workspace['id']}"))["latest_build"]["status"] == "starting"
    assert (await server.call("PATCH", f"/workspacebuilds/{number}/cancel")).status_code == 200
    assert (await settled(server, workspace["id"]))["latest_build"]["status"] == "canceled"
    assert provisioned.calls == ["start", "stop"]
    assert (await server.call("PATCH", f"/workspacebuilds/{number}/cancel")).status_code == 400


async def test_the_next_server_ends_what_a_canceled_build_had_started(
    server: Server, provisioned: Provisioned, deployment: Deployment
):
    provisioned.gate.clear()
    workspace = await made_of(server, (await offer(server))["id"])
    await provisioned.asked.wait()
    await deployment.runner.stop()
    cancel = f"/workspacebuilds/{workspace['latest_build']['id']}/cancel"
    assert (await server.call("PATCH", cancel)).status_code == 200
    await deployment.runner.resume(deployment)
    assert (await settled(server, workspace["id"]))["latest_build"]["status"] == "canceled"
    assert provisioned.calls == ["start", "stop"]


async def test_a_log_is_followed_until_the_build_ends(live: Server, provisioned: Provisioned):
    provisioned.gate.clear()
    workspace = await made_of(live, (await offer(live))["id"])
    path = f"/workspacebuilds/{workspace['latest_build']['id']}/logs"
    async with await live.open(f"{path}?follow") as socket:
        provisioned.gate.set()
        lines = [json.loads(message) async for message in socket]
    assert [line["output"] for line in lines] == ["pulling the image"]


async def test_the_next_server_takes_builds_up_and_starts_what_has_ended(
    server: Server, provisioned: Provisioned, deployment: Deployment
):
    template = (await offer(server))["id"]
    up = await made_of(server, template, "up")
    await settled(server, up["id"])
    provisioned.gate.clear()
    provisioned.asked.clear()
    cut = await made_of(server, template, "cut")
    await provisioned.asked.wait()
    await deployment.runner.stop()
    assert (await server.get(f"/workspaces/{cut['id']}"))["latest_build"]["status"] == "starting"
    token = provisioned.tokens["main"]
    provisioned.gate.set()
    provisioned.alive.clear()
    await deployment.runner.resume(deployment)
    assert (await settled(server, cut["id"]))["latest_build"]["status"] == "running"
    assert provisioned.calls == ["start"] * 4
    assert provisioned.tokens["main"] != token
    await deployment.runner.stop()
    await deployment.runner.resume(deployment)
    await deployment.runner.wait()
    assert provisioned.calls == ["start"] * 4


async def test_a_machine_that_is_stopped_is_refused_until_it_is_started(server: Server):
    workspace = await server.workspace()
    stopped = (await build(server, workspace.id, "stop")).json()
    assert (stopped["status"], stopped["job"]["status"]) == ("stopped", "succeeded")
    assert not await welcome(server, workspace.agent_token)
    assert (await server.call("GET", f"/workspaceagents/{workspace.agent_id}/connection")).status_code == 404
    started = (await build(server, workspace.id, "start")).json()
    assert started["resources"][0]["agents"][0]["id"] == str(workspace.agent_id), "the same agent, with the same token"
    assert await welcome(server, workspace.agent_token)


async def test_idle_workspaces_stop_and_used_ones_do_not(server: Server):
    idle, used = await server.workspace("idle"), await server.workspace("used")
    for each in (idle, used):
        assert (await server.call("PUT", f"/workspaces/{each.id}/ttl", json={"ttl_ms": 3_600_000})).status_code == 204
    await server.clock.advance(3000)
    assert (await server.call("POST", f"/workspaces/{used.id}/usage")).status_code == 204
    await server.clock.advance(600)
    await keeping_hours.look(server.deployment)
    states = {each["name"]: each["latest_build"] for each in (await server.get("/workspaces"))["workspaces"]}
    assert {name: (build["status"], build["reason"]) for name, build in states.items()} == {
        "idle": ("stopped", "autostop"),
        "used": ("running", "initiator"),
    }
    later = (server.clock.now() + timedelta(hours=5)).isoformat()
    extended = await server.call("PUT", f"/workspaces/{used.id}/extend", json={"deadline": later})
    assert extended.status_code == 200
    await server.clock.advance(4 * 3600)
    await keeping_hours.look(server.deployment)
    assert (await server.get(f"/workspaces/{used.id}"))["latest_build"]["status"] == "running"


async def test_a_stopped_workspace_starts_by_its_schedule(server: Server):
    workspace = await server.workspace()
    path = f"/workspaces/{workspace.id}"
    line = "CRON_TZ=UTC 30 9 * * *"
    assert (await server.call("PUT", f"{path}/autostart", json={"schedule": "at nine"})).status_code == 400
    assert (await server.call("PUT", f"{path}/autostart", json={"schedule": line})).status_code == 204
    shown = await server.get(path)
    assert (shown["autostart_schedule"], shown["next_start_at"]) == (line, "2030-01-01T09:30:00Z")
    await build(server, workspace.id, "stop")
    await server.clock.advance(9 * 3600)
    await keeping_hours.look(server.deployment)
    assert (await server.get(path))["latest_build"]["status"] == "stopped"
    await server.clock.advance(1800)
    await keeping_hours.look(server.deployment)
    assert (await server.get(path))["latest_build"]["reason"] == "autostart"


async def test_only_owners_of_the_deployment_get_processes_of_the_server(server: Server, provisioned: Provisioned):
    process = next(each["id"] for each in await server.get("/templates") if each["kind"] == "process")
    bob = await server.member("bob")
    refused = await bob.call("POST", "/users/me/workspaces", json={"name": "dev", "template_id": process})
    assert refused.status_code == 403
    given = await server.call("POST", "/users/bob/workspaces", json={"name": "dev", "template_id": process})
    assert given.status_code == 403
    assert provisioned.calls == []
    await made_of(server, process)


async def test_who_is_no_owner_any_more_loses_the_processes_of_the_server(server: Server, provisioned: Provisioned):
    process = next(each["id"] for each in await server.get("/templates") if each["kind"] == "process")
    bob = await server.member("bob")
    assert (await server.call("PUT", "/users/bob/roles", json={"roles": ["owner"]})).status_code == 200
    workspace = await made_of(bob, process)
    await settled(bob, workspace["id"])
    (token,) = provisioned.tokens.values()
    assert await welcome(server, token)
    assert (await server.call("PUT", "/users/bob/roles", json={"roles": []})).status_code == 200
    assert not await welcome(server, token)
    assert (await settled(server, workspace["id"]))["latest_build"]["transition"] == "stop"
    assert provisioned.calls == ["start", "stop"]


async def test_a_start_under_way_ends_when_its_owner_may_not_have_it_any_more(server: Server, provisioned: Provisioned):
    process = next(each["id"] for each in await server.get("/templates") if each["kind"] == "process")
    bob = await server.member("bob")
    assert (await server.call("PUT", "/users/bob/roles", json={"roles": ["owner"]})).status_code == 200
    provisioned.gate.clear()
    workspace = await made_of(bob, process)
    await provisioned.asked.wait()
    assert (await server.call("PUT", "/users/bob/roles", json={"roles": []})).status_code == 200
    provisioned.gate.set()
    assert (await settled(server, workspace["id"]))["latest_build"]["status"] == "failed"
    assert provisioned.calls == ["start", "stop"]


async def test_members_see_what_is_offered_and_nothing_of_how(server: Server):
    template = await offer(server)
    bob = await server.member("bob")
    shown = await bob.get(f"/templates/{template['id']}")
    assert shown["name"] == "box"
    assert not {"settings", "agents", "parameters"} & shown.keys()


async def test_agents_get_what_the_template_lists_for_them(server: Server, deployment: Deployment):
    script = {"display_name": "Prepare", "script": "true", "start_blocks_login": True}
    agents = [
        {
            "name": "web",
            "environment": {"A": "1"},
            "scripts": [script],
            "apps": [{"slug": "ide", "url": "http://localhost:1"}],
        },
        {"name": "db", "metadata": [{"key": "load", "script": "uptime"}], "directory": "/srv"},
    ]
    parameter = {"name": "size", "options": ["s", "l"], "default": "s"}
    template = await offer(server, agents=agents, parameters=[parameter])
    version = template["active_version_id"]
    (listed,) = await server.get(f"/templateversions/{version}/rich-parameters")
    assert (listed["name"], listed["default_value"], len(listed["options"])) == ("size", "s", 2)
    values = [{"name": "size", "value": "l"}]
    workspace = await made_of(server, template["id"], rich_parameter_values=values)
    latest = (await settled(server, workspace["id"]))["latest_build"]
    assert await server.get(f"/workspacebuilds/{latest['id']}/parameters") == values
    async with deployment.store.read() as session:
        web, db = await builds.agents_of(session, UUID(latest["id"]))
    assert (web.name, web.environment) == ("web", {"A": "1", "CODER_PARAMETER_SIZE": "l"})
    assert (web.scripts[0]["start_blocks_login"], UUID(web.scripts[0]["id"]).version) == (True, 4)
    assert (web.apps[0]["slug"], db.directory, db.metadata_items[0]["key"]) == ("ide", "/srv", "load")
    for bad in ({"name": "size", "value": "m"}, {"name": "colour", "value": "red"}):
        wanted = {"name": "other", "template_id": template["id"], "rich_parameter_values": [bad]}
        assert (await server.call("POST", "/users/me/workspaces", json=wanted)).status_code == 400


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"settings": {"image": "--privileged"}}, "settings.image"),
        ({"settings": {"image": "x", "volume": "/a,readonly"}}, "settings.volume"),
        ({"settings": {"image": "x", "network": "-x"}}, "settings.network"),
        ({"settings": {"image": "x", "privileged": True}}, "settings.privileged"),
        ({"settings": {}}, "settings.image"),
        ({"agents": [{"name": "a/b"}]}, "agents.0.name"),
        ({"agents": [{"name": "a"}, {"name": "A"}]}, "template"),
        ({"agents": [{"environment": {"A=B": "1"}}]}, "agents.0.environment"),
        ({"kind": "ssh", "settings": {"host": "-oProxyCommand=x", "user": "u"}}, "settings.host"),
        ({"default_ttl_ms": 5}, "default_ttl_ms"),
        ({"name": "a b"}, "name"),
    ],
)
async def test_what_a_template_cannot_hold_is_named(server: Server, change: dict[str, Any], place: str):
    answer = await server.call("POST", TEMPLATES, json=DOCKER | change)
    assert answer.status_code == 400
    assert place in [each["field"] for each in answer.json()["validations"]]


async def test_an_edit_makes_a_version_that_workspaces_take_up_when_told(server: Server):
    template = await offer(server)
    workspace = await made_of(server, template["id"])
    await settled(server, workspace["id"])
    path = f"/templates/{template['id']}"
    answer = await server.call("PATCH", path, json={"settings": {"image": "ubuntu:26.04"}, "icon": "/u.svg"})
    changed = answer.json()
    assert (changed["active_version_name"], changed["settings"]["image"]) == ("v2", "ubuntu:26.04")
    assert (await server.get(f"/workspaces/{workspace['id']}"))["outdated"] is True
    assert len(await server.get(f"{path}/versions")) == 2
    await build(server, workspace["id"], "start", template_version_id=changed["active_version_id"])
    assert (await settled(server, workspace["id"]))["outdated"] is False
    assert (await server.call("DELETE", path)).status_code == 409
    await build(server, workspace["id"], "delete")
    await server.deployment.runner.wait()
    assert (await server.call("DELETE", path)).status_code == 200
    assert (await server.call("GET", path)).status_code == 404
    await offer(server)


async def test_a_schedule_in_a_time_zone_that_is_gone_breaks_no_page(server: Server):
    workspace = await server.workspace()
    async with server.deployment.store.write() as session:
        lost = "CRON_TZ=Atlantis/Centre 30 9 * * *"
        await workspaces.change(session, UUID(workspace.id), server.clock.now(), autostart_schedule=lost)
    shown = await server.get(f"/workspaces/{workspace.id}")
    assert (shown["autostart_schedule"], shown["next_start_at"]) == (lost, None)
