"""Every route that clients are known to ask for, and what this server must answer.

Shapes stand here where no recording has them; `RECORDED` takes the shape from the transcripts. Bodies of refusals are
`{"message": text}` everywhere. What makes no sense here is refused, never answered with inventions. The health
report is left out: it asks the outside, and has tests of its own.
"""

import functools
from dataclasses import dataclass
from typing import Any

from compat.replay import flows, steps_of

RECORDED = "recorded"
ERROR = {"message": "text", "detail?": "text", "validations?": [{"field": "text", "detail": "text"}]}
ORGANIZATION = {
    "id": "text",
    "name": "text",
    "display_name": "text",
    "icon": "text",
    "description": "text",
    "created_at": "text",
    "updated_at": "text",
    "is_default": "bool",
}
KEY = {
    "id": "text",
    "user_id": "text",
    "last_used": "text",
    "expires_at": "text",
    "created_at": "text",
    "updated_at": "text",
    "login_type": "text:token",
    "scope": "text:all",
    "token_name": "text",
    "lifetime_seconds": "number",
}
BUILD = {
    "id": "text",
    "workspace_id": "text",
    "template_version_id": "text",
    "build_number": "number",
    "transition": "text:start",
    "status": "text",
    "job": {"id": "text", "status": "text", "completed_at": "text"},
    "reason": "text",
    "resources": [{"agents": [{"id": "text", "name": "text", "status": "text"}]}],
}
VERSION = {"id": "text", "template_id": "text", "job": {"status": "text"}, "name": "text", "readme": "text"}

TEMPLATE = {
    "id": "text",
    "organization_id": "text",
    "name": "text",
    "display_name": "text",
    "active_version_id": "text",
    "created_at": "text",
    "updated_at": "text",
}
NIL = "00000000-0000-0000-0000-000000000000"
FIRST = {"email": "a@x.yz", "username": "a", "password": "correct horse 7 battery"}


@dataclass(frozen=True)
class Route:
    method: str
    path: str
    status: int
    shape: Any = None
    who: str = "user"
    body: Any = None
    why: str = ""
    """Why it is refused, or by whom it is asked when that is not plain."""


def get(path: str, shape: Any, who: str = "user", why: str = "") -> Route:
    return Route("GET", path, 200, shape, who, why=why)


def refused(method: str, path: str, status: int, why: str, body: Any = None) -> Route:
    return Route(method, path, status, ERROR, why=why, body=body)


API = "/api/v2"
AGENT, WORKSPACE, ME = f"{API}/workspaceagents/{{agent}}", f"{API}/workspaces/{{workspace}}", f"{API}/users/me"
NO_ORIGINAL = "licensed features do not exist here; clients know this answer"
NOT_HERE = "does not exist here; clients go on without it"

ROUTES = (
    Route("GET", "/healthz", 200, who="nobody"),
    Route("GET", "/latency-check", 200, who="nobody"),
    get(API, {"message": "text"}, "nobody"),
    get(f"{API}/buildinfo", RECORDED, "nobody"),
    get(f"{API}/users/first", RECORDED, "nobody"),
    get(f"{API}/users/authmethods", RECORDED, "nobody"),
    get(f"{API}/updatecheck", {"current": "bool", "version": "text", "url": "text"}, "nobody"),
    Route("POST", f"{API}/users/first", 409, ERROR, "nobody", FIRST),
    Route("POST", f"{API}/users/login", 401, ERROR, "nobody", {"email": "a@x.yz", "password": "x"}),
    Route("POST", f"{API}/users/login", 400, ERROR, "nobody", {"email": "a@x.yz"}),
    get(ME, RECORDED),
    get(f"{API}/users/admin", {"id": "text", "username": "text", "roles": [{"name": "text", "display_name": "text"}]}),
    Route("POST", f"{ME}/keys", 201, {"key": "text"}),
    Route("POST", f"{ME}/keys/tokens", 201, {"key": "text"}, body={"lifetime": 10**13, "scope": "", "token_name": "t"}),
    refused("POST", f"{ME}/keys/tokens", 409, "the name is taken", {"token_name": "t"}),
    refused("POST", f"{ME}/keys/tokens", 400, "longer than allowed", {"lifetime": 2**62}),
    get(f"{ME}/keys/tokens/tokenconfig", {"max_token_lifetime": "number"}),
    get(f"{ME}/keys/tokens?include_all=true", [KEY | {"username": "text"}]),
    get(f"{ME}/keys/tokens/t", KEY),
    refused("GET", f"{ME}/keys/tokens/nope", 404, "no such token"),
    refused("DELETE", f"{ME}/keys/nope", 404, "no such key"),
    get(f"{ME}/workspace/dev", RECORDED),
    get(f"{API}/users/ADMIN/workspace/DEV", {"name": "text", "owner_name": "text"}, why="names know no case"),
    refused("GET", f"{ME}/workspace/nope", 404, "no such workspace"),
    get(f"{API}/workspaces?q=owner%3Ame", {"workspaces": [{"name": "text"}], "count": "number"}),
    get(f"{API}/workspaces?q=owner%3A%22me%22", {"workspaces": [{"name": "text"}], "count": "number"}),
    get(f"{API}/workspaces?q=", {"workspaces": [{"name": "text"}], "count": "number"}),
    get(f"{API}/workspaces?q=owner:me%20name:nope", {"workspaces": [], "count": "number"}),
    refused("GET", f"{API}/workspaces?q=foo:bar", 400, "no such key of a search"),
    get(WORKSPACE, RECORDED),
    get(f"{API}/workspacebuilds/{{build}}", BUILD),
    get(f"{API}/workspacebuilds/{{build}}/parameters", []),
    get(f"{API}/workspacebuilds/{{build}}/logs", []),
    Route("POST", f"{WORKSPACE}/usage", 204),
    Route("POST", f"{WORKSPACE}/usage", 204, body={"agent_id": "{agent}", "app_name": "vscode"}),
    refused("POST", f"{WORKSPACE}/usage", 400, "half of it is missing", {"app_name": "ssh"}),
    get(f"{API}/templateversions/{{version}}", RECORDED),
    get(f"{API}/templateversions/{{version}}/rich-parameters", []),
    get(f"{API}/templateversions/{{version}}/external-auth", []),
    get(f"{API}/templateversions/{{version}}/resources", []),
    get(f"{API}/templateversions/{{version}}/presets", []),
    get(f"{API}/organizations/default/provisionerdaemons", []),
    get(f"{API}/templates", [TEMPLATE]),
    get(f"{API}/templates?q=exact_name%3A%22process%22", [TEMPLATE | {"name": "text:process"}]),
    get(f"{API}/templates?q=exact_name:nope", []),
    refused("GET", f"{API}/templates?q=foo:bar", 400, "no such key of a search"),
    get(f"{API}/organizations/default/templates", [TEMPLATE]),
    get(f"{API}/organizations/default/templates/machine", TEMPLATE),
    refused("GET", f"{API}/organizations/default/templates/nope", 404, "no such template"),
    get(f"{WORKSPACE}/builds", [BUILD]),
    Route(
        "POST",
        f"{ME}/workspaces",
        201,
        {"name": "text", "latest_build": BUILD},
        body={"template_id": NIL, "template_version_id": "{version}", "name": "second"},
        why="the original's command leaves out the template this way",
    ),
    get(f"{API}/workspacebuilds/{{build}}/resources", [{"agents": [{"id": "text"}]}]),
    get(f"{WORKSPACE}/port-share", {"shares": []}),
    get(AGENT, RECORDED),
    get(f"{AGENT}/logs?after=0", []),
    get(f"{AGENT}/connection", RECORDED),
    get(f"{API}/workspaceagents/connection", RECORDED),
    refused("GET", f"{AGENT}/containers", 403, "dev containers are not offered"),
    get(f"{API}/deployment/ssh", RECORDED),
    get(f"{API}/regions", RECORDED),
    get(f"{API}/organizations", [ORGANIZATION]),
    get(f"{ME}/organizations", [ORGANIZATION]),
    get(f"{API}/organizations/default", ORGANIZATION),
    refused("GET", f"{API}/organizations/nope", 404, "there is one organization"),
    get(f"{API}/experiments", []),
    get(f"{API}/experiments/available", {"safe": []}),
    get(f"{API}/applications/host", {"host": "text"}),
    Route(
        "POST",
        f"{API}/authcheck",
        200,
        {"k": "bool"},
        body={"checks": {"k": {"object": {"resource_type": "workspace", "owner_id": "me"}, "action": "read"}}},
    ),
    refused("GET", f"{API}/appearance", 404, NO_ORIGINAL),
    refused("GET", f"{API}/entitlements", 404, NO_ORIGINAL),
    refused("GET", f"{API}/licenses", 404, NO_ORIGINAL),
    refused(
        "GET", f"{API}/deployment/config", 404, "settings are files and flags; nothing shows them over the network"
    ),
    refused("GET", f"{API}/deployment/stats", 404, NOT_HERE),
    refused("GET", f"{API}/debug/coordinator", 404, NOT_HERE),
    refused("GET", f"{API}/debug/derp/traffic", 404, NOT_HERE),
    refused("GET", f"{API}/notifications/inbox/watch?format=plaintext", 404, NOT_HERE),
    refused("GET", f"{API}/tasks", 404, "it hides the editor's panel"),
    refused("GET", "/api/experimental/tasks", 404, "it hides the editor's panel"),
    refused("GET", f"{API}/nosuch", 404, "no such route"),
    refused("GET", "/.well-known/oauth-authorization-server", 404, "editors ask for a token instead"),
    refused("GET", f"{API}/workspaceagents/me/rpc", 401, "users have no agent's token"),
    refused("GET", f"{API}/workspaceagents/me/reinit", 401, "users have no agent's token"),
    refused("GET", f"{AGENT}/coordinate", 426, "it is a WebSocket"),
    refused("GET", f"{API}/derp-map", 426, "it is a WebSocket"),
    refused("GET", f"{API}/tailnet", 426, "it is a WebSocket"),
    refused("GET", f"{WORKSPACE}/watch-ws", 426, "it is a WebSocket"),
    refused("GET", f"{API}/workspacebuilds/{{build}}/logs?follow", 426, "it is a WebSocket"),
    refused("GET", f"{AGENT}/logs?follow", 426, "it is a WebSocket"),
)

LATER: tuple[Route, ...] = (
    get("/bin/coder-linux-amd64", None, "nobody", "editors and scripts download the command there"),
    get("/install.sh", None, "nobody", "installs the command"),
)
"""Routes that clients ask for and this server refuses until it has them: a refusal must be an honest 404."""


@functools.cache
def _shapes() -> dict[tuple[str, str], Any]:
    steps = [step for flow in flows() for step in steps_of(flow) if step.get("status") == 200 and "body" in step]
    return {(step["method"], step["route"]): step["body"] for step in steps}


def shape_of(route: Route) -> Any:
    if route.shape is not RECORDED:
        return route.shape
    path = route.path.partition("?")[0]
    shapes = [shape for (method, recorded), shape in _shapes().items() if (method, recorded) == (route.method, path)]
    assert len(shapes) == 1, route.path
    return shapes[0]
