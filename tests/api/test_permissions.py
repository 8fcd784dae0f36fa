"""Every route there is, asked by everybody for somebody else's things: each must have a row here.

A row says which status these callers get: nobody signed in, a member, an auditor, a user admin, an owner. Ids and names
in the paths are those of another user. Rows run in order; those that destroy come last.
"""

from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4, uuid5

import pytest
from fastapi.routing import APIRoute, APIWebSocketRoute
from websockets.exceptions import ConnectionClosed, InvalidStatus

from api.conftest import PASSWORD, Server, Workspace
from coder.access.roles import AUDITOR, OWNER, USER_ADMIN
from coder.db import agent_logs
from coder.server.app import ROUTERS

CALLERS = (None, (), (AUDITOR,), (USER_ADMIN,), (OWNER,))
PUBLIC, PLAIN_OF_SOCKET = "200 200 200 200 200", "401 426 426 426 426"
SIGNED_IN, OWNERS_ONLY = "401 200 200 200 200", "401 404 404 404 200"
NOBODY = "401 401 401 401 401"

USER, KEYS, TOKENS = "/users/{user}", "/users/{user}/keys", "/users/{user}/keys/tokens"
WORKSPACE, BUILD, AGENT = "/workspaces/{workspace}", "/workspacebuilds/{build}", "/workspaceagents/{agent}"
VERSION, TRIAL = "/templateversions/{version}", "/templateversions/{version}/dry-run/{job}"
NEW_USER = {"email": "new@example.com", "username": "new", "password": PASSWORD}

TABLE: list[tuple[str, str, str] | tuple[str, str, str, Any]] = [
    ("GET", "/healthz", PUBLIC),
    ("GET", "/latency-check", PUBLIC),
    ("GET", "/api/docs", PUBLIC),
    ("GET", "", PUBLIC),
    ("GET", "/buildinfo", PUBLIC),
    ("GET", "/updatecheck", PUBLIC),
    ("GET", "/entitlements", "404 404 404 404 404"),
    ("GET", "/appearance", "404 404 404 404 404"),
    ("GET", "/deployment/ssh", SIGNED_IN),
    ("GET", "/regions", SIGNED_IN),
    ("GET", "/organizations", SIGNED_IN),
    ("GET", "/organizations/{name}", SIGNED_IN),
    ("GET", "/organizations/{name}/provisionerdaemons", SIGNED_IN),
    ("GET", "/experiments", SIGNED_IN),
    ("GET", "/experiments/available", SIGNED_IN),
    ("GET", "/applications/host", SIGNED_IN),
    ("GET", "/applications/auth-redirect", "400 400 400 400 400"),  # back to where?
    ("GET", "/-/edge/app", "404 404 404 404 404"),  # only the edge may ask
    ("POST", "/authcheck", SIGNED_IN, {"checks": {}}),
    ("GET", "/templates", SIGNED_IN),
    ("GET", "/organizations/{organization}/templates", SIGNED_IN),
    ("GET", "/organizations/{organization}/templates/{name}", SIGNED_IN),
    ("POST", "/organizations/{organization}/templates", "401 404 404 404 201", {"name": "mine", "kind": "machine"}),
    ("GET", "/templates/{template}", SIGNED_IN),
    ("GET", "/templates/{template}/versions", SIGNED_IN),
    ("PATCH", "/templates/{template}", "401 404 404 404 200", {"icon": "/box.svg"}),
    ("DELETE", "/templates/{template}", "401 404 404 404 409"),  # it is always there
    ("GET", VERSION, SIGNED_IN),
    ("GET", f"{VERSION}/rich-parameters", SIGNED_IN),
    ("GET", f"{VERSION}/external-auth", SIGNED_IN),
    ("GET", f"{VERSION}/presets", SIGNED_IN),
    ("GET", f"{VERSION}/resources", SIGNED_IN),
    ("POST", f"{VERSION}/dry-run", "401 201 201 201 201"),
    ("GET", TRIAL, SIGNED_IN),
    ("GET", f"{TRIAL}/matched-provisioners", SIGNED_IN),
    ("GET", f"{TRIAL}/resources", SIGNED_IN),
    ("GET", f"{TRIAL}/logs", SIGNED_IN),
    ("WS", f"{TRIAL}/logs", "401 101 101 101 101"),
    ("GET", "/users/first", PUBLIC),
    ("POST", "/users/first", "409 409 409 409 409", NEW_USER),
    ("POST", "/users/login", "201 201 201 201 201", {"email": "bob@example.com", "password": PASSWORD}),
    ("GET", "/users/authmethods", PUBLIC),
    ("GET", "/users/me/organizations", SIGNED_IN),
    ("GET", "/users/roles", SIGNED_IN),
    ("GET", "/users", SIGNED_IN),
    ("POST", "/users", "401 403 403 201 201", NEW_USER),
    ("GET", USER, "401 404 200 200 200"),
    ("GET", f"{USER}/login-type", "401 404 200 200 200"),
    ("GET", f"{USER}/roles", "401 404 200 200 200"),
    ("PUT", f"{USER}/profile", "401 404 403 200 200", {"username": "bob"}),
    ("POST", KEYS, "401 404 403 403 403"),
    ("GET", f"{TOKENS}/tokenconfig", "401 404 200 200 200"),
    ("POST", TOKENS, "401 404 404 404 201", {"token_name": "more"}),
    ("GET", TOKENS, OWNERS_ONLY),
    ("GET", f"{TOKENS}/{{name}}", OWNERS_ONLY),
    ("GET", f"{KEYS}/{{key_id}}", OWNERS_ONLY),
    ("GET", "/users/oidc/callback", "404 404 404 404 404"),  # not set up here
    ("GET", "/audit", "401 403 200 403 200"),
    ("GET", "/connectionlog", SIGNED_IN),  # a member finds those to their own workspaces
    ("GET", "/workspaces", SIGNED_IN),
    ("GET", f"{USER}/workspace/{{name}}", OWNERS_ONLY),
    ("POST", f"{USER}/workspaces", "401 404 404 404 201", {"name": "other"}),
    ("POST", "/organizations/{organization}/members/{user}/workspaces", "401 404 404 404 201", {"name": "third"}),
    ("GET", WORKSPACE, OWNERS_ONLY),
    ("PATCH", WORKSPACE, "401 404 404 404 204", {"name": "dev"}),
    ("POST", f"{WORKSPACE}/usage", "401 404 404 404 204"),
    ("GET", f"{WORKSPACE}/watch", OWNERS_ONLY),
    ("GET", f"{WORKSPACE}/watch-ws", PLAIN_OF_SOCKET),
    ("WS", f"{WORKSPACE}/watch-ws", "401 404 404 404 101"),
    ("GET", f"{WORKSPACE}/port-share", OWNERS_ONLY),
    ("POST", f"{WORKSPACE}/port-share", OWNERS_ONLY, {"agent_name": "main", "port": 9, "share_level": "public"}),
    ("DELETE", f"{WORKSPACE}/port-share", OWNERS_ONLY, {"agent_name": "main", "port": 9}),
    ("GET", BUILD, OWNERS_ONLY),
    ("GET", f"{WORKSPACE}/builds", OWNERS_ONLY),
    ("PUT", f"{WORKSPACE}/ttl", "401 404 404 404 204", {"ttl_ms": 3600000}),
    ("PUT", f"{WORKSPACE}/autostart", "401 404 404 404 204", {"schedule": "30 9 * * 1-5"}),
    ("PUT", f"{WORKSPACE}/extend", "401 404 404 404 200", {"deadline": "2030-01-01T02:00:00Z"}),
    ("PATCH", f"{BUILD}/cancel", "401 404 404 404 400"),  # it has ended
    ("GET", f"{BUILD}/parameters", OWNERS_ONLY),
    ("GET", f"{BUILD}/resources", OWNERS_ONLY),
    ("GET", f"{BUILD}/logs", OWNERS_ONLY),
    ("WS", f"{BUILD}/logs", "401 404 404 404 101"),
    ("GET", "/workspaceagents/me/reinit", NOBODY),
    ("GET", "/workspaceagents/me/rpc", NOBODY),
    ("WS", "/workspaceagents/me/rpc", NOBODY),
    ("POST", "/workspaceagents/me/log-source", NOBODY, {"id": "3b579bf4-1ed8-4b99-87a8-e9a1e3410411"}),
    ("PATCH", "/workspaceagents/me/logs", NOBODY, {"logs": []}),
    ("GET", "/workspaceagents/connection", SIGNED_IN),
    ("GET", AGENT, OWNERS_ONLY),
    ("GET", f"{AGENT}/connection", OWNERS_ONLY),
    ("GET", f"{AGENT}/logs", OWNERS_ONLY),
    ("WS", f"{AGENT}/logs", "401 404 404 404 101"),
    ("GET", f"{AGENT}/watch-metadata", OWNERS_ONLY),
    ("GET", f"{AGENT}/watch-metadata-ws", PLAIN_OF_SOCKET),
    ("WS", f"{AGENT}/watch-metadata-ws", "401 404 404 404 101"),
    ("POST", f"{AGENT}/token", "401 404 404 404 201"),
    ("GET", f"{AGENT}/listening-ports", "401 404 404 404 400"),
    ("GET", f"{AGENT}/containers", "401 404 404 404 400"),
    ("GET", f"{AGENT}/network", OWNERS_ONLY),
    ("POST", f"{AGENT}/speedtest", "401 404 404 404 400"),
    ("GET", "/debug/health", OWNERS_ONLY),
    ("GET", "/debug/ws", "426 426 426 426 426"),
    ("WS", "/debug/ws", "101 101 101 101 101"),
    ("GET", "/speedtest", PLAIN_OF_SOCKET),
    ("WS", "/speedtest", "401 101 101 101 101"),
    ("GET", f"{AGENT}/coordinate", PLAIN_OF_SOCKET),
    ("WS", f"{AGENT}/coordinate", "401 404 404 404 101"),
    ("GET", f"{AGENT}/pty", PLAIN_OF_SOCKET),
    ("WS", f"{AGENT}/pty", "401 404 404 404 400"),
    ("GET", "/tailnet", PLAIN_OF_SOCKET),
    ("WS", "/tailnet", "401 101 101 101 101"),
    ("GET", "/derp-map", PLAIN_OF_SOCKET),
    ("WS", "/derp-map", "401 101 101 101 101"),
    ("DELETE", f"{KEYS}/{{key_id}}", "401 404 404 404 204"),
    ("DELETE", WORKSPACE, "401 404 404 404 204"),
    ("POST", f"{WORKSPACE}/builds", "401 404 404 404 409", {"transition": "delete"}),
    ("PUT", f"{USER}/browser-only", "401 404 403 200 200", {"browser_only": False}),
    ("PUT", f"{USER}/password", "401 404 403 204 204", {"password": PASSWORD + "2"}),
    ("PUT", f"{USER}/roles", "401 404 403 403 200", {"roles": ["auditor"]}),
    ("PUT", f"{USER}/status/{{status}}", "401 404 403 200 200"),
    ("DELETE", USER, "401 404 403 409 409"),  # there are workspaces left
    ("POST", "/users/logout", SIGNED_IN),
]


def all_routes() -> list[tuple[str, str]]:
    found = []
    for router, _ in ROUTERS:
        for route in router.routes:
            assert isinstance(route, APIRoute | APIWebSocketRoute)
            methods = route.methods if isinstance(route, APIRoute) else {"WS"}
            found += [(method, route.path) for method in methods]
    return found


def test_every_route_has_a_row_of_who_may_use_it():
    listed = [(method, path) for method, path, *_ in TABLE]
    assert sorted(all_routes()) == sorted(listed), (
        "a route is open to whom? Say so in TABLE, and decide it in the route"
    )


@pytest.mark.parametrize("caller", range(len(CALLERS)), ids=["nobody", "member", "auditor", "user-admin", "owner"])
async def test_nobody_reaches_what_is_not_theirs(live: Server, caller: int):
    who, names = await cast(live, CALLERS[caller])
    expected, answered = {}, {}
    for method, path, statuses, *body in TABLE:
        row = f"{method} {path}"
        expected[row] = int(statuses.split()[caller])
        answered[row] = await ask(who, method, path.format(**named(names, path)), body[0] if body else None)
    assert answered == expected


def named(names: dict[str, str], path: str) -> dict[str, str]:
    if path.endswith("/templates/{name}"):
        return names | {"name": "machine"}
    if path.startswith("/organizations"):
        return names | {"name": "default"}
    return names | {"name": "ci" if "tokens" in path else "dev"}


async def cast(live: Server, roles: tuple[str, ...] | None) -> tuple[Server, dict[str, str]]:
    """Make bob, whose things are asked for, and who asks."""
    bob = await live.member("bob")
    theirs: Workspace = await bob.workspace("dev")
    token = await bob.call("POST", "/users/me/keys/tokens", json={"token_name": "ci"})
    async with live.deployment.store.write() as session:
        now = live.clock.now()
        line = {"source_id": uuid4(), "level": "info", "output": "x", "created_at": now}
        await agent_logs.add(session, theirs.agent_id, [line], now)
    names = {
        "user": "bob",
        "workspace": theirs.id,
        "build": theirs.body["latest_build"]["id"],
        "agent": str(theirs.agent_id),
        "key_id": token.json()["key"].partition("-")[0],
        "organization": "default",
        "template": theirs.body["template_id"],
        "job": str(uuid5(UUID(theirs.body["latest_build"]["template_version_id"]), "dry-run")),
        "version": theirs.body["latest_build"]["template_version_id"],
        "status": "suspend",
    }
    eve = await live.member("eve")
    assert (await live.call("PUT", "/users/eve/roles", json={"roles": list(roles or ())})).status_code == 200
    if roles is None:
        eve.headers.clear()
    return eve, names


async def ask(who: Server, method: str, path: str, body: Any) -> int:
    if method == "WS":
        try:
            async with await who.open(f"{path}?version=2.0") as socket:
                if path.endswith(
                    ("/watch-ws", "/watch-metadata-ws", "/logs")
                ):  # wait until the server has looked, then go
                    with suppress(ConnectionClosed):
                        await socket.recv()
                return 101
        except InvalidStatus as refusal:
            return refusal.response.status_code
    who.http.cookies.clear()
    prefix = "" if path.startswith(("/healthz", "/latency", "/api/")) else "/api/v2"
    async with who.http.stream(method, prefix + path, json=body, headers=who.headers) as answer:
        async for _ in answer.aiter_raw():
            break
        return answer.status_code
