"""The web terminal's wire, through real processes: server, its node, tunnel, agent."""

import json
import urllib.request
from uuid import uuid4

import pytest
from websockets.sync.client import ClientConnection, connect

from e2e.deployment import PASSWORD, PATIENCE, Deployment, wait_until

pytestmark = pytest.mark.e2e


def token(deployment: Deployment) -> str:
    body = json.dumps({"email": "a@example.com", "password": PASSWORD}).encode()
    request = urllib.request.Request(f"{deployment.url}/api/v2/users/login", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)["session_token"]


def terminal(deployment: Deployment, session: str, number: str) -> connect:
    workspace = deployment.json("show", "dev")
    workspace = workspace[0] if isinstance(workspace, list) else workspace
    agent = workspace["latest_build"]["resources"][0]["agents"][0]["id"]
    return connect(
        f"ws{deployment.url[4:]}/api/v2/workspaceagents/{agent}/pty?reconnect={number}&height=30&width=100",
        additional_headers={"Coder-Session-Token": session},
        compression=None,
    )


def until(client: ClientConnection, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        part = client.recv(timeout=PATIENCE)
        assert isinstance(part, bytes)
        seen += part
    return seen


def test_a_shell_outlives_its_connections_and_the_server(workspace: Deployment):
    number, session = str(uuid4()), token(workspace)
    with terminal(workspace, session, number) as client:
        client.send(json.dumps({"data": "stty size; mine=$((40+2)); echo is-$mine\r"}).encode())
        assert b"30 100\r\n" in until(client, b"is-42")
    workspace.stop("server")
    workspace.start_server()
    wait_until("the agent", lambda: workspace.agent_status() == "connected")
    with terminal(workspace, session, number) as client:
        until(client, b"is-42")
        client.send(b'{"data":"echo still-$mine; exit\\r"}')
        until(client, b"still-42")
        for _ in client:  # ends with an orderly close, and fails with any other
            pass
    assert "terminal.started" in workspace.log("agent")
    assert workspace.log("server").count("node.started") == 2
