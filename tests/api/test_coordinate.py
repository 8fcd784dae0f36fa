"""The coordinate socket: who may have it, whom it introduces, how it ends."""

import contextlib
import json
from uuid import UUID, uuid4

import pytest
from google.protobuf.empty_pb2 import Empty
from sqlalchemy.exc import OperationalError
from websockets.exceptions import ConnectionClosed, InvalidStatus

from api import messages
from api.conftest import TOKEN_HEADER, Server
from api.messages import TAILNET, Update, coordinate
from coder.errors import RpcUnimplemented
from coder.wire.proto import tailnet_pb2 as pb


async def refusal(server: Server, path: str, headers: dict[str, str] | None = None) -> tuple[int, dict]:
    with pytest.raises(InvalidStatus) as refused:
        await server.open(path, headers)
    response = refused.value.response
    assert response.headers["Content-Type"].startswith("application/json")
    return response.status_code, json.loads(response.body)


async def test_a_message_in_thousands_of_parts_ends_its_connection_only(live: Server):
    workspace = await live.workspace()
    path = f"/workspaceagents/{workspace.agent_id}/coordinate?version=2.0"
    async with live.client(workspace):
        flooding = await live.open(path)
        with contextlib.suppress(ConnectionClosed):
            await flooding.send([b"x"] * 5000)
        await flooding.wait_closed()
        assert flooding.close_code == 1008
        patient = await live.open(path)
        await patient.send([b""] * 5000)
        await patient.close()


async def test_both_ends_of_a_tunnel_learn_of_each_other(live: Server):
    workspace = await live.workspace()
    async with live.agent(workspace) as agent, coordinate(agent) as of_agent:
        await of_agent.send(messages.update_self(workspace.agent_id, agent=True))
        async with live.client(workspace) as client, coordinate(client) as of_client:
            me = uuid4()
            await of_client.send(messages.add_tunnel(workspace.agent_id))
            [update] = (await anext(of_client)).peer_updates
            assert (UUID(bytes=update.id), update.kind) == (workspace.agent_id, Update.NODE)
            await of_client.send(messages.update_self(me, agent=False))
            [seen] = (await anext(of_agent)).peer_updates
            assert seen.node == messages.node(me, agent=False)
            ready = pb.CoordinateRequest.ReadyForHandshake(id=seen.id)
            await of_agent.send(pb.CoordinateRequest(ready_for_handshake=[ready]))
            [handshake] = (await anext(of_client)).peer_updates
            assert (handshake.id, handshake.kind) == (workspace.agent_id.bytes, Update.READY_FOR_HANDSHAKE)
            await of_client.send(pb.CoordinateRequest(disconnect=pb.CoordinateRequest.Disconnect()))
            with pytest.raises(StopAsyncIteration):
                await anext(of_client)
        [gone] = (await anext(of_agent)).peer_updates
        assert (gone.id, gone.kind) == (seen.id, Update.DISCONNECTED)


async def test_a_client_that_vanishes_is_lost(live: Server):
    workspace = await live.workspace()
    async with live.agent(workspace) as agent, coordinate(agent) as of_agent:
        async with live.client(workspace) as client, coordinate(client) as of_client:
            await of_client.send(messages.add_tunnel(workspace.agent_id))
            await of_client.send(messages.update_self(uuid4(), agent=False))
            assert (await anext(of_agent)).peer_updates[0].kind == Update.NODE
        assert (await anext(of_agent)).peer_updates[0].kind == Update.LOST


async def test_what_an_agent_measured_is_shown_by_region_name(live: Server):
    workspace = await live.workspace()
    async with live.agent(workspace) as agent, coordinate(agent) as of_agent:
        await of_agent.send(messages.update_self(workspace.agent_id, agent=True))
        async with live.client(workspace) as client, coordinate(client) as of_client:
            await of_client.send(messages.add_tunnel(workspace.agent_id))
            await anext(of_client)
        shown = await live.get(f"/workspaceagents/{workspace.agent_id}")
    assert shown["latency"] == {"Coder Embedded Relay": {"preferred": True, "latency_ms": 4.0}}


@pytest.mark.parametrize(
    "request_",
    [
        messages.add_tunnel(uuid4()),
        pb.CoordinateRequest(ready_for_handshake=[pb.CoordinateRequest.ReadyForHandshake(id=uuid4().bytes)]),
    ],
)
async def test_what_a_client_may_not_ask_ends_its_coordination(live: Server, request_: pb.CoordinateRequest):
    workspace = await live.workspace()
    async with live.client(workspace) as client, coordinate(client) as call:
        await call.send(request_)
        assert (await anext(call)).error.startswith("authorization: ")
        with pytest.raises(StopAsyncIteration):
            await anext(call)


@pytest.mark.parametrize("addresses", [["fd7a:115c:a1e0::1/128"], ["::/0"], ["0.0.0.0/0"], ["::ffff:10.0.0.1/128"]])
async def test_an_agent_announces_only_its_own_addresses(live: Server, addresses: list[str]):
    workspace = await live.workspace()
    request = messages.update_self(workspace.agent_id, agent=True)
    for field in (request.update_self.node.addresses, request.update_self.node.allowed_ips):
        field[:] = addresses
    async with live.agent(workspace) as agent, coordinate(agent) as call:
        await call.send(request)
        assert (await anext(call)).error.startswith("authorization: ")


async def test_an_agent_that_draws_anothers_traffic_is_refused(live: Server):
    workspace, other = await live.workspace("a"), await live.workspace("b")
    request = messages.update_self(workspace.agent_id, agent=True)
    request.update_self.node.allowed_ips[:] = messages.node(other.agent_id, agent=True).addresses
    async with live.agent(workspace) as agent, coordinate(agent) as call:
        await call.send(request)
        assert "allowed_ips" in (await anext(call)).error


async def test_the_map_comes_at_once_and_again_when_it_changes(live: Server):
    workspace = await live.workspace()
    maps = live.deployment.maps
    async with live.client(workspace) as client:
        stream = client.stream(f"{TAILNET}StreamDERPMaps", pb.StreamDERPMapsRequest(), pb.DERPMap)
        async with stream as call:
            first = await anext(call)
            assert first.HasField("home_params")
            assert 999 in first.regions
            maps.replace(maps.current)  # the same again: nobody hears of it
            maps.replace(maps.current.with_regions([(7, maps.current.regions[999])]))
            assert list((await anext(call)).regions) == [7]


async def test_the_map_socket_sends_json(live: Server):
    socket = await live.open("/derp-map")
    first = await socket.recv()
    assert isinstance(first, bytes)
    assert json.loads(first) == live.deployment.maps.json()
    maps = live.deployment.maps
    maps.replace(maps.current.with_regions([(7, maps.current.regions[999])]))
    assert list(json.loads(await socket.recv())["Regions"]) == ["7"]
    await socket.close()


async def test_a_resume_token_gives_the_peer_its_id_back(live: Server):
    workspace = await live.workspace()
    async with live.agent(workspace) as agent, coordinate(agent) as of_agent:
        async with live.client(workspace) as client:
            issued = await client.unary(
                f"{TAILNET}RefreshResumeToken", pb.RefreshResumeTokenRequest(), pb.RefreshResumeTokenResponse
            )
            assert (issued.refresh_in.seconds, issued.expires_at.seconds > 0) == (12 * 3600, True)
            first = await _introduced(client, workspace.agent_id, of_agent)
        assert (await anext(of_agent)).peer_updates[0].kind == Update.LOST
        path = f"/workspaceagents/{workspace.agent_id}/coordinate?version=2.0&resume_token={issued.token}"
        async with live.calls(path) as client:
            assert await _introduced(client, workspace.agent_id, of_agent) == first


async def _introduced(client, agent: UUID, of_agent) -> bytes:
    """Tunnel to the agent and return the id it is told."""
    async with coordinate(client) as call:
        await call.send(messages.add_tunnel(agent))
        await call.send(messages.update_self(uuid4(), agent=False))
        return (await anext(of_agent)).peer_updates[0].id


@pytest.mark.parametrize("token", ["x", "a.b.c", "e30.e30.e30", "x" * 2000])
async def test_a_bad_resume_token_is_401_and_named_as_the_reason(live: Server, token: str):
    workspace = await live.workspace()
    path = f"/workspaceagents/{workspace.agent_id}/coordinate?version=2.0&resume_token={token}"
    if token == "e30.e30.e30":  # names no key: a fresh peer
        async with live.calls(path) as client:
            await client.unary(f"{TAILNET}PostTelemetry", pb.TelemetryRequest(), pb.TelemetryResponse)
        return
    status, body = await refusal(live, path)
    assert status == 401
    assert [each["field"] for each in body["validations"]] == ["resume_token"]


async def test_the_checks_come_in_the_order_that_clients_know(live: Server, monkeypatch: pytest.MonkeyPatch):
    """Database, permission, version, resume token: the first that fails answers."""
    workspace = await live.workspace()
    bob = await live.member("bob")
    bad = f"/workspaceagents/{workspace.agent_id}/coordinate?version=9.9&resume_token=x"
    assert (await refusal(live, bad))[1]["message"] == "Unknown or unsupported API version"
    assert (await refusal(live, bad, bob.headers))[0] == 404
    assert (await refusal(live, f"/workspaceagents/{uuid4()}/coordinate?version=9.9"))[0] == 404
    assert (await refusal(live, bad, {}))[0] == 401
    assert (await refusal(live, f"/workspaceagents/{workspace.agent_id}/coordinate"))[0] == 400  # no version is 1.0
    assert (await refusal(live, "/workspaceagents/x/coordinate"))[0] == 400

    async def gone(_store: object) -> None:
        raise OperationalError("SELECT 1", {}, Exception("disk"))

    monkeypatch.setattr("coder.db.store.SqliteStore.ping", gone)
    assert await refusal(live, bad, bob.headers) == (500, {"message": "database not reachable"})


async def test_calls_that_are_not_served_say_so_with_code_12(live: Server):
    workspace = await live.workspace()
    async with live.client(workspace) as client:
        for name in (f"{TAILNET}WorkspaceUpdates", f"{messages.AGENT}GetManifest"):
            with pytest.raises(RpcUnimplemented):
                await client.unary(name, Empty(), Empty)


@pytest.mark.parametrize("how", ["logout", "delete token", "suspend", "delete workspace"])
async def test_what_takes_the_right_away_ends_the_socket(live: Server, how: str):
    bob = await live.member("bob")
    workspace = await bob.workspace()
    path = f"/workspaceagents/{workspace.agent_id}/coordinate?version=2.0"
    key = bob.headers[TOKEN_HEADER].partition("-")[0]
    async with live.calls(path, bob.headers) as client:
        await client.unary(f"{TAILNET}PostTelemetry", pb.TelemetryRequest(), pb.TelemetryResponse)
        await {
            "logout": lambda: bob.call("POST", "/users/logout"),
            "delete token": lambda: bob.call("DELETE", f"/users/me/keys/{key}"),
            "suspend": lambda: live.call("PUT", "/users/bob/status/suspend"),
            "delete workspace": lambda: bob.call("DELETE", f"/workspaces/{workspace.id}"),
        }[how]()
        await client.wait_closed()


async def test_an_open_socket_ends_with_its_token(live: Server):
    workspace = await live.workspace()
    made = await live.call("POST", "/users/me/keys/tokens", json={"lifetime": 90 * 10**9})
    path = f"/workspaceagents/{workspace.agent_id}/coordinate?version=2.0"
    async with live.calls(path, {TOKEN_HEADER: made.json()["key"]}) as client:
        await client.unary(f"{TAILNET}PostTelemetry", pb.TelemetryRequest(), pb.TelemetryResponse)
        await live.clock.advance(60)
        await client.unary(f"{TAILNET}PostTelemetry", pb.TelemetryRequest(), pb.TelemetryResponse)
        await live.clock.advance(60)
        await client.wait_closed()


async def test_a_stopping_server_says_goodbye(live: Server):
    workspace = await live.workspace()
    async with live.client(workspace) as client, coordinate(client) as call:
        await call.send(messages.add_tunnel(workspace.agent_id))
        await client.unary(f"{TAILNET}PostTelemetry", pb.TelemetryRequest(), pb.TelemetryResponse)
        live.deployment.introductions.shutdown()
        assert (await anext(call)).error == "coordinator closed"
        await live.deployment.sockets.stop(5)
        await client.wait_closed()
    assert live.deployment.sockets.count(workspace.agent_id) == 0


async def test_a_stopping_server_lets_nobody_in(live: Server):
    workspace = await live.workspace()
    await live.deployment.sockets.stop(0)
    agent = {TOKEN_HEADER: workspace.agent_token}
    for path, headers in (
        (f"/workspaceagents/{workspace.agent_id}/coordinate?version=2.0", None),
        ("/derp-map", None),
        ("/workspaceagents/me/rpc", agent),
    ):
        assert (await refusal(live, path, headers))[0] == 503
