"""Each route that clients are known to ask for answers as they expect, or says honestly that it does not."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from api import messages
from api.conftest import TOKEN_HEADER, Server, Workspace
from api.messages import ask, coordinate

from coder.wire.proto import agent_pb2 as pb
from compat import routes
from compat.shapes import missing


@asynccontextmanager
async def connected(server: Server, workspace: Workspace) -> AsyncIterator[None]:
    async with server.agent(workspace) as agent, coordinate(agent) as call:
        await ask(agent, "UpdateStartup", messages.startup(), pb.Startup)
        await ask(agent, "UpdateLifecycle", messages.lifecycle(pb.Lifecycle.STARTING), pb.Lifecycle)
        await ask(agent, "UpdateLifecycle", messages.lifecycle(pb.Lifecycle.READY), pb.Lifecycle)
        await call.send(messages.update_self(workspace.agent_id, agent=True))
        async with server.client(workspace) as client, coordinate(client) as of_client:
            await of_client.send(messages.add_tunnel(workspace.agent_id))
            await anext(of_client)
        yield


async def answer_of(server: Server, route: routes.Route, known: dict[str, str]) -> httpx2.Response:
    path, body = route.path, route.body
    for placeholder, value in known.items():
        path = path.replace(placeholder, value)
        body = (
            {k: v.replace(placeholder, value) if isinstance(v, str) else v for k, v in body.items()} if body else None
        )
    headers = {TOKEN_HEADER: server.headers[TOKEN_HEADER]} if route.who == "user" else {}
    answer = await server.http.request(route.method, path, json=body, headers=headers)
    server.http.cookies.clear()
    return answer


def faults_of(answer: httpx2.Response, route: routes.Route) -> list[str]:
    if answer.status_code != route.status:
        return [f"status {answer.status_code}: {answer.text[:200]}"]
    faults = [] if answer.headers.get("X-Coder-Build-Version") else ["no build version"]
    shape: Any = routes.shape_of(route)
    if shape is None:
        return faults
    if answer.headers["Content-Type"] != "application/json; charset=utf-8":
        return [*faults, f"media type {answer.headers['Content-Type']}"]
    return faults + missing(shape, answer.json())


async def test_every_route(live: Server):
    """They are asked on one server, in the order of the table: some rows use what earlier ones made."""
    workspace = await live.workspace()
    build = workspace.body["latest_build"]
    known = {"{agent}": str(workspace.agent_id), "{workspace}": workspace.id, "{build}": build["id"]}
    known["{version}"] = build["template_version_id"]
    wrong = {}
    async with connected(live, workspace):
        for route in routes.ROUTES:
            if faults := faults_of(await answer_of(live, route, known), route):
                wrong[f"{route.method} {route.path} {route.status}"] = faults
    assert wrong == {}


@pytest.mark.parametrize("route", routes.LATER, ids=lambda route: route.path)
async def test_what_is_not_there_yet_is_no_page_that_looks_like_it(server: Server, route: routes.Route):
    answer = await answer_of(server, route, {})
    assert answer.status_code in {200, 404}
    if answer.status_code == 404:
        assert missing(routes.ERROR, answer.json()) == []
    else:
        assert "html" not in answer.headers["Content-Type"]
