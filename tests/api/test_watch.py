"""Streams of server-sent events."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from api import messages
from api.conftest import Server
from api.messages import ask
from coder.wire.proto import agent_pb2 as pb


@asynccontextmanager
async def events(server: Server, path: str, **headers: str) -> AsyncIterator[AsyncIterator[tuple[str, str]]]:
    url = f"/api/v2{path}"
    async with server.http.stream("GET", url, headers=headers or server.headers, timeout=30) as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["X-Accel-Buffering"] == "no"
        yield _parsed(answer.aiter_lines())


async def _parsed(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, str]]:
    kind, data = "", ""
    async for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            data = value
        elif not line:
            yield kind, data
            kind, data = "", ""


async def test_watch_pings_then_tells_the_state_and_every_change(live: Server):
    workspace = await live.workspace()
    async with events(live, f"/workspaces/{workspace.id}/watch") as stream:
        assert (await anext(stream))[0] == "ping"
        kind, data = await anext(stream)
        assert kind == "data"
        assert json.loads(data)["latest_build"]["id"] == workspace.body["latest_build"]["id"]
        async with live.agent(workspace) as agent:
            assert await _agent(stream) == ("connected", "created")
            await ask(agent, "UpdateLifecycle", messages.lifecycle(pb.Lifecycle.READY), pb.Lifecycle)
            assert await _agent(stream) == ("connected", "ready")
        assert await _agent(stream) == ("disconnected", "ready")
        await live.call("PATCH", f"/workspaces/{workspace.id}", json={"name": "new"})
        assert json.loads((await anext(stream))[1])["name"] == "new"
        await live.clock.advance(15)
        assert (await anext(stream))[0] == "ping"


async def _agent(stream: AsyncIterator[tuple[str, str]]) -> tuple[str, str]:
    agent = json.loads((await anext(stream))[1])["latest_build"]["resources"][0]["agents"][0]
    return agent["status"], agent["lifecycle_state"]


async def test_logout_ends_a_watch(live: Server):
    workspace = await live.workspace()
    async with events(live, f"/workspaces/{workspace.id}/watch") as stream:
        await anext(stream)
        await anext(stream)
        await live.call("POST", "/users/logout")
        assert [event async for event in stream] == []


async def test_reinit_holds_a_stream_that_only_pings(live: Server):
    workspace = await live.workspace()
    token = {"Coder-Session-Token": workspace.agent_token}
    async with events(live, "/workspaceagents/me/reinit?wait=true", **token) as stream:
        assert (await anext(stream))[0] == "ping"
        await live.clock.advance(15)
        assert (await anext(stream))[0] == "ping"
        await live.call("DELETE", f"/workspaces/{workspace.id}")
        assert [event async for event in stream] == []
