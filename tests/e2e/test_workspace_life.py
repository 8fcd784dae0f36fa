"""A workspace that the server runs itself, through its whole life, with real processes."""

import contextlib
import json
import os
import signal
from pathlib import Path

import pytest

from e2e.deployment import Deployment, sign_in, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture
def server(tmp_path: Path):
    made = Deployment(tmp_path)
    try:
        made.start_server()
        sign_in(made)
        yield made
        made.run("delete", "dev", "--yes")
    finally:
        made.close()


def pid(server: Deployment) -> int:
    """Return the number of the agent's process, 0 while it is being started."""
    for noted in (server.place / "state" / "workspaces").glob("*/agents/main/process.json"):
        with contextlib.suppress(FileNotFoundError):
            return json.loads(noted.read_text())["pid"]
    return 0


def runs(number: int) -> bool:
    """Whether a process is there, and not just waits for its parent to look."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_process_is_started_reached_stopped_and_started_again(server):
    created = server.ok("create", "dev", "--template", "process", "--stop-after", "8h")
    assert "coder ssh dev" in created
    wait_until("the agent", lambda: server.agent_status() == "connected")
    assert server.ok("ssh", "dev", "echo", "hello") == "hello\n"
    first = pid(server)
    arguments = Path(f"/proc/{first}/cmdline").read_text()
    (file,) = (server.place / "state" / "workspaces").glob("*/agents/main/token")
    token = file.read_text().strip()
    assert file.stat().st_mode & 0o077 == 0
    assert token not in arguments + server.log("server") + server.ok("logs", "dev")

    stopped = server.run("stop", "dev")
    assert (stopped.returncode, stopped.stdout) == (0, "The workspace 'dev' has been stopped.\n"), stopped.stderr
    assert not runs(first)
    assert not file.exists()
    assert server.json("show", "dev")["latest_build"]["status"] == "stopped"

    started = server.run("start", "dev")
    assert "runs as process" in started.stderr, started.stderr
    wait_until("the agent", lambda: server.agent_status() == "connected")

    killed = pid(server)
    os.kill(killed, signal.SIGKILL)
    wait_until("another agent", lambda: pid(server) != killed and server.agent_status() == "connected")
    assert server.ok("ssh", "dev", "echo", "again") == "again\n"
    assert "The agent main ended and is started again." in server.ok("logs", "dev")

    running = pid(server)
    assert server.stop("server") == 0
    server.start_server()
    wait_until("the agent", lambda: server.agent_status() == "connected")
    assert pid(server) == running, "it lives on while the server is away"

    server.ok("delete", "dev", "--yes")
    assert not runs(running)
    assert list((server.place / "state" / "workspaces").iterdir()) == []
