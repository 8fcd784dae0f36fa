"""What a manifest lists and an agent reports of it, and what users see."""

import asyncio
import json
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update
from websockets.exceptions import InvalidStatus

from api.conftest import Server, Workspace
from api.messages import ask
from coder.db.models import WorkspaceAgent
from coder.errors import RpcError, TimedOut
from coder.wire.proto import agent_pb2 as pb

SCRIPT, SOURCE, APP = uuid4(), uuid4(), uuid4()
ITEMS = {
    "environment": {"EDITOR": "vi"},
    "scripts": [
        {
            "id": str(SCRIPT),
            "log_source_id": str(SOURCE),
            "display_name": "Set up",
            "icon": "",
            "script": "make",
            "cron": "0 * * * *",
            "log_path": "",
            "run_on_start": True,
            "run_on_stop": False,
            "start_blocks_login": True,
            "timeout_seconds": 90,
        }
    ],
    "apps": [
        {
            "id": str(APP),
            "slug": "code",
            "display_name": "Code",
            "url": "http://localhost:8080",
            "sharing_level": "authenticated",
            "healthcheck": {"url": "http://localhost:8080/up", "interval_seconds": 5, "threshold": 6},
        },
        {"id": str(uuid4()), "slug": "top", "display_name": "Top", "command": "top", "sharing_level": "owner"},
    ],
    "metadata_items": [
        {"key": "load", "display_name": "Load", "script": "uptime", "interval_seconds": 10, "timeout_seconds": 1}
    ],
}


async def equipped(server: Server) -> Workspace:
    """Make a workspace whose agent has a script, apps and metadata."""
    workspace = await server.workspace()
    async with server.deployment.store.write() as session:
        await session.execute(update(WorkspaceAgent).where(WorkspaceAgent.id == workspace.agent_id).values(**ITEMS))
    return workspace


async def shown(server: Server, workspace: Workspace) -> dict:
    return await server.get(f"/workspaceagents/{workspace.agent_id}")


async def test_the_manifest_holds_what_the_template_lists(live: Server):
    workspace = await equipped(live)
    async with live.agent(workspace) as agent:
        manifest = await ask(agent, "GetManifest", pb.GetManifestRequest(), pb.Manifest)
    assert dict(manifest.environment_variables) == {"EDITOR": "vi"}
    [script] = manifest.scripts
    assert (UUID(bytes=script.id), UUID(bytes=script.log_source_id)) == (SCRIPT, SOURCE)
    assert (script.script, script.cron, script.display_name) == ("make", "0 * * * *", "Set up")
    assert (script.run_on_start, script.run_on_stop, script.start_blocks_login) == (True, False, True)
    assert script.timeout.seconds == 90
    code, top = manifest.apps
    assert (code.healthcheck.url, code.healthcheck.interval.seconds) == ("http://localhost:8080/up", 5)
    assert (code.healthcheck.threshold, code.health) == (6, pb.WorkspaceApp.INITIALIZING)
    assert code.sharing_level == pb.WorkspaceApp.AUTHENTICATED
    assert top.HasField("healthcheck")
    assert (top.health, top.command) == (pb.WorkspaceApp.DISABLED, "top")
    [item] = manifest.metadata
    assert (item.key, item.script, item.interval.nanos, item.timeout.nanos) == ("load", "uptime", 10, 1)
    assert item.interval.seconds == 0


async def test_users_see_what_the_template_lists(server: Server):
    workspace = await equipped(server)
    seen = await shown(server, workspace)
    assert seen["scripts"][0] == {
        "id": str(SCRIPT), "log_source_id": str(SOURCE), "log_path": "", "script": "make", "cron": "0 * * * *",
        "run_on_start": True, "run_on_stop": False, "start_blocks_login": True, "timeout": 90,
        "display_name": "Set up",
    }  # fmt: skip
    assert seen["startup_script_behavior"] == "blocking"
    assert [(one["slug"], one["health"]) for one in seen["apps"]] == [("code", "initializing"), ("top", "disabled")]
    assert seen["apps"][0]["healthcheck"] == {"url": "http://localhost:8080/up", "interval": 5, "threshold": 6}
    assert [(one["id"], one["display_name"]) for one in seen["log_sources"]] == [(str(SOURCE), "Set up")]
    assert seen["environment_variables"] is None, "values may be secrets"


async def test_an_apps_health_is_seen(live: Server):
    workspace = await equipped(live)
    kinds = pb.BatchUpdateAppHealthRequest.HealthUpdate
    async with live.agent(workspace) as agent:
        with live.deployment.changes.watch(UUID(workspace.id)) as changed:
            update = pb.BatchUpdateAppHealthRequest(
                updates=[kinds(id=APP.bytes, health=pb.HEALTHY), kinds(id=uuid4().bytes, health=pb.UNHEALTHY)]
            )
            await ask(agent, "BatchUpdateAppHealths", update, pb.BatchUpdateAppHealthResponse)
            assert changed.is_set()
            changed.clear()
            await ask(agent, "BatchUpdateAppHealths", update, pb.BatchUpdateAppHealthResponse)
            assert not changed.is_set(), "nothing changed"
        seen = await shown(live, workspace)
    assert [one["health"] for one in seen["apps"]] == ["healthy", "disabled"]


@pytest.mark.parametrize("health", [0, 77])
async def test_a_health_that_is_none_is_refused(live: Server, health: int):
    workspace = await equipped(live)
    kinds = pb.BatchUpdateAppHealthRequest.HealthUpdate
    async with live.agent(workspace) as agent:
        update = pb.BatchUpdateAppHealthRequest(updates=[kinds(id=APP.bytes, health=health)])
        with pytest.raises(RpcError, match="no health"):
            await ask(agent, "BatchUpdateAppHealths", update, pb.BatchUpdateAppHealthResponse)


async def test_the_last_run_of_a_script_is_seen(live: Server):
    workspace = await equipped(live)
    timing = pb.Timing(script_id=SCRIPT.bytes, exit_code=3, stage=pb.Timing.START, status=pb.Timing.EXIT_FAILURE)
    timing.start.FromSeconds(1_900_000_000)
    timing.end.FromSeconds(1_900_000_009)
    request = pb.WorkspaceAgentScriptCompletedRequest(timing=timing)
    async with live.agent(workspace) as agent:
        await ask(agent, "ScriptCompleted", request, pb.WorkspaceAgentScriptCompletedResponse)
        request.timing.script_id = uuid4().bytes
        await ask(agent, "ScriptCompleted", request, pb.WorkspaceAgentScriptCompletedResponse)
        seen = await shown(live, workspace)
    assert seen["scripts"][0]["last_run"] == {
        "stage": "start", "status": "exit_failure", "exit_code": 3,
        "started_at": "2030-03-17T17:46:40Z", "ended_at": "2030-03-17T17:46:49Z",
    }  # fmt: skip


def result(key: str, value: str, error: str = "") -> pb.BatchUpdateMetadataRequest:
    found = pb.WorkspaceAgentMetadata.Result(value=value, error=error)
    return pb.BatchUpdateMetadataRequest(metadata=[pb.Metadata(key=key, result=found)])


async def test_metadata_is_watched(live: Server):
    workspace = await equipped(live)
    path = f"/workspaceagents/{workspace.agent_id}/watch-metadata-ws"
    watching = await live.open(path)
    states = []

    async def next_state():
        while (event := json.loads(await watching.recv()))["type"] != "data":
            pass
        states.append(event["data"])
        return event["data"]

    [empty] = await next_state()
    assert empty["result"] == {"collected_at": "0001-01-01T00:00:00Z", "age": 0, "value": "", "error": ""}
    assert empty["description"] == {
        "display_name": "Load", "key": "load", "script": "uptime", "interval": 10, "timeout": 1,
    }  # fmt: skip
    async with live.agent(workspace) as agent:
        await ask(agent, "BatchUpdateMetadata", result("load", "0.5"), pb.BatchUpdateMetadataResponse)
        await ask(agent, "BatchUpdateMetadata", result("other", "x"), pb.BatchUpdateMetadataResponse)
        await live.clock.advance(1)
        [first] = await next_state()
        assert first["result"]["value"] == "0.5"
        big = "ü" * 1500
        await ask(agent, "BatchUpdateMetadata", result("load", big, "odd"), pb.BatchUpdateMetadataResponse)
        await live.clock.advance(1)
        [second] = await next_state()
    assert second["result"]["value"] == "ü" * 1024
    assert second["result"]["error"] == "odd; the value had 3000 bytes and was cut to 2048"
    await watching.close()


async def test_metadata_is_none_of_other_peoples_business(live: Server):
    workspace = await equipped(live)
    other = await live.member("bob")
    path = f"/workspaceagents/{workspace.agent_id}"
    assert (await other.call("GET", f"{path}/watch-metadata")).status_code == 404
    assert (await other.call("POST", f"{path}/token")).status_code == 404
    with pytest.raises(InvalidStatus):
        await other.open(f"{path}/watch-metadata-ws")


async def test_lines_before_and_after_and_as_text(server: Server):
    workspace = await equipped(server)
    headers = {"Coder-Session-Token": workspace.agent_token}
    source = {"id": str(uuid4()), "display_name": "tool", "icon": ""}
    made = await server.call("POST", "/workspaceagents/me/log-source", json=source, headers=headers)
    assert made.status_code == 201
    lines = [{"created_at": "2030-01-01T00:00:00Z", "output": f"line {n}"} for n in range(4)]
    for number, each in ((str(SOURCE), lines[:2]), (source["id"], lines[2:])):
        body = {"log_source_id": number, "logs": each}
        assert (await server.call("PATCH", "/workspaceagents/me/logs", json=body, headers=headers)).status_code == 200
    path = f"/workspaceagents/{workspace.agent_id}/logs"
    ids = [one["id"] for one in await server.get(path)]
    assert [one["output"] for one in await server.get(path, params={"after": ids[0], "before": ids[3]})] == [
        "line 1",
        "line 2",
    ]
    text = await server.call("GET", path, params={"format": "text", "no_compression": ""})
    assert text.headers["Content-Type"].startswith("text/plain")
    assert text.text.splitlines()[0] == "2030-01-01T00:00:00Z [info] [Set up] line 0"
    assert text.text.splitlines()[3] == "2030-01-01T00:00:00Z [info] [tool] line 3"
    assert (await server.call("GET", path, params={"format": "html"})).status_code == 400
    assert (await server.call("GET", path, params={"after": -1})).status_code == 400
    names = [one["display_name"] for one in (await shown(server, workspace))["log_sources"]]
    assert names == ["Set up", "tool"]
    flood = {"logs": [{"created_at": "2030-01-01T00:00:00Z", "output": "y" * 700_000}]}
    for status in (200, 413):
        answer = await server.call("PATCH", "/workspaceagents/me/logs", json=flood, headers=headers)
        assert answer.status_code == status


async def test_a_renewed_token_is_the_only_one(live: Server):
    workspace = await live.workspace()
    async with live.agent(workspace) as agent:
        await ask(agent, "GetManifest", pb.GetManifestRequest(), pb.Manifest)
        answer = await live.call("POST", f"/workspaceagents/{workspace.agent_id}/token")
        assert answer.status_code == 201
        await agent.wait_closed()
    with pytest.raises(InvalidStatus) as refused:
        async with live.agent(workspace):
            pass
    assert refused.value.response.status_code == 401
    renewed = Workspace(workspace.id, workspace.name, workspace.agent_id, answer.json()["agent_token"], {})
    async with live.agent(renewed) as agent:
        await ask(agent, "GetManifest", pb.GetManifestRequest(), pb.Manifest)
        assert (await shown(live, renewed))["status"] == "connected"


async def test_a_second_agent_is_refused_while_the_first_answers(live: Server):
    workspace = await live.workspace()
    async with live.agent(workspace, instance="one") as first:
        await ask(first, "GetManifest", pb.GetManifestRequest(), pb.Manifest)
        for instance in ("two", ""):
            with pytest.raises(InvalidStatus) as refused:
                async with live.agent(workspace, instance=instance):
                    pass
            assert refused.value.response.status_code == 409
            assert "with this token" in json.loads(refused.value.response.body)["message"]
        await ask(first, "GetManifest", pb.GetManifestRequest(), pb.Manifest)
        async with live.agent(workspace, instance="one") as again:
            await ask(again, "GetManifest", pb.GetManifestRequest(), pb.Manifest)


async def test_a_second_agent_replaces_one_that_answers_no_more(live: Server):
    workspace = await live.workspace()
    headers = {"Coder-Session-Token": workspace.agent_token}
    dead = await live.open("/workspaceagents/me/rpc?version=2.0", headers)  # speaks no yamux, so it answers no ping
    opening = asyncio.ensure_future(live.open("/workspaceagents/me/rpc?version=2.0", headers))
    while not opening.done():
        await live.clock.advance(1)
        await asyncio.sleep(0)
    async for _ in dead:  # until the server ends it
        pass
    await (await opening).close()


async def test_why_an_agent_was_cut_off_is_seen(live: Server):
    workspace = await live.workspace()
    async with live.agent(workspace) as agent:
        await ask(agent, "GetManifest", pb.GetManifestRequest(), pb.Manifest)
        with live.deployment.changes.watch(UUID(workspace.id)) as changed:
            live.deployment.sockets.end(workspace.agent_id, "workspace stopped")
            await agent.wait_closed()
            await changed.wait()
    seen = await shown(live, workspace)
    assert (seen["status"], seen["disconnect_reason"]) == ("disconnected", "workspace stopped")


class Node:
    """Stands where the server's own node asks agents."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    async def http_get(self, agent_id, port, path):
        self.asked.append((agent_id, port, path))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def close(self):
        pass


async def ports(live: Server, answer: object) -> tuple[int, dict]:
    workspace = await equipped(live)
    node = Node(answer)
    object.__setattr__(live.deployment, "node", node)
    async with live.agent(workspace) as agent:
        await ask(agent, "GetManifest", pb.GetManifestRequest(), pb.Manifest)
        found = await live.call("GET", f"/workspaceagents/{workspace.agent_id}/listening-ports")
    assert node.asked == [(workspace.agent_id, 4, "/api/v0/listening-ports")]
    return found.status_code, found.json()


async def test_ports_are_asked_for_through_the_tunnel_and_what_is_no_web_page_left_out(live: Server):
    told = [
        {"process_name": "node", "network": "tcp", "port": 3000},
        {"process_name": "node", "network": "tcp", "port": 3000},
        {"process_name": "code", "network": "tcp", "port": 8080},
        {"process_name": "sshd", "network": "tcp", "port": 22},
        {"process_name": "x", "network": "tcp", "port": 1},
        {"process_name": "y", "network": "udp", "port": 9000},
        {"network": "tcp", "port": 4000},
        {"process_name": "z", "network": "tcp", "port": 70000},
    ]
    status, body = await ports(live, (200, json.dumps({"ports": told}).encode()))
    assert status == 200
    assert body == {
        "ports": [
            {"process_name": "node", "network": "tcp", "port": 3000},
            {"process_name": "", "network": "tcp", "port": 4000},
        ]
    }


@pytest.mark.parametrize(
    "answer",
    [
        (404, b"{}"),
        (200, b"nonsense"),
        (200, b'{"ports":7}'),
        (200, b'{"ports":[{"port":"1","network":"tcp"}]}'),
        (200, b"[]"),
        (200, b'{"ports":[{"port":[],"network":"tcp"}]}'),
        TimedOut("late"),
    ],
)
async def test_an_agent_that_cannot_be_asked_for_ports_is_a_500_with_a_reason(live: Server, answer: object):
    status, body = await ports(live, answer)
    assert (status, body["message"]) == (500, "The agent could not be asked for its ports.")
    assert body["detail"]
