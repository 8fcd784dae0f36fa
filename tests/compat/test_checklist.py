"""What real clients and agents do, in order, point by point; a test's name begins with the numbers of its points.

The recorded flows show whole commands; here stands what each step may come to, and what no recording reached.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from api import messages
from api.conftest import PASSWORD, TOKEN_HEADER, Server, Workspace
from api.messages import AGENT, TAILNET
from google.protobuf import empty_pb2
from websockets.exceptions import InvalidStatus

from coder.tailnet.addresses import agent_addresses
from coder.wire.drpc import UNIMPLEMENTED, Kind
from coder.wire.proto import agent_pb2 as pb
from coder.wire.proto import tailnet_pb2 as tp
from compat.client import Socket

Kinds = tp.CoordinateResponse.PeerUpdate


@asynccontextmanager
async def agent_of(server: Server, workspace: Workspace, query: str = "version=2.6") -> AsyncIterator[Socket]:
    headers = {"Cookie": f"coder_session_token={workspace.agent_token}"}
    async with Socket(await server.open(f"/workspaceagents/me/rpc?{query}", headers)) as socket:
        yield socket


@asynccontextmanager
async def client_of(server: Server, workspace: Workspace) -> AsyncIterator[Socket]:
    async with Socket(await server.open(f"/workspaceagents/{workspace.agent_id}/coordinate?version=2.0")) as socket:
        yield socket


async def coordinate(socket: Socket, *requests: tp.CoordinateRequest) -> int:
    stream = await socket.open(f"{TAILNET}Coordinate")
    for request in requests:
        await socket.message(stream, request)
    return stream


async def heard(socket: Socket, stream: int) -> Any:
    return (await socket.answer(stream, tp.CoordinateResponse)).peer_updates[0]


async def test_0_1_every_answer_names_the_build_and_errors_are_json(server: Server):
    for path in ("/buildinfo", "/nosuch", "/users/me/workspace/nope"):
        answer = await server.call("GET", path)
        assert answer.headers["X-Coder-Build-Version"].startswith("v2.")
        assert answer.headers["Content-Type"].startswith("application/json")
        assert answer.status_code == 200 or answer.json()["message"]


async def test_0_4_every_map_has_a_relay_and_home_parameters(live: Server):
    workspace = await live.workspace()
    async with agent_of(live, workspace) as agent:
        manifest = await agent.ask(f"{AGENT}GetManifest", pb.GetManifestRequest(), pb.Manifest)
    assert manifest.derp_map.HasField("home_params")
    assert any(not node.stun_only for region in manifest.derp_map.regions.values() for node in region.nodes)


@pytest.mark.parametrize(
    "query", ["version=2.0", "version=2.3", "version=2.6", "version=2.11&role=agent", "version=2.13"]
)
async def test_0_5_1_2_agents_of_all_releases_are_let_in_and_unknown_calls_are_code_12(live: Server, query: str):
    workspace = await live.workspace()
    async with agent_of(live, workspace, query) as agent:
        await agent.ask(f"{AGENT}GetManifest", pb.GetManifestRequest(), pb.Manifest)
        assert await agent.refusal(f"{AGENT}OfAnotherCentury", empty_pb2.Empty()) == UNIMPLEMENTED
        await agent.ping()
        shown = await live.get(f"/workspaceagents/{workspace.agent_id}")
        assert shown["first_connected_at"]
        assert shown["last_connected_at"]


async def test_1_3_to_1_8_the_start_of_an_agent_in_any_order(live: Server):
    workspace = await live.workspace()
    async with agent_of(live, workspace) as agent:
        calls = ["GetAnnouncementBanners", "GetResourcesMonitoringConfiguration", "GetManifest"]
        streams = [await agent.open(f"{AGENT}{name}") for name in calls]
        for stream in reversed(streams):  # all are open before the first request is there
            await agent.message(stream, empty_pb2.Empty())
            await agent.packet(stream, Kind.CLOSE_SEND)
        banners = await agent.answer(streams[0], pb.GetAnnouncementBannersResponse)
        monitoring = await agent.answer(streams[1], pb.GetResourcesMonitoringConfigurationResponse)
        manifest = await agent.answer(streams[2], pb.Manifest)
        assert list(banners.announcement_banners) == []
        assert (monitoring.config.num_datapoints, monitoring.config.collection_interval_seconds) == (20, 10)
        assert UUID(bytes=manifest.agent_id) == workspace.agent_id
        assert (manifest.owner_username, manifest.workspace_name, manifest.agent_name) == ("admin", "dev", "main")
        started = await agent.ask(f"{AGENT}UpdateStartup", messages.startup(), pb.Startup)
        assert started == messages.startup().startup


async def test_1_10_to_1_13_an_agent_becomes_ready_and_known(live: Server):
    workspace = await live.workspace()
    async with agent_of(live, workspace) as agent:
        maps = await agent.open(f"{TAILNET}StreamDERPMaps")
        await agent.message(maps, tp.StreamDERPMapsRequest())
        await agent.packet(maps, Kind.CLOSE_SEND)
        assert (await agent.answer(maps, tp.DERPMap)).HasField("home_params")
        stats = await agent.ask(f"{AGENT}UpdateStats", pb.UpdateStatsRequest(), pb.UpdateStatsResponse)
        assert stats.report_interval.seconds > 0
        await agent.ask(f"{AGENT}UpdateStartup", messages.startup(), pb.Startup)
        for state in (pb.Lifecycle.STARTING, pb.Lifecycle.READY):
            echo = await agent.ask(f"{AGENT}UpdateLifecycle", messages.lifecycle(state), pb.Lifecycle)
            assert echo.state == state
        await coordinate(agent, messages.update_self(workspace.agent_id, agent=True))
        await agent.ping()
        shown = await live.get(f"/workspaceagents/{workspace.agent_id}")
        assert (shown["status"], shown["lifecycle_state"], shown["version"]) == ("connected", "ready", "v2.26.0")


async def test_1_16_1_17_sessions_are_reported_and_the_stop_is_orderly(live: Server):
    workspace = await live.workspace()
    async with agent_of(live, workspace) as agent:
        report = pb.ReportConnectionRequest()
        report.connection.id = uuid4().bytes
        report.connection.action, report.connection.type = pb.Connection.CONNECT, pb.Connection.SSH
        report.connection.timestamp.FromSeconds(1_900_000_000)
        await agent.ask(f"{AGENT}ReportConnection", report, empty_pb2.Empty)
        stream = await coordinate(agent, messages.update_self(workspace.agent_id, agent=True))
        down = messages.lifecycle(pb.Lifecycle.SHUTTING_DOWN)
        await agent.ask(f"{AGENT}UpdateLifecycle", down, pb.Lifecycle)
        await agent.message(stream, tp.CoordinateRequest(disconnect=tp.CoordinateRequest.Disconnect()))
        assert (await agent.next(stream)).kind in {Kind.CLOSE, Kind.CLOSE_SEND}
        await agent.ask(f"{AGENT}UpdateLifecycle", messages.lifecycle(pb.Lifecycle.OFF), pb.Lifecycle)
    assert (await live.get(f"/workspaceagents/{workspace.agent_id}"))["lifecycle_state"] == "off"


async def test_2_1_login_with_a_token(server: Server):
    token = server.headers.pop(TOKEN_HEADER)
    assert (await server.call("GET", "/users/first")).status_code == 200
    assert (await server.call("GET", "/buildinfo")).status_code == 200
    made = await server.call("POST", "/users/me/keys", headers={TOKEN_HEADER: token})
    assert made.status_code == 201
    assert (await server.get("/users/me", headers={TOKEN_HEADER: made.json()["key"]}))["username"] == "admin"


async def test_2_2_the_first_user(bare: Server):
    before = await bare.call("GET", "/users/first")
    assert before.status_code == 404
    assert before.headers["X-Coder-Build-Version"]
    await bare.set_up()
    assert (await bare.get("/users/me"))["username"] == "admin"


async def test_2_3_tokens_and_logout(server: Server):
    assert (await server.get("/users/me/keys/tokens/tokenconfig"))["max_token_lifetime"] > 0
    made = await server.call("POST", "/users/me/keys/tokens", json={"scope": "", "token_name": "ci", "lifetime": 0})
    assert made.status_code == 201
    assert [each["token_name"] for each in await server.get("/users/me/keys/tokens?include_all=false")] == ["ci"]
    found = await server.get("/users/me/keys/tokens/ci")
    assert (await server.call("GET", "/users/me/keys/tokens/nope")).status_code == 404
    assert (await server.get(f"/users/me/keys/{found['id']}"))["id"] == found["id"]
    assert (await server.call("DELETE", f"/users/me/keys/{found['id']}")).status_code == 204
    assert await server.get("/users/me/keys/tokens") == []
    assert (await server.call("POST", "/users/logout")).status_code == 200
    assert (await server.call("GET", "/users/me")).status_code == 401


@pytest.mark.parametrize(
    "query", ["owner%3Ame", "owner%3A%22me%22", "", "dev", "admin%2Fdev", "owner:me%20status:running"]
)
async def test_3_1_the_list_in_all_ways_it_is_asked_for(server: Server, query: str):
    await server.workspace()
    found = await server.get(f"/workspaces?q={query}")
    assert ([each["name"] for each in found["workspaces"]], found["count"]) == (["dev"], 1)


async def test_4_1_to_4_4_the_start_of_every_connection(server: Server):
    await server.workspace()
    assert (await server.call("GET", "/appearance")).status_code == 404
    for owner in ("me", "admin"):
        build = (await server.get(f"/users/{owner}/workspace/dev?include_deleted=false"))["latest_build"]
        assert build["transition"] == "start"
        assert build["job"]["completed_at"]
        assert build["resources"][0]["agents"][0]["name"] == "main"


async def test_4_3_the_calls_before_a_start(server: Server):
    workspace = await server.workspace()
    build = workspace.body["latest_build"]
    version = f"/templateversions/{build['template_version_id']}"
    assert await server.get(f"/workspacebuilds/{build['id']}/parameters") == []
    assert (await server.get(version))["id"] == build["template_version_id"]
    assert await server.get(f"{version}/rich-parameters") == []
    assert await server.get(f"{version}/external-auth") == []
    wanted = {"workspace_name": "dev", "rich_parameter_values": [], "user_variable_values": []}
    job = await server.call("POST", f"{version}/dry-run", json=wanted)
    assert job.status_code == 201
    dry_run = f"{version}/dry-run/{job.json()['id']}"
    assert (await server.get(f"{dry_run}/matched-provisioners"))["available"] >= 1
    done = await server.get(dry_run)
    assert done["status"] == "succeeded"
    assert done["completed_at"]
    assert await server.get(f"{dry_run}/resources") == []


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/workspaceagents/{agent}/coordinate?version=9.0", 400, "Unknown or unsupported API version"),
        ("/workspaceagents/{agent}/coordinate?version=2.99", 400, "Unknown or unsupported API version"),
        ("/workspaceagents/not-an-id/coordinate?version=2.0", 400, ""),
        ("/workspaceagents/{other}/coordinate?version=2.0", 404, ""),
        ("/workspaceagents/{agent}/coordinate?version=2.0&resume_token=bad", 401, ""),
    ],
)
async def test_d_2_refusals_that_clients_take_as_final(live: Server, path: str, status: int, message: str):
    workspace = await live.workspace()
    with pytest.raises(InvalidStatus) as refused:
        await live.open(path.format(agent=workspace.agent_id, other=uuid4()))
    body = json.loads(refused.value.response.body)
    assert refused.value.response.status_code == status
    assert body["message"] == message or not message
    assert "resume_token=bad" not in path or [each["field"] for each in body["validations"]] == ["resume_token"]


async def test_d_3_to_d_8_a_dial_from_its_first_call_to_its_end(live: Server):
    workspace = await live.workspace()
    async with agent_of(live, workspace) as agent, client_of(live, workspace) as client:
        of_agent = await coordinate(agent, messages.update_self(workspace.agent_id, agent=True))
        of_client = await coordinate(client, messages.add_tunnel(workspace.agent_id))
        found = await heard(client, of_client)  # the agent's node comes for the tunnel alone
        assert (UUID(bytes=found.id), found.kind) == (workspace.agent_id, Kinds.NODE)
        assert set(found.node.addresses) == {f"{each}/128" for each in agent_addresses(workspace.agent_id)}
        await client.message(of_client, messages.update_self(uuid4(), agent=False))
        told = await heard(agent, of_agent)
        ready = tp.CoordinateRequest()
        ready.ready_for_handshake.add(id=told.id)
        await agent.message(of_agent, ready)
        found = await heard(client, of_client)
        assert (UUID(bytes=found.id), found.kind) == (workspace.agent_id, Kinds.READY_FOR_HANDSHAKE)

        maps = await client.open(f"{TAILNET}StreamDERPMaps")
        await client.message(maps, tp.StreamDERPMapsRequest())
        assert (await client.answer(maps, tp.DERPMap)).regions
        token = await client.ask(
            f"{TAILNET}RefreshResumeToken", tp.RefreshResumeTokenRequest(), tp.RefreshResumeTokenResponse
        )
        assert 0 < token.refresh_in.seconds <= 86400
        await client.ask(f"{TAILNET}PostTelemetry", tp.TelemetryRequest(), tp.TelemetryResponse)

        await client.message(of_client, tp.CoordinateRequest(disconnect=tp.CoordinateRequest.Disconnect()))
        assert (await client.next(of_client)).kind == Kind.CLOSE
        await client.packet(maps, Kind.CLOSE)
        gone = await heard(agent, of_agent)
        assert (gone.id, gone.kind) == (told.id, Kinds.DISCONNECTED)
        client.websocket.transport.abort()  # as the recorded clients: no close frame
        await agent.ping()


async def test_5_2_to_5_8_what_ssh_asks(live: Server):
    workspace = await live.workspace()
    version = workspace.body["latest_build"]["template_version_id"]
    assert (await live.get(f"/templateversions/{version}"))["id"] == version
    assert await live.get(f"/workspaceagents/{workspace.agent_id}/logs") == []
    assert (await live.get("/workspaceagents/connection"))["derp_map"]["Regions"]
    assert (await live.get(f"/workspaces/{workspace.id}"))["id"] == workspace.id
    used = {"agent_id": str(workspace.agent_id), "app_name": "ssh"}
    assert (await live.call("POST", f"/workspaces/{workspace.id}/usage", json=used)).status_code == 204
    assert (await live.call("POST", f"/workspaces/{workspace.id}/usage")).status_code == 204


async def test_5_10_a_watched_workspace_pings_first_and_tells_its_state_at_once(live: Server):
    workspace = await live.workspace()
    async with live.http.stream("GET", f"/api/v2/workspaces/{workspace.id}/watch", headers=live.headers) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        lines = answer.aiter_lines()
        seen = [line async for line in _until_data(lines)]
    assert seen[0] == "event: ping"
    assert "event: data" in seen
    assert json.loads(seen[-1].removeprefix("data: "))["latest_build"]["transition"] == "start"


async def _until_data(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    async for line in lines:
        yield line
        if line.startswith("data: {"):
            return


async def test_9_and_10_what_other_commands_and_editors_ask_first(live: Server):
    workspace = await live.workspace()
    build = await live.get("/buildinfo")
    assert build["version"].startswith("v2.")
    assert (await live.get("/regions"))["regions"][0]["path_app_url"]
    options = (await live.get("/deployment/ssh"))["ssh_config_options"]
    assert isinstance(options, dict)
    watched = await live.open(f"/workspaces/{workspace.id}/watch-ws")
    kinds = [json.loads(await watched.recv())["type"] for _ in range(2)]
    await watched.close()
    assert "data" in kinds


async def test_11_a_page_signs_in_with_a_cookie(server: Server):
    server.headers.clear()
    login = {"email": "admin@example.com", "password": PASSWORD}
    answer = await server.call("POST", "/users/login", json=login)
    assert answer.status_code == 201
    assert "HttpOnly" in answer.headers["Set-Cookie"]
    for path in ("/users/me", "/experiments", "/regions", "/organizations"):
        assert (await server.call("GET", path)).status_code == 200
    wanted = {"checks": {"k": {"object": {"resource_type": "workspace", "owner_id": "me"}, "action": "read"}}}
    asked = await server.call(
        "POST", "/authcheck", json=wanted, headers={"Origin": str(server.http.base_url).rstrip("/")}
    )
    assert asked.json() == {"k": True}


async def refusal(socket: Socket, stream: int) -> str:
    """Return the words with which a coordination is refused; it must be over then."""
    answer = await socket.answer(stream, tp.CoordinateResponse)
    while not answer.error:
        answer = await socket.answer(stream, tp.CoordinateResponse)
    assert (await socket.next(stream)).kind in {Kind.CLOSE, Kind.CLOSE_SEND}
    return str(answer.error)


async def test_12_what_ends_the_coordination_of_a_peer_that_breaks_the_rules(live: Server):
    workspace = await live.workspace()
    async with client_of(live, workspace) as client:
        ready = tp.CoordinateRequest()
        ready.ready_for_handshake.add(id=workspace.agent_id.bytes)
        stream = await coordinate(client, messages.add_tunnel(workspace.agent_id), ready)
        assert "ready_for_handshake" in await refusal(client, stream)
    async with agent_of(live, workspace) as agent:
        stream = await coordinate(agent, messages.update_self(uuid4(), agent=True))
        assert "address" in await refusal(agent, stream)
