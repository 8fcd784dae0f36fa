"""Of fifty who want the same single thing at once, exactly one gets it, and the others are told why."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from api.conftest import PASSWORD, Server
from coder.rpc.client import RpcClient
from coder.rpc.websocket import WebSocketChannel

MANY = 50


async def at_once(server: Server, method: str, path: str, bodies: list[Any]) -> Counter[int]:
    answers = await asyncio.gather(*(server.call(method, path, json=body) for body in bodies))
    server.http.cookies.clear()
    return Counter(answer.status_code for answer in answers)


async def test_there_is_one_first_user(bare: Server):
    wanted = [
        {"email": f"user{number}@example.com", "username": f"user{number}", "password": PASSWORD}
        for number in range(MANY)
    ]
    assert await at_once(bare, "POST", "/users/first", wanted) == {201: 1, 409: MANY - 1}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/users/me/keys/tokens", {"token_name": "ci"}),
        ("/users/me/workspaces", {"name": "dev"}),
        ("/users", {"email": "bob@example.com", "username": "bob", "password": PASSWORD}),
    ],
)
async def test_a_name_is_given_once(server: Server, path: str, body: dict[str, str]):
    assert await at_once(server, "POST", path, [body] * MANY) == {201: 1, 409: MANY - 1}


async def test_a_session_ends_once(server: Server):
    answers = await at_once(server, "POST", "/users/logout", [None] * MANY)
    assert set(answers) <= {200, 401}
    assert answers[200] >= 1
    assert (await server.call("GET", "/users/me")).status_code == 401


async def test_a_token_used_while_it_is_deleted_is_refused_afterwards(server: Server):
    made = (await server.call("POST", "/users/me/keys/tokens", json={"token_name": "ci"})).json()["key"]
    held = {"Coder-Session-Token": made}
    asked = [server.call("GET", "/users/me", headers=held) for _ in range(MANY)]
    deleted = server.call("DELETE", f"/users/me/keys/{made.partition('-')[0]}")
    answers = await asyncio.gather(*asked[:25], deleted, *asked[25:])
    assert {answer.status_code for answer in answers} <= {200, 204, 401}
    assert (await server.call("GET", "/users/me", headers=held)).status_code == 401


async def test_one_process_is_the_agent(live: Server):
    """They come at once and stay: the first to be let in answers, so the others are refused."""
    workspace = await live.workspace()
    path = "/workspaceagents/me/rpc?version=2.6"
    headers = {"Cookie": f"coder_session_token={workspace.agent_token}"}
    held = []

    async def connect(number: int) -> int:
        try:
            client = RpcClient(WebSocketChannel(await live.open(path, headers | {"Coder-Agent-Instance": str(number)})))
        except InvalidStatus as refused:
            return refused.response.status_code
        held.append(await client.__aenter__())
        return 101

    try:
        assert Counter(await asyncio.gather(*map(connect, range(10)))) == {101: 1, 409: 9}
    finally:
        for client in held:
            await client.close()
