"""An agent's socket: who is let in, what the calls answer, what users see of it."""

import asyncio
import json
from uuid import UUID, uuid4

import pytest
from google.protobuf.empty_pb2 import Empty
from websockets.exceptions import InvalidStatus

from api import messages
from api.conftest import Server, Workspace
from api.messages import AGENT, ask
from coder.db import agent_logs
from coder.errors import RpcError, RpcUnimplemented
from coder.server import agent_reports
from coder.server.agent_presence import Monitor
from coder.wire.proto import agent_pb2 as pb
from coder.wire.proto import tailnet_pb2

RPC = "/workspaceagents/me/rpc"


async def refusal(server: Server, path: str, headers: dict[str, str]) -> tuple[int, dict]:
    with pytest.raises(InvalidStatus) as refused:
        await server.open(path, headers)
    response = refused.value.response
    assert response.headers["Content-Type"].startswith("application/json")
    assert response.headers["X-Coder-Build-Version"]
    return response.status_code, json.loads(response.body)


async def state(server: Server, workspace: Workspace) -> dict:
    return await server.get(f"/workspaceagents/{workspace.agent_id}")


@pytest.mark.parametrize("place", ["Cookie", "Coder-Session-Token", "query"])
async def test_an_agent_is_let_in_by_its_token_wherever_it_stands(live: Server, place: str):
    workspace = await live.workspace()
    token = workspace.agent_token
    query = f"&coder_session_token={token}" if place == "query" else ""
    values = {"Cookie": f"coder_session_token={token}", "Coder-Session-Token": token}
    headers = {place: values[place]} if place in values else {}
    async with live.calls(f"{RPC}?version=2.6{query}", headers) as agent:
        manifest = await ask(agent, "GetManifest", pb.GetManifestRequest(), pb.Manifest)
    assert UUID(bytes=manifest.agent_id) == workspace.agent_id


@pytest.mark.parametrize("token", [None, "not-a-uuid", str(uuid4())])
async def test_without_a_good_token_it_is_401(live: Server, token: str | None):
    headers = {"Cookie": f"coder_session_token={token}"} if token else {}
    status, body = await refusal(live, f"{RPC}?version=2.6", headers)
    assert status == 401
    assert body["message"]
    assert body["detail"]


@pytest.mark.parametrize("version", ["2.14", "3.0", "1.0", "0.9", "two", "2", "2.0.0", "2.-1", "2.1e1"])
async def test_versions_that_are_not_served(live: Server, version: str):
    workspace = await live.workspace()
    headers = {"Coder-Session-Token": workspace.agent_token}
    status, body = await refusal(live, f"{RPC}?version={version}", headers)
    assert (status, body["message"]) == (400, "Unknown or unsupported API version")
    assert [each["field"] for each in body["validations"]] == ["version"]


@pytest.mark.parametrize("query", ["", "?version=2.0", "?version=2.13", "?version=2.11&role=agent"])
async def test_versions_that_are_served(live: Server, query: str):
    workspace = await live.workspace()
    async with live.calls(RPC + query, {"Coder-Session-Token": workspace.agent_token}) as agent:
        await ask(agent, "GetManifest", pb.GetManifestRequest(), pb.Manifest)


async def test_the_manifest_is_one_that_a_released_agent_can_use(live: Server):
    workspace = await live.workspace()
    async with live.agent(workspace) as agent:
        manifest = await ask(agent, "GetManifest", pb.GetManifestRequest(), pb.Manifest)
    assert (manifest.owner_username, manifest.workspace_name, manifest.agent_name) == ("admin", "dev", "main")
    assert UUID(bytes=manifest.workspace_id) == UUID(workspace.id)
    assert manifest.derp_map.HasField("home_params")
    assert manifest.derp_map.regions[999].nodes[0].host_name == "coder.test"
    assert not manifest.HasField("parent_id")


async def test_calls_that_only_have_to_be_answered(live: Server):
    workspace = await live.workspace()
    async with live.agent(workspace) as agent:
        monitoring = await ask(
            agent,
            "GetResourcesMonitoringConfiguration",
            pb.GetResourcesMonitoringConfigurationRequest(),
            pb.GetResourcesMonitoringConfigurationResponse,
        )
        assert (monitoring.config.num_datapoints, monitoring.config.collection_interval_seconds) == (20, 10)
        assert not monitoring.HasField("memory")
        stats = await ask(agent, "UpdateStats", pb.UpdateStatsRequest(), pb.UpdateStatsResponse)
        assert stats.report_interval.seconds == 30
        for name, request, answer in (
            ("GetServiceBanner", pb.GetServiceBannerRequest(), pb.ServiceBanner),
            ("GetAnnouncementBanners", pb.GetAnnouncementBannersRequest(), pb.GetAnnouncementBannersResponse),
            ("BatchUpdateAppHealths", pb.BatchUpdateAppHealthRequest(), pb.BatchUpdateAppHealthResponse),
            ("BatchUpdateMetadata", pb.BatchUpdateMetadataRequest(), pb.BatchUpdateMetadataResponse),
            (
                "ScriptCompleted",
                pb.WorkspaceAgentScriptCompletedRequest(timing=pb.Timing(script_id=uuid4().bytes)),
                pb.WorkspaceAgentScriptCompletedResponse,
            ),
            (
                "PushResourcesMonitoringUsage",
                pb.PushResourcesMonitoringUsageRequest(),
                pb.PushResourcesMonitoringUsageResponse,
            ),
            ("ListSubAgents", pb.ListSubAgentsRequest(), pb.ListSubAgentsResponse),
        ):
            assert await ask(agent, name, request, answer) == answer()


@pytest.mark.parametrize("name", ["CreateSubAgent", "UpdateAppStatus", "PushContextState", "Nonsense"])
async def test_calls_that_are_not_served_say_so_with_code_12(live: Server, name: str):
    workspace = await live.workspace()
    async with live.agent(workspace) as agent:
        with pytest.raises(RpcUnimplemented):
            await ask(agent, name, Empty(), Empty)


async def test_an_agent_gets_no_resume_token_for_its_id(live: Server):
    workspace = await live.workspace()
    async with live.agent(workspace) as agent:
        with pytest.raises(RpcUnimplemented):
            await agent.unary(f"{messages.TAILNET}RefreshResumeToken", Empty(), Empty)


async def test_a_start_is_seen_by_users(live: Server):
    workspace = await live.workspace()
    async with live.agent(workspace) as agent:
        assert await ask(agent, "UpdateStartup", messages.startup(), pb.Startup) == messages.startup().startup
        starting = await ask(agent, "UpdateLifecycle", messages.lifecycle(pb.Lifecycle.STARTING), pb.Lifecycle)
        assert starting.state == pb.Lifecycle.STARTING
        seen = await state(live, workspace)
        assert (seen["status"], seen["lifecycle_state"]) == ("connected", "starting")
        assert "ready_at" not in seen
        await ask(agent, "UpdateLifecycle", messages.lifecycle(pb.Lifecycle.READY, 1_900_000_009), pb.Lifecycle)
        seen = await state(live, workspace)
        assert (await live.get("/workspaces", params={"q": "has-agent:connected"}))["count"] == 1
    assert (seen["version"], seen["api_version"], seen["expanded_directory"]) == ("v2.26.0", "2.6", "/home/a")
    assert (seen["started_at"], seen["ready_at"]) == ("2030-03-17T17:46:40Z", "2030-03-17T17:46:49Z")


async def test_ready_without_starting_sets_both_times(live: Server):
    workspace = await live.workspace()
    async with live.agent(workspace) as agent:
        await ask(agent, "UpdateLifecycle", messages.lifecycle(pb.Lifecycle.START_ERROR), pb.Lifecycle)
        seen = await state(live, workspace)
    assert seen["started_at"] == seen["ready_at"]
    assert seen["health"]["healthy"] is False


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("UpdateLifecycle", messages.lifecycle(pb.Lifecycle.STATE_UNSPECIFIED)),
        ("UpdateLifecycle", messages.lifecycle(77)),
        ("UpdateStartup", messages.startup("2.26.0")),
        ("UpdateStartup", messages.startup("v2.26")),
        ("UpdateStartup", messages.startup(directory="x" * 5000)),
        ("ReportConnection", pb.ReportConnectionRequest()),
        ("ReportConnection", pb.ReportConnectionRequest(connection=pb.Connection(id=bytes(16)))),
        ("BatchUpdateMetadata", pb.BatchUpdateMetadataRequest(metadata=[pb.Metadata(key="k" * 7000)])),
        ("BatchCreateLogs", pb.BatchCreateLogsRequest(log_source_id=b"short")),
    ],
)
async def test_reports_that_make_no_sense_are_refused_and_harm_nothing(live: Server, name: str, request_):
    workspace = await live.workspace()
    async with live.agent(workspace) as agent:
        with pytest.raises(RpcError) as refused:
            await ask(agent, name, request_, Empty)
        assert refused.value.code == 0
        assert "internal" not in refused.value.text
        await ask(agent, "GetManifest", pb.GetManifestRequest(), pb.Manifest)


async def test_a_time_beyond_all_calendars_is_refused(live: Server):
    workspace = await live.workspace()
    request = messages.lifecycle(pb.Lifecycle.READY)
    request.lifecycle.changed_at.seconds = 2**62
    async with live.agent(workspace) as agent:
        with pytest.raises(RpcError, match="no time"):
            await ask(agent, "UpdateLifecycle", request, Empty)


async def test_a_reported_connection_is_answered_empty(live: Server):
    workspace = await live.workspace()
    connection = pb.Connection(id=uuid4().bytes, action=pb.Connection.CONNECT, type=pb.Connection.SSH, ip="fd7a::1")
    async with live.agent(workspace) as agent:
        answer = await ask(agent, "ReportConnection", pb.ReportConnectionRequest(connection=connection), Empty)
    assert answer == Empty()


async def test_logs_are_kept_up_to_the_limit(live: Server):
    workspace = await live.workspace()
    lines = pb.BatchCreateLogsRequest(logs=[pb.Log(output="hello", level=pb.Log.WARN), pb.Log(output="x", level=99)])
    async with live.agent(workspace) as agent:
        kept = await ask(agent, "BatchCreateLogs", lines, pb.BatchCreateLogsResponse)
        assert not kept.log_limit_exceeded
        flood = pb.BatchCreateLogsRequest(logs=[pb.Log(output="y" * (1 << 20))])
        assert (await ask(agent, "BatchCreateLogs", flood, pb.BatchCreateLogsResponse)).log_limit_exceeded
    path = f"/workspaceagents/{workspace.agent_id}"
    logs = await live.get(f"{path}/logs")
    assert [(line["output"], line["level"]) for line in logs] == [("hello", "warn"), ("x", "info")]
    assert {line["source_id"] for line in logs} == {"3b579bf4-1ed8-4b99-87a8-e9a1e3410410"}
    assert [line["output"] for line in await live.get(f"{path}/logs?after={logs[0]['id']}")] == ["x"]
    seen = await live.get(path)
    assert (seen["logs_length"], seen["logs_overflowed"]) == (6 + 2 * agent_logs.LOG_LINE_BYTES, True)


async def test_more_lines_than_can_be_kept_are_not_looked_at(live: Server, monkeypatch: pytest.MonkeyPatch):
    workspace = await live.workspace()
    path = f"/workspaceagents/{workspace.agent_id}"
    flood = pb.BatchCreateLogsRequest(logs=[pb.Log()] * 200_000)
    async with live.agent(workspace) as agent:
        with monkeypatch.context() as without:
            without.setattr(agent_reports, "_log_line", None)
            assert (await ask(agent, "BatchCreateLogs", flood, pb.BatchCreateLogsResponse)).log_limit_exceeded
        assert await live.get(f"{path}/logs") == []
        most = pb.BatchCreateLogsRequest(logs=[pb.Log()] * agent_logs.MAX_LOG_LINES)
        assert not (await ask(agent, "BatchCreateLogs", most, pb.BatchCreateLogsResponse)).log_limit_exceeded
        one = pb.BatchCreateLogsRequest(logs=[pb.Log()])
        assert (await ask(agent, "BatchCreateLogs", one, pb.BatchCreateLogsResponse)).log_limit_exceeded
    seen = await live.get(path)
    assert (seen["logs_length"], seen["logs_overflowed"]) == (agent_logs.MAX_LOG_BYTES, True)


async def test_an_agent_that_leaves_is_disconnected_and_comes_back(live: Server):
    workspace = await live.workspace()
    async with live.agent(workspace) as agent:
        await ask(agent, "GetManifest", pb.GetManifestRequest(), pb.Manifest)
        with live.deployment.changes.watch(UUID(workspace.id)) as changed:
            await agent.close()
            await changed.wait()
    first = await state(live, workspace)
    assert first["status"] == "disconnected"
    await live.clock.advance(5)
    async with live.agent(workspace) as agent:
        await ask(agent, "GetManifest", pb.GetManifestRequest(), pb.Manifest)
        again = await state(live, workspace)
    assert again["status"] == "connected"
    assert again["first_connected_at"] == first["first_connected_at"]
    assert again["last_connected_at"] > first["last_connected_at"]


async def test_pings_of_the_server_keep_an_agent_connected(live: Server, monkeypatch: pytest.MonkeyPatch):
    answered, noted = Monitor.answered, asyncio.Event()

    async def noting(monitor: Monitor, round_trip: float) -> None:
        await answered(monitor, round_trip)
        noted.set()

    monkeypatch.setattr(Monitor, "answered", noting)
    workspace = await live.workspace()
    async with live.agent(workspace) as agent:
        await ask(agent, "GetManifest", pb.GetManifestRequest(), pb.Manifest)
        before = await state(live, workspace)
        for _ in range(3):
            await live.clock.advance(15)
            await noted.wait()
            noted.clear()
        after = await state(live, workspace)
    assert after["last_connected_at"] > before["last_connected_at"]
    assert after["status"] == "connected"


async def test_a_second_connection_that_comes_and_goes_leaves_the_agent_connected(
    live: Server, monkeypatch: pytest.MonkeyPatch
):
    answered, noted = Monitor.answered, asyncio.Event()

    async def noting(monitor: Monitor, round_trip: float) -> None:
        await answered(monitor, round_trip)
        noted.set()

    monkeypatch.setattr(Monitor, "answered", noting)
    workspace = await live.workspace()
    async with live.agent(workspace, instance="one") as agent:
        await ask(agent, "GetManifest", pb.GetManifestRequest(), pb.Manifest)
        with live.deployment.changes.watch(UUID(workspace.id)) as changed:
            async with live.agent(workspace, instance="one") as second:
                await ask(second, "GetManifest", pb.GetManifestRequest(), pb.Manifest)
                changed.clear()
            await changed.wait()
        assert (await state(live, workspace))["status"] == "disconnected"
        noted.clear()
        await live.clock.advance(15)
        await noted.wait()
        assert (await state(live, workspace))["status"] == "connected"


async def test_deleting_the_workspace_ends_the_agents_socket(live: Server):
    workspace = await live.workspace()
    async with live.agent(workspace) as agent:
        await ask(agent, "GetManifest", pb.GetManifestRequest(), pb.Manifest)
        assert (await live.call("DELETE", f"/workspaces/{workspace.id}")).status_code == 204
        await agent.wait_closed()
    status, _ = await refusal(live, RPC, {"Coder-Session-Token": workspace.agent_token})
    assert status == 401


async def test_another_sites_page_opens_no_socket_with_a_cookie(live: Server):
    workspace = await live.workspace()
    for origin in ("http://evil.test", "null"):
        cookie = {"Cookie": f"coder_session_token={workspace.agent_token}", "Origin": origin}
        status, _ = await refusal(live, RPC, cookie)
        assert status == 403


async def test_a_text_message_and_garbage_end_only_their_own_connection(live: Server):
    workspace = await live.workspace()
    headers = {"Coder-Session-Token": workspace.agent_token, "Coder-Agent-Instance": "one"}
    async with live.agent(workspace, instance="one") as agent:
        texting = await live.open(RPC, headers)
        await texting.send("text")
        await texting.wait_closed()
        assert texting.close_code == 1003
        raving = await live.open(RPC, headers)
        await raving.send(b"\xff" * 64)
        await raving.wait_closed()
        await ask(agent, "GetManifest", pb.GetManifestRequest(), pb.Manifest)


async def test_unary_calls_name_the_service(live: Server):
    workspace = await live.workspace()
    async with live.agent(workspace) as agent:
        banner = await agent.unary(f"{AGENT}GetServiceBanner", pb.GetServiceBannerRequest(), pb.ServiceBanner)
        telemetry = await agent.unary(
            f"{messages.TAILNET}PostTelemetry", tailnet_pb2.TelemetryRequest(), tailnet_pb2.TelemetryResponse
        )
    assert banner == pb.ServiceBanner()
    assert telemetry == tailnet_pb2.TelemetryResponse()
