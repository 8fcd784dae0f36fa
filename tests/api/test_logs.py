"""The audit log and the connection log."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.exc import OperationalError

from api.conftest import PASSWORD, Server, Workspace
from coder.db import logs
from coder.db.models import ConnectionLog
from coder.rpc.client import RpcClient
from coder.server import pruning
from coder.server.app import ROUTERS
from coder.server.audit import RECORDED, UNRECORDED
from coder.wire.proto import agent_pb2 as pb
from coder.wire.proto import tailnet_pb2 as tailnet

REPORT = "/coder.agent.v2.Agent/ReportConnection"
COORDINATE = "/coder.tailnet.v2.Tailnet/Coordinate"
SSH, CONNECT, DISCONNECT = pb.Connection.SSH, pb.Connection.CONNECT, pb.Connection.DISCONNECT


async def entries(server: Server, query: str = "", **options: Any) -> list[dict[str, Any]]:
    return (await server.get("/audit", params={"q": query, **options}))["audit_logs"]


async def brief(server: Server, query: str = "") -> list[tuple[str, str, str, int]]:
    found = await entries(server, query)
    return [(each["action"], each["resource_type"], each["resource_target"], each["status_code"]) for each in found]


def test_every_route_that_changes_something_is_in_the_audit_log_or_says_why_not():
    changing = {
        (method, route.path)
        for router, _ in ROUTERS
        for route in router.routes
        for method in getattr(route, "methods", None) or ()
        if method not in {"GET", "HEAD"}
    }
    recorded = {(method, path) for method, path in RECORDED if method != "GET"}  # a provider sends browsers back by GET
    assert changing == recorded | UNRECORDED


async def test_it_says_who_did_what_to_what_and_with_which_result(server: Server):
    bob = await server.member("bob")
    workspace = await bob.workspace("dev")
    await bob.call("POST", "/users/me/keys/tokens", json={"token_name": "ci"})
    await bob.call("DELETE", "/users/admin")
    await server.call("PUT", "/users/bob/status/suspend")
    await bob.call("POST", "/users/login", json={"email": "bob@example.com", "password": "wrong"})
    await server.call("DELETE", f"/workspaces/{workspace.id}")
    everything = [
        ("delete", "workspace", "dev", 204),
        ("login", "api_key", "bob@example.com", 401),
        ("write", "user", "bob", 200),
        ("delete", "user", "", 404),
        ("create", "api_key", "ci", 201),
        ("create", "workspace", "dev", 201),
        ("login", "api_key", "bob@example.com", 201),
        ("create", "user", "bob", 201),
        ("login", "api_key", "admin@example.com", 201),
        ("register", "user", "admin", 201),
    ]
    assert sorted(await brief(server)) == sorted(everything)
    [first] = await entries(server, "action:delete resource_type:workspace")
    assert (first["user"]["username"], first["resource_id"], first["ip"]) == ("admin", workspace.id, "127.0.0.1")
    assert datetime.fromisoformat(first["time"]) == server.clock.now()
    assert UUID(first["request_id"])
    await server.call("PUT", "/users/bob/roles", json={"roles": ["auditor"]})
    changes = {each["additional_fields"]["detail"] for each in await entries(server, "resource_type:user action:write")}
    assert changes == {"status: suspended", "roles: auditor"}


async def test_it_is_searched_and_read_by_pages(server: Server):
    bob = await server.member("bob")
    await bob.call("DELETE", "/users/admin")
    assert {action for action, *_ in await brief(server, "username:BOB")} == {"delete", "login"}
    assert await brief(server, "success:false") == [("delete", "user", "", 404)]
    assert len(await brief(server, "action:login resource_type:api_key")) == 2
    today = server.clock.now().date()
    assert len(await brief(server, f"date_from:{today} date_to:{today}")) == 5
    assert await brief(server, f"date_from:{today + timedelta(days=1)}") == []
    assert await brief(server, f"username:me date_to:{today - timedelta(days=1)}") == []
    page = await server.get("/audit?limit=2&offset=4")
    assert (len(page["audit_logs"]), page["count"]) == (1, 5)


@pytest.mark.parametrize("query", ["x:y", "date_from:soon", "success:maybe", "word", "date_to:9999-12-31", 'a:"b'])
@pytest.mark.parametrize("path", ["/audit", "/connectionlog"])
async def test_a_search_that_cannot_be_read_is_refused(server: Server, path: str, query: str):
    assert (await server.call("GET", path, params={"q": query})).status_code == 400


async def test_nothing_secret_and_nothing_of_strangers_gets_in(server: Server):
    await server.call("PUT", "/users/me/password", json={"old_password": PASSWORD, "password": PASSWORD + "2"})
    stranger = {"headers": {"Coder-Session-Token": "x"}}
    assert (await server.call("DELETE", "/users/admin", **stranger)).status_code == 401
    long = {"email": f"{'x' * 250}@a", "password": "wrong"}
    await server.call("POST", "/users/login", json=long, headers={"User-Agent": "y" * 5000})
    [newest] = await entries(server, "success:false")
    [change] = await entries(server, "resource_type:user action:write")
    assert (len(newest["resource_target"]), len(newest["user_agent"])) == (252, 256)
    assert newest["user"] is None
    assert (change["additional_fields"], change["status_code"]) == ({"detail": "password"}, 204)
    assert PASSWORD not in str(await entries(server))


async def test_a_log_that_cannot_be_written_does_not_stop_the_answer(server: Server, monkeypatch: pytest.MonkeyPatch):
    def broken() -> None:
        raise OperationalError("", {}, Exception("disk full"))

    monkeypatch.setattr(server.deployment.store, "write", broken)
    assert (await server.call("DELETE", "/users/me")).status_code == 400


async def report(agent: RpcClient, number: UUID, **fields: Any) -> None:
    connection = pb.Connection(id=number.bytes, **({"type": SSH, "ip": "fd7a:115c:a1e0::1"} | fields))
    request = pb.ReportConnectionRequest(connection=connection)
    await agent.unary(REPORT, request, pb.ListSubAgentsResponse)


async def connections(server: Server, query: str = "") -> list[dict[str, Any]]:
    return (await server.get("/connectionlog", params={"q": query}))["connection_logs"]


async def test_reported_connections_are_kept_with_how_long_they_took(live: Server):
    workspace, number = await live.workspace(), uuid4()
    async with live.agent(workspace) as agent:
        await report(agent, number, action=CONNECT)
        await report(agent, number, action=CONNECT)
        [still] = await connections(live, "status:ongoing")
        assert still["ssh_info"] == {"connection_id": str(number)}
        await live.clock.advance(5)
        await report(agent, number, action=DISCONNECT, status_code=3, reason="exit status 3" + "x" * 5000)
    [row] = await connections(live)
    assert (row["workspace_name"], row["workspace_owner_username"], row["agent_name"]) == ("dev", "admin", "main")
    assert (row["type"], row["ip"], row["username"]) == ("ssh", "fd7a:115c:a1e0::1", "")
    ssh = row["ssh_info"]
    began, ended = (datetime.fromisoformat(each) for each in (row["connect_time"], ssh["disconnect_time"]))
    assert (ended - began, ssh["exit_code"], len(ssh["disconnect_reason"])) == (timedelta(seconds=5), 3, 256)
    assert await connections(live, "status:ongoing") == []
    assert len(await connections(live, "workspace:dev type:ssh workspace_owner:me status:completed")) == 1
    assert await connections(live, f"workspace_id:{uuid4()}") == []


async def test_an_end_whose_beginning_was_not_reported_and_times_that_cannot_be(live: Server):
    workspace = await live.workspace()
    async with live.agent(workspace) as agent:
        for seconds in (10**9, 4 * 10**9, 253_402_300_799 + 1):
            await report(agent, uuid4(), action=DISCONNECT, timestamp={"seconds": seconds})
    now = live.clock.now()
    times = sorted(datetime.fromisoformat(each["connect_time"]) for each in await connections(live))
    assert times == [now - timedelta(days=1), now, now]


async def test_members_find_connections_to_their_own_workspaces_only(live: Server):
    bob = await live.member("bob")
    for owner in (live, bob):
        async with live.agent(await owner.workspace()) as agent:
            await report(agent, uuid4(), action=CONNECT)
    assert [each["workspace_owner_username"] for each in await connections(bob)] == ["bob"]
    assert await connections(bob, "workspace_owner:admin") == []
    assert len(await connections(live)) == 2


async def test_it_names_the_user_behind_the_address_unless_several_claim_it(live: Server):
    bob = await live.member("bob")
    workspace: Workspace = await live.workspace()
    introductions = live.deployment.introductions
    node = tailnet.Node(addresses=["fd7a:115c:a1e0::1/128"])
    mine, theirs = uuid4(), uuid4()
    me = (await live.get("/users/me"))["id"]
    with introductions.of_user(mine, UUID(me), "admin"):
        introductions._nodes[mine] = node
        async with live.agent(workspace) as agent:
            await report(agent, uuid4(), action=CONNECT)
            with introductions.of_user(theirs, UUID((await bob.get("/users/me"))["id"]), "bob"):
                introductions._nodes[theirs] = node
                await report(agent, uuid4(), action=CONNECT)
            introductions._nodes.clear()
    assert sorted(each["username"] for each in await connections(live)) == ["", "admin"]
    assert introductions.user_at("fd7a:115c:a1e0::1") is None


def connection(agent: UUID, began: datetime) -> ConnectionLog:
    names = dict.fromkeys(("workspace_name", "owner_username", "agent_name", "type", "ip", "username"), "")
    return ConnectionLog(
        id=uuid4(), agent_id=agent, connection_id=uuid4(), workspace_id=uuid4(), owner_id=uuid4(), connect_time=began,
        disconnect_reason="", **names,
    )  # fmt: skip


async def test_an_agent_that_reports_without_end_keeps_its_newest(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logs, "MAX_CONNECTIONS_OF_AGENT", 3)
    agent, now = uuid4(), datetime(2030, 1, 1, tzinfo=UTC)
    async with server.deployment.store.write() as session:
        await logs.connected(session, connection(uuid4(), now - timedelta(days=1)))
        for minute in range(5):
            await logs.connected(session, connection(agent, now + timedelta(minutes=minute)))
    found = [datetime.fromisoformat(each["connect_time"]) for each in await connections(server)]
    assert found == [now + timedelta(minutes=minute) for minute in (4, 3, 2)] + [now - timedelta(days=1)]


async def test_old_entries_go(server: Server, monkeypatch: pytest.MonkeyPatch):
    store, now = server.deployment.store, server.clock.now()
    async with store.write() as session:
        for days in (1, 40):
            await logs.connected(session, connection(uuid4(), now - timedelta(days=days)))
        await logs.prune(session, now, audit_for=timedelta(0), connections_for=timedelta(days=30))
    assert len(await connections(server)) == 1
    assert len(await entries(server)) == 2
    monkeypatch.setattr(logs, "MAX_AUDIT_ROWS", 1)
    await server.clock.advance(1)
    await server.call("DELETE", "/users/me")
    async with store.write() as session:
        await logs.prune(session, now, audit_for=timedelta(0), connections_for=timedelta(0))
    assert [each["action"] for each in await entries(server)] == ["delete"]
    async with store.write() as session:
        await logs.prune(session, now + timedelta(days=91), audit_for=timedelta(days=90), connections_for=timedelta(0))
    assert await entries(server) == []


async def test_ended_tokens_and_old_connections_are_forgotten(server: Server):
    await server.call("POST", "/users/me/keys/tokens", json={"token_name": "ci", "lifetime": 10**9})
    async with server.deployment.store.write() as session:
        await logs.connected(session, connection(uuid4(), server.clock.now() - timedelta(days=91)))
    await pruning.forget(server.deployment)
    assert await connections(server) == []
    assert len(await server.get("/users/me/keys/tokens")) == 1
    await server.clock.advance(timedelta(days=91).total_seconds())
    await pruning.forget(server.deployment)
    await server.sign_in()
    assert await server.get("/users/me/keys/tokens") == []
    assert [each["action"] for each in await entries(server)] == ["login"]
