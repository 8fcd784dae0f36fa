"""A workspace with two agents, over plain OpenSSH."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from e2e.deployment import CODER, Deployment, sign_in, wait_until

pytestmark = pytest.mark.e2e

AGENTS = [{"name": "main"}, {"name": "db", "environment": {"ROLE": "keeps data"}}]


@pytest.fixture
def server(tmp_path: Path):
    if shutil.which("ssh") is None:
        pytest.skip("there is no OpenSSH client")
    made = Deployment(tmp_path)
    try:
        made.start_server()
        sign_in(made)
        (tmp_path / "two.json").write_text(json.dumps({"kind": "process", "agents": AGENTS}))
        made.ok("templates", "create", "two", "--file", str(tmp_path / "two.json"))
        made.ok("create", "dev", "--template", "two")
        yield made
        made.run("delete", "dev", "--yes")
    finally:
        made.close()


def statuses(server: Deployment) -> dict[str, str]:
    latest = server.json("show", "dev")["latest_build"]
    return {agent["name"]: agent["status"] for agent in latest["resources"][0]["agents"]}


def test_each_agent_has_names_of_its_own_and_a_life_of_its_own(server):
    both = {"main": "connected", "db": "connected"}
    wait_until("both agents", lambda: statuses(server) == both)
    config = server.place / "ssh" / "config"
    server.ok("config-ssh", "--yes", "--ssh-config-file", str(config), "--coder-binary-path", str(CODER))

    def ssh(host: str, command: str = 'echo "$CODER_WORKSPACE_AGENT_NAME $ROLE"', **how: int) -> subprocess.Popen:
        words = ["ssh", "-F", config, host, command]
        return subprocess.Popen(words, env=server.environment(), stdout=subprocess.PIPE, text=True, **how)

    hosts = {"main.dev.coder": "main ", "db.dev.coder": "db keeps data", "db.dev.admin.coder": "db keeps data"}
    asked = {host: ssh(host, stdin=subprocess.DEVNULL) for host in (*hosts, "coder.admin--dev--db", "dev.nobody.coder")}
    told = {host: (process.communicate(timeout=60)[0].strip(), process.returncode) for host, process in asked.items()}
    assert {host: told[host] for host in hosts} == {host: (words.strip(), 0) for host, words in hosts.items()}
    assert told["coder.admin--dev--db"] == ("db keeps data", 0)
    assert told["dev.nobody.coder"] == ("", 255)
    which = server.run("ssh", "dev", "true")
    assert which.returncode == 255
    assert "main, db" in which.stderr, "it says which there are"

    held = ssh("main.dev.coder", "echo here; read answer; echo $answer", stdin=subprocess.PIPE)
    assert held.stdout.readline() == "here\n"
    noted = next((server.place / "state" / "workspaces").glob("*/agents/db/process.json"))
    before = noted.read_text()
    os.kill(json.loads(before)["pid"], signal.SIGKILL)
    wait_until("another one", lambda: noted.exists() and noted.read_text() != before and statuses(server) == both)
    assert ssh("db.dev.coder", stdin=subprocess.DEVNULL).communicate(timeout=60)[0] == "db keeps data\n"
    assert held.communicate("still\n", timeout=60)[0] == "still\n", "the other agent's session has not noticed"
