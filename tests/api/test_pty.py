"""Terminals through the server: who gets one, what passes, and at whose pace."""

import asyncio
import json
import socket
from contextlib import ExitStack, asynccontextmanager
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select
from websockets.exceptions import ConnectionClosed, InvalidStatus

from api.conftest import TOKEN_HEADER, URL, Server
from coder.db import agents
from coder.db.models import ConnectionLog
from coder.errors import TimedOut
from coder.server import connection_reports
from coder.server.node import AgentAway
from coder.server.routes.pty import MOST_OF_ONE
from coder.server.terminals import WINDOW
from coder.wire.proto import agent_pb2

ID = str(uuid4())
PATIENCE = 20


class Agent:
    """The agent's end of the streams the server's node opens."""

    def __init__(self):
        self.streams = []
        self.asked = []
        self.refusal = None

    @asynccontextmanager
    async def stream(self, agent_id, port):
        self.asked.append((agent_id, port))
        if self.refusal is not None:
            raise self.refusal
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.streams.append(theirs)
        with ours:
            yield ours

    async def first(self):
        async with asyncio.timeout(PATIENCE):
            stream = self.streams[-1]
            loop = asyncio.get_running_loop()
            size = int.from_bytes(await loop.sock_recv(stream, 2), "little")
            return json.loads(await loop.sock_recv(stream, size))


@pytest.fixture
def agent(live: Server, monkeypatch: pytest.MonkeyPatch):
    made = Agent()
    monkeypatch.setattr(live.deployment.node, "stream", made.stream)
    yield made
    for each in made.streams:
        each.close()


@pytest.fixture
async def workspace(live: Server):
    made = await live.workspace()
    async with live.agent(made):
        yield made


def path(workspace, **query):
    query = {"reconnect": ID, "height": "40", "width": "120"} | query
    text = "&".join(f"{key}={value}" for key, value in query.items() if value is not None)
    return f"/workspaceagents/{workspace.agent_id}/pty?{text}"


async def status(opening):
    with pytest.raises(InvalidStatus) as caught:
        await opening
    return caught.value.response.status_code


async def test_bytes_pass_both_ways_after_the_first_message(live, agent, workspace):
    client = await live.open(path(workspace, command="htop"))
    assert await agent.first() == {
        "ID": ID,
        "Height": 40,
        "Width": 120,
        "Command": "htop",
        "Container": "",
        "ContainerUser": "",
        "BackendType": "",
    }
    assert agent.asked == [(workspace.agent_id, 2)]
    loop, [stream] = asyncio.get_running_loop(), agent.streams
    await client.send(b'{"data":"ls\\r"}')
    assert await loop.sock_recv(stream, 99) == b'{"data":"ls\\r"}'
    stream.send(b"\xff\x00bin")
    assert await client.recv() == b"\xff\x00bin"
    stream.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionClosed) as closed:
        await client.recv()
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1000, "the program has ended")


async def test_the_stream_ends_with_the_browser(live, agent, workspace):
    client = await live.open(path(workspace))
    await agent.first()
    await client.close()
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.get_running_loop().sock_recv(agent.streams[0], 99) == b""


async def test_a_workspace_with_an_open_terminal_is_in_use(live, agent, workspace):
    async def stops_at():
        return (await live.get(f"/workspaces/{workspace.id}"))["latest_build"]["deadline"]

    assert (await live.call("PUT", f"/workspaces/{workspace.id}/ttl", json={"ttl_ms": 3_600_000})).status_code == 204
    before = await stops_at()
    client = await live.open(path(workspace))
    await agent.first()
    await live.clock.advance(45 * 60)
    async with asyncio.timeout(PATIENCE):
        while await stops_at() == before:
            pass
    await client.close()


async def test_who_is_signed_out_gets_none(live, agent, workspace):
    assert await status(live.open(path(workspace), {})) == 401
    assert agent.asked == []


@pytest.mark.parametrize("origin", ["https://evil.example", "null", URL + ".evil.example", "http://coder.test"])
async def test_another_sites_page_gets_none_by_the_cookie(live, agent, workspace, origin):
    cookie = {"Cookie": f"coder_session_token={live.headers[TOKEN_HEADER]}", "Origin": origin}
    assert await status(live.open(path(workspace), cookie)) == 403
    assert agent.asked == []


async def test_our_own_page_gets_one_by_the_cookie(live, agent, workspace):
    cookie = {"Cookie": f"coder_session_token={live.headers[TOKEN_HEADER]}", "Origin": URL}
    client = await live.open(path(workspace), cookie)
    await agent.first()
    await client.close()


async def test_nobody_gets_anothers(live, agent, workspace):
    member = await live.member("bob")
    assert await status(member.open(path(workspace))) == 404
    assert agent.asked == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"reconnect": None}, "reconnect"),
        ({"reconnect": "nope"}, "reconnect"),
        ({"height": "0"}, "height"),
        ({"width": "70000"}, "width"),
        ({"width": "-1"}, "width"),
        ({"command": "x" * 5000}, "command"),
        ({"backend_type": "tmux"}, "backend_type"),
    ],
)
async def test_wrong_parameters_are_named(live, agent, workspace, query, field):
    with pytest.raises(InvalidStatus) as caught:
        await live.open(path(workspace, **query))
    assert caught.value.response.status_code == 400
    assert [each["field"] for each in json.loads(caught.value.response.body)["validations"]] == [field]


async def test_an_agent_that_is_not_connected_is_no_upgrade(live, agent):
    assert await status(live.open(path(await live.workspace()))) == 502


@pytest.mark.parametrize("refusal", [AgentAway("the agent is not connected"), TimedOut("the agent does not answer")])
async def test_an_agent_that_cannot_be_reached_is_said(live, agent, workspace, refusal):
    agent.refusal = refusal
    client = await live.open(path(workspace))
    with pytest.raises(ConnectionClosed) as closed:
        await client.recv()
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1011, f"dial workspace agent: {refusal}")


@pytest.mark.parametrize("text", ["{}", '{"shown":1}', '{"shown":-1}', '{"shown":true}', "x" * 99, "null"])
@pytest.mark.parametrize("flow", ["1", None])
async def test_text_that_makes_no_sense_ends_it(live, agent, workspace, text, flow):
    client = await live.open(path(workspace, flow=flow))
    await client.send(text)
    with pytest.raises(ConnectionClosed) as closed:
        await client.recv()
    assert closed.value.rcvd.code == 1003


async def test_a_page_never_has_more_than_a_window_to_show_and_the_agent_waits(live, agent, workspace):
    client = await live.open(path(workspace, flow="1"), max_queue=None)
    await agent.first()
    loop, [stream] = asyncio.get_running_loop(), agent.streams
    total = 4 * WINDOW
    printing = asyncio.ensure_future(loop.sock_sendall(stream, b"x" * total))
    got = 0
    async with asyncio.timeout(PATIENCE):
        while got < WINDOW:
            got += len(await client.recv())
    assert got < WINDOW + (64 << 10)
    other = await live.open(path(workspace, reconnect=str(uuid4())))  # which nobody holds up
    await agent.first()
    agent.streams[1].send(b"quick")
    assert await other.recv() == b"quick"
    await other.close()
    assert not printing.done()
    async with asyncio.timeout(PATIENCE):
        while got < total:
            await client.send(json.dumps({"shown": got}))
            got += len(await client.recv())
        await printing
    assert got == total
    await client.close()


async def test_a_user_has_only_so_many(live, agent, workspace):
    me = await live.get("/users/me")
    with ExitStack() as others:
        for _ in range(MOST_OF_ONE):
            others.enter_context(live.deployment.terminals.opened(uuid4(), UUID(me["id"]), "admin"))
        assert await status(live.open(path(workspace))) == 429


async def test_a_report_of_our_own_node_is_of_the_user_who_has_it_open(live, workspace):
    report = agent_pb2.Connection(
        id=uuid4().bytes,
        action=agent_pb2.Connection.CONNECT,
        type=agent_pb2.Connection.RECONNECTING_PTY,
        ip=live.deployment.node.address,
    )
    bob = uuid4()
    identity = await identity_of(live, workspace)
    with live.deployment.terminals.opened(workspace.agent_id, bob, "bob"):
        await connection_reports.store(live.deployment, identity, UUID(bytes=report.id), report)
        report.id = uuid4().bytes
        with live.deployment.terminals.opened(workspace.agent_id, uuid4(), "eve"):
            await connection_reports.store(live.deployment, identity, UUID(bytes=report.id), report)
    async with live.deployment.store.read() as session:
        names = (await session.scalars(select(ConnectionLog.username))).all()
    assert sorted(names) == ["", "bob"]  # two at once: nobody can say whose it is


async def identity_of(live, workspace):
    async with live.deployment.store.read() as session:
        return await agents.get(session, workspace.agent_id)


async def test_a_terminal_ends_with_the_session(live, agent, workspace):
    member = await live.member("bob")
    theirs = await member.workspace("bobs")
    async with member.agent(theirs):
        client = await member.open(path(theirs))
        await agent.first()
        assert (await member.call("POST", "/users/logout")).status_code == 200
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
        assert closed.value.rcvd.code == 1001
    assert live.deployment.terminals.user_at(theirs.agent_id) is None


async def test_a_plain_request_is_told_so(live, workspace):
    assert (await live.call("GET", path(workspace))).status_code == 426
