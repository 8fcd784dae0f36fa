"""The sockets of users that are not for one agent: introductions to all of them, followed logs, watched workspaces."""

import json
from uuid import UUID, uuid4

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from websockets.exceptions import ConnectionClosedOK, InvalidStatus

from api import messages
from api.conftest import TOKEN_HEADER, Server, Workspace
from api.messages import TAILNET, Update, ask, coordinate
from coder.errors import RpcError, RpcUnimplemented
from coder.server.routes import network
from coder.wire.proto import agent_pb2
from coder.wire.proto import tailnet_pb2 as pb


def updates(client, owner: UUID):
    request = pb.WorkspaceUpdatesRequest(workspace_owner_id=owner.bytes)
    return client.stream(f"{TAILNET}WorkspaceUpdates", request, pb.WorkspaceUpdate)


async def my_id(server: Server) -> UUID:
    return UUID((await server.get("/users/me"))["id"])


async def test_one_socket_reaches_every_agent_of_its_user(live: Server):
    first, second = await live.workspace("one"), await live.workspace("two")
    async with live.calls("/tailnet?version=2.3") as client, coordinate(client) as call:
        await call.send(messages.update_self(uuid4(), agent=False))
        for workspace in (first, second):
            await call.send(messages.add_tunnel(workspace.agent_id))
            async with live.agent(workspace) as agent, coordinate(agent) as of_agent:
                await of_agent.send(messages.update_self(workspace.agent_id, agent=True))
                assert (await anext(of_agent)).peer_updates[0].kind == Update.NODE
                [update] = (await anext(call)).peer_updates
                assert (UUID(bytes=update.id), update.kind) == (workspace.agent_id, Update.NODE)
            assert (await anext(call)).peer_updates[0].kind == Update.LOST


@pytest.mark.parametrize("whose", ["nobody", "another"])
async def test_it_reaches_no_agent_of_anybody_else(live: Server, whose: str):
    member = await live.member("bob")
    wanted = uuid4() if whose == "nobody" else (await live.workspace()).agent_id
    async with member.calls("/tailnet?version=2.3") as client, coordinate(client) as call:
        await call.send(messages.add_tunnel(wanted))
        assert (await anext(call)).error.startswith("authorization: ")


async def test_an_owner_of_the_deployment_reaches_the_agents_of_members(live: Server):
    theirs = await (await live.member("bob")).workspace("bobs")
    async with live.calls("/tailnet") as client, coordinate(client) as call:
        await call.send(messages.add_tunnel(theirs.agent_id))
        async with live.agent(theirs) as agent, coordinate(agent) as of_agent:
            await of_agent.send(messages.update_self(theirs.agent_id, agent=True))
            assert (await anext(call)).peer_updates[0].kind == Update.NODE


async def test_workspaces_are_told_once_and_then_what_changed(live: Server):
    async with live.calls("/tailnet?version=2.3") as client, updates(client, await my_id(live)) as stream:
        assert await anext(stream) == pb.WorkspaceUpdate()
        workspace = await live.workspace()
        agent = pb.Agent(id=workspace.agent_id.bytes, name="main", workspace_id=UUID(workspace.id).bytes)
        row = pb.Workspace(id=UUID(workspace.id).bytes, name="dev", status=pb.Workspace.RUNNING)
        assert await anext(stream) == pb.WorkspaceUpdate(upserted_workspaces=[row], upserted_agents=[agent])
        await live.call("PATCH", f"/workspaces/{workspace.id}", json={"name": "new"})
        row.name = "new"
        assert await anext(stream) == pb.WorkspaceUpdate(upserted_workspaces=[row])
        await live.call("DELETE", f"/workspaces/{workspace.id}")
        row.status = pb.Workspace.DELETED
        assert await anext(stream) == pb.WorkspaceUpdate(deleted_workspaces=[row], deleted_agents=[agent])


async def test_a_member_hears_of_nobody_elses_workspaces(live: Server):
    owner = await my_id(live)
    member = await live.member("bob")
    async with member.calls("/tailnet?version=2.3") as client, updates(client, owner) as stream:
        with pytest.raises(RpcError, match="not your workspaces"):
            await anext(stream)


async def test_the_socket_of_one_agent_tells_no_workspaces(live: Server):
    async with live.client(await live.workspace()) as client, updates(client, await my_id(live)) as stream:
        with pytest.raises(RpcUnimplemented):
            await anext(stream)


async def test_a_resume_token_is_good_for_this_socket_too(live: Server):
    path = "/tailnet?version=2.3"
    async with live.calls(path) as client:
        token = await client.unary(
            f"{TAILNET}RefreshResumeToken", pb.RefreshResumeTokenRequest(), pb.RefreshResumeTokenResponse
        )
    async with live.calls(f"{path}&resume_token={token.token}") as client, coordinate(client) as call:
        await call.send(messages.add_tunnel(uuid4()))
        assert (await anext(call)).error.startswith("authorization: ")
    with pytest.raises(InvalidStatus) as refused:
        await live.open(f"{path}&resume_token=x.y.z")
    assert refused.value.response.status_code == 401


def printed(*lines: str) -> agent_pb2.BatchCreateLogsRequest:
    at = Timestamp(seconds=1_900_000_000)
    return agent_pb2.BatchCreateLogsRequest(
        log_source_id=uuid4().bytes, logs=[agent_pb2.Log(created_at=at, output=line) for line in lines]
    )


async def say(agent, *lines: str) -> None:
    await ask(agent, "BatchCreateLogs", printed(*lines), agent_pb2.BatchCreateLogsResponse)


def by_cookie(server: Server) -> dict[str, str]:
    """Commands that follow logs send their token as a cookie only."""
    return {"Cookie": f"coder_session_token={server.headers[TOKEN_HEADER]}"}


async def test_an_agents_logs_are_followed(live: Server):
    workspace = await live.workspace()
    async with live.agent(workspace) as agent:
        await say(agent, "one", "two")
        path = f"/workspaceagents/{workspace.agent_id}/logs?follow&after=0"
        async with await live.open(path, by_cookie(live)) as socket:
            lines = json.loads(await socket.recv())
            assert [line["output"] for line in lines] == ["one", "two"]
            await say(agent, "three")
            [line] = json.loads(await socket.recv())
            assert (line["output"], line["level"]) == ("three", "info")
        after = f"/workspaceagents/{workspace.agent_id}/logs?follow&after={line['id']}"
        async with await live.open(after, by_cookie(live)) as socket:
            await say(agent, "four")
            assert [each["output"] for each in json.loads(await socket.recv())] == ["four"]
            await live.call("DELETE", f"/workspaces/{workspace.id}")
            with pytest.raises(ConnectionClosedOK):
                await socket.recv()


async def test_a_finished_builds_logs_end_at_once(live: Server):
    build = (await live.workspace()).body["latest_build"]["id"]
    async with await live.open(f"/workspacebuilds/{build}/logs?follow", by_cookie(live)) as socket:
        with pytest.raises(ConnectionClosedOK):
            await socket.recv()


async def test_a_workspace_is_watched_over_a_websocket(live: Server):
    workspace = await live.workspace()
    async with await live.open(f"/workspaces/{workspace.id}/watch-ws") as socket:
        assert json.loads(await socket.recv()) == {"type": "ping", "data": None}
        assert await state(socket) == ("data", "connecting")
        async with live.agent(workspace):
            assert await state(socket) == ("data", "connected")
        assert await state(socket) == ("data", "disconnected")
        await live.clock.advance(15)
        assert json.loads(await socket.recv())["type"] == "ping"
        await live.call("POST", "/users/logout")
        with pytest.raises(ConnectionClosedOK):
            await socket.recv()


async def state(socket) -> tuple[str, str]:
    event = json.loads(await socket.recv())
    return event["type"], event["data"]["latest_build"]["resources"][0]["agents"][0]["status"]


async def test_a_watch_that_fails_says_so_and_ends(live: Server, monkeypatch: pytest.MonkeyPatch):
    workspace = await live.workspace()
    async with await live.open(f"/workspaces/{workspace.id}/watch-ws") as socket:
        await socket.recv()
        await socket.recv()

        async def gone(*_args):
            return None

        monkeypatch.setattr("coder.server.routes.workspaces.workspaces.get", gone)
        live.deployment.changes.announce(UUID(workspace.id))
        event = json.loads(await socket.recv())
        assert event["type"] == "error"
        assert event["data"]["message"]
        with pytest.raises(ConnectionClosedOK):
            await socket.recv()


SOCKETS = (
    "/tailnet",
    "/derp-map",
    "/workspaceagents/me/rpc",
    "/workspaceagents/{agent}/coordinate",
    "/workspaceagents/{agent}/logs?follow",
    "/workspaces/{workspace}/watch-ws",
    "/workspacebuilds/{build}/logs?follow",
)


def filled(path: str, workspace: Workspace) -> str:
    build = workspace.body["latest_build"]["id"]
    return path.format(agent=workspace.agent_id, workspace=workspace.id, build=build)


@pytest.mark.parametrize("path", SOCKETS)
async def test_a_plain_request_to_a_socket_is_told_so_once_it_is_known_who_asks(server: Server, path: str):
    workspace = await server.workspace()
    token = workspace.agent_token if path == "/workspaceagents/me/rpc" else server.headers[TOKEN_HEADER]
    path = filled(path, workspace)
    anonymous = await server.call("GET", path, headers={TOKEN_HEADER: ""})
    assert anonymous.status_code == 401
    told = await server.call("GET", path, headers={TOKEN_HEADER: token})
    assert (told.status_code, told.headers["Upgrade"]) == (426, "websocket")
    assert told.json()["message"]


@pytest.mark.parametrize("path", SOCKETS)
async def test_no_socket_opens_with_the_other_kind_of_token(live: Server, path: str):
    workspace = await live.workspace()
    wrong = live.headers[TOKEN_HEADER] if path == "/workspaceagents/me/rpc" else workspace.agent_token
    for headers in ({TOKEN_HEADER: wrong}, {"Cookie": f"coder_session_token={wrong}"}, {}):
        with pytest.raises(InvalidStatus) as refused:
            await live.open(filled(path, workspace), headers)
        assert refused.value.response.status_code == 401
        assert json.loads(refused.value.response.body)["message"]


@pytest.mark.parametrize(
    "path", ["/derp-map", "/workspaceagents/{agent}/logs?follow", "/workspaces/{workspace}/watch-ws"]
)
async def test_what_is_followed_ends_with_the_token_it_was_opened_with(live: Server, path: str):
    workspace = await live.workspace()
    made = await live.call("POST", "/users/me/keys/tokens", json={"lifetime": 90 * 10**9})
    async with await live.open(filled(path, workspace), {TOKEN_HEADER: made.json()["key"]}) as socket:
        await (await socket.ping())
        await live.clock.advance(60)
        await (await socket.ping())
        await live.clock.advance(60)
        async for _ in socket:
            pass
        assert socket.close_code == 1000


@pytest.mark.parametrize(("path", "sent"), [("/debug/ws", b"bytes"), ("/speedtest?direction=up", "text")])
async def test_a_measuring_socket_that_is_sent_something_else_is_closed(live: Server, path: str, sent: str | bytes):
    client = await live.open(path)
    await client.send(sent)
    with pytest.raises(ConnectionClosedOK):
        await client.recv()
    assert not live.deployment.speedtests


@pytest.mark.parametrize("path", ["/debug/ws", "/speedtest?direction=up"])
async def test_a_measuring_socket_on_which_nothing_comes_is_closed(
    live: Server, path: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(network, "_ECHO_PATIENCE", 0.01)
    monkeypatch.setattr(network, "SPEEDTEST_SECONDS", 0.01)
    client = await live.open(path)
    with pytest.raises(ConnectionClosedOK):
        await client.recv()
    assert not live.deployment.speedtests


async def test_nobody_unknown_makes_us_hold_a_large_message(live: Server):
    echo = await live.open("/debug/ws?/rpc", {})
    await echo.send("x" * 70_000)
    await echo.wait_closed()
    assert echo.close_code == 1009  # RFC 6455, section 7.4.1


async def test_one_user_has_only_so_many_connections(live: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("coder.server.routes.tailnet.MOST_OF_USER", 2)
    monkeypatch.setattr("coder.server.routes.agent_self.MOST_OF_AGENTS", 1)
    workspace = await live.workspace()
    path = f"/workspaceagents/{workspace.agent_id}/coordinate?version=2.0"
    first, _second = await live.open("/derp-map"), await live.open(path)
    for refused in (path, "/tailnet?version=2.0"):
        with pytest.raises(InvalidStatus) as answer:
            await live.open(refused)
        assert answer.value.response.status_code == 429
    other = await (await live.member("bob")).open("/tailnet?version=2.0")
    await other.close()
    async with live.agent(workspace):
        agent = {TOKEN_HEADER: workspace.agent_token}
        with pytest.raises(InvalidStatus) as answer:
            await live.open("/workspaceagents/me/rpc?version=2.0&role=another", agent)
        assert answer.value.response.status_code == 429
    await first.close()
