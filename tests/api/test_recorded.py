"""Answers of the reference server, reduced to status, field names and types: ours have all of them.

The recordings are of its command line creating the first user, listing, showing, pinging, measuring, and failing.
"""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from websockets.exceptions import InvalidStatus

from api import messages
from api.conftest import PASSWORD, Server, Workspace
from api.messages import ask, coordinate
from coder.wire.proto import agent_pb2 as pb

VECTORS = Path(__file__).parents[2] / "vectors" / "rest"

DEVIATIONS = {
    "/api/v2/workspaceagents/{agent}/listening-ports": "needs a node of the server's own, which it does not have yet",
}
KINDS = {"text": str, "bool": bool, "number": (int, float), "null": type(None)}


def recorded(flow: str) -> list[dict[str, Any]]:
    exchanges = json.loads((VECTORS / f"{flow}.json").read_text())["exchanges"]
    return [each for each in exchanges if each["status"] >= 400 or each["route"] not in DEVIATIONS]


def missing(expected: Any, ours: Any, where: str = "body") -> list[str]:
    """Name each place where ours lacks a recorded field, or has another type."""
    if isinstance(expected, dict):
        if not isinstance(ours, dict):
            return [where]
        return [
            fault
            for name, shape in expected.items()
            for fault in (missing(shape, ours[name], f"{where}.{name}") if name in ours else [f"{where}.{name}"])
        ]
    if isinstance(expected, list):
        if not isinstance(ours, list):
            return [where]
        return [
            fault for shape in expected for each in ours[:1] or [None] for fault in missing(shape, each, f"{where}[]")
        ]
    return [] if isinstance(ours, KINDS[expected]) else [f"{where}: {expected}, not {ours!r}"]


@pytest.mark.parametrize(
    ("expected", "ours", "faults"),
    [
        ({"a": "text"}, {"a": "x", "b": 1}, []),
        ({"a": "text"}, {}, ["body.a"]),
        ({"a": ["number"]}, {"a": []}, ["body.a[]: number, not None"]),
        ({"a": {"b": "null"}}, {"a": {"b": 1}}, ["body.a.b: null, not 1"]),
        ([], [1], []),
    ],
)
def test_the_comparison_finds_what_is_missing(expected: Any, ours: Any, faults: list[str]):
    assert missing(expected, ours) == faults


def path_of(exchange: dict[str, Any], workspace: Workspace | None, name: str = "dev") -> str:
    path = exchange["route"].removeprefix("/api/v2")
    if workspace is None:
        return path
    version = workspace.body["latest_build"]["template_version_id"]
    known = {"{agent}": workspace.agent_id, "{workspace}": workspace.id, "{name}": name, "{id}": version}
    for placeholder, value in known.items():
        path = path.replace(placeholder, str(value))
    return path


async def check(server: Server, exchange: dict[str, Any], path: str, **options: Any) -> None:
    if exchange["route"].endswith(("/coordinate", "/rpc")):
        await check_socket(server, exchange, path)
        return
    answer = await server.call(exchange["method"], path, **options)
    assert answer.status_code == exchange["status"], (exchange["route"], answer.text)
    assert answer.headers["Content-Type"].partition(";")[0] == exchange["media_type"]
    assert missing(exchange["body"], answer.json()) == [], exchange["route"]
    server.http.cookies.clear()


async def check_socket(server: Server, exchange: dict[str, Any], path: str) -> None:
    if exchange["status"] == 101:
        await (await server.open(f"{path}?version=2.0")).close()
        return
    with pytest.raises(InvalidStatus) as refused:
        await server.open(f"{path}?version=2.6", {"Coder-Session-Token": str(uuid4())})
    assert refused.value.response.status_code == exchange["status"]
    assert missing(exchange["body"], json.loads(refused.value.response.body)) == []


async def test_first_user(bare: Server):
    bodies = {
        "/users/first": {"email": "admin@example.com", "username": "admin", "password": PASSWORD, "trial": False},
        "/users/login": {"email": "admin@example.com", "password": PASSWORD},
    }
    for exchange in recorded("first-user"):
        path = path_of(exchange, None)
        if path == "/users/me":
            await bare.sign_in()
        await check(bare, exchange, path, json=bodies.get(path) if exchange["method"] == "POST" else None)


@pytest.mark.parametrize("flow", ["login-token", "whoami"])
async def test_flows_of_a_signed_in_user(server: Server, flow: str):
    for exchange in recorded(flow):
        await check(server, exchange, path_of(exchange, None))


@pytest.mark.parametrize("flow", ["list", "show", "ping", "speedtest"])
async def test_flows_with_a_connected_agent(live: Server, flow: str):
    workspace = await live.workspace()
    async with live.agent(workspace) as agent, coordinate(agent) as call:
        await ask(agent, "UpdateStartup", messages.startup(), pb.Startup)
        await ask(agent, "UpdateLifecycle", messages.lifecycle(pb.Lifecycle.STARTING), pb.Lifecycle)
        await ask(agent, "UpdateLifecycle", messages.lifecycle(pb.Lifecycle.READY), pb.Lifecycle)
        await call.send(messages.update_self(workspace.agent_id, agent=True))
        async with live.client(workspace) as client, coordinate(client) as of_client:
            await of_client.send(messages.add_tunnel(workspace.agent_id))
            await anext(of_client)
        for exchange in recorded(flow):
            await check(live, exchange, path_of(exchange, workspace))


async def test_errors(live: Server):
    workspace = await live.workspace()
    await live.clock.advance(121)  # the recorded agent is past its time to connect
    token = live.headers.pop("Coder-Session-Token")
    for exchange in recorded("errors"):
        name = "nope" if exchange["status"] == 404 else "dev"
        headers = {} if exchange["status"] == 401 else {"Coder-Session-Token": token}
        live.headers = headers
        if exchange["status"] == 200 and exchange["route"].endswith("/workspace/{name}"):
            build = exchange["body"]["latest_build"]["resources"][0]["agents"][0]
            if "first_connected_at" in build:
                continue  # the same workspace after its agent had left: flows with an agent have it
        await check(live, exchange, path_of(exchange, workspace, name))
