"""A workspace of a `docker` template, with a real daemon and our own agent in the container."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from e2e import containers
from e2e.deployment import Deployment, sign_in, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture
def server(tmp_path: Path):
    with containers.daemon() as environment, containers.image(environment) as image:
        made = Deployment(tmp_path)
        made.settings |= environment
        try:
            made.start_server()
            sign_in(made)
            settings = {"image": image, "network": "host", "volume": "/kept", "pull": "never", "memory_mb": 1024}
            (tmp_path / "box.json").write_text(json.dumps({"kind": "docker", "settings": settings}))
            made.ok("templates", "create", "box", "--file", str(tmp_path / "box.json"))
            yield made
            made.run("delete", "dev", "--yes")
        finally:
            made.close()


def docker(server: Deployment, *words: str) -> str:
    done = subprocess.run(["docker", *words], env=os.environ | server.settings, capture_output=True, check=True)
    return done.stdout.decode().strip()


def connected(server: Deployment) -> bool:
    return server.agent_status() == "connected"


def test_an_agent_lives_in_a_container(server):
    server.ok("create", "dev", "--template", "box")
    wait_until("the agent", lambda: connected(server))
    number = server.json("show", "dev")["id"]
    name, label = f"coder-{number}-main", f"label=coder.workspace={number}"
    assert server.ok("ssh", "dev", "echo mine >/kept/file && id -un").split() == ["root"]

    token = docker(server, "exec", name, "cat", "/.coder-agent/token")
    told = json.loads(docker(server, "inspect", name))[0]
    assert token not in json.dumps(told) + server.log("server") + server.ok("logs", "dev")
    assert (told["HostConfig"]["Memory"], told["HostConfig"]["SecurityOpt"]) == (1 << 30, ["no-new-privileges"])

    docker(server, "rm", "--force", name)  # by somebody else; what merely ends is docker's to start
    wait_until("another container", lambda: docker(server, "ps", "--quiet", "--filter", label) and connected(server))
    assert "The agent main ended and is started again." in server.ok("logs", "dev")
    assert server.ok("ssh", "dev", "cat", "/kept/file") == "mine\n", "the volume outlives containers"

    server.ok("stop", "dev")
    assert docker(server, "ps", "--all", "--quiet", "--filter", label) == ""
    server.ok("start", "dev")
    wait_until("the agent", lambda: connected(server))
    assert server.ok("ssh", "dev", "cat", "/kept/file") == "mine\n"

    server.ok("delete", "dev", "--yes")
    assert docker(server, "ps", "--all", "--quiet", "--filter", label) == ""
    assert f"coder-{number}" not in docker(server, "volume", "ls", "--quiet").split()
