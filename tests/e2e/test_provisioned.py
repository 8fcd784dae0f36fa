"""Agents on a host behind a real sshd."""

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from e2e.deployment import CODER, Deployment, sign_in, wait_until

pytestmark = pytest.mark.e2e

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        return chosen.getsockname()[1]


@pytest.fixture
def host(tmp_path: Path):
    """An sshd of this user's, with keys of its own; returns the template's settings."""
    if SSHD is None:
        pytest.skip("no sshd on this machine")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    port = free_port()
    (tmp_path / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/user.pub\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nPidFile none\n"
    )
    key = (tmp_path / "host.pub").read_text()
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}")
    if getpass.getuser() == "root":
        Path("/run/sshd").mkdir(exist_ok=True)  # privilege separation wants it
    daemon = subprocess.Popen([SSHD, "-D", "-e", "-f", tmp_path / "sshd_config"], stderr=subprocess.DEVNULL)
    try:
        wait_until("sshd", lambda: listens(port))
        yield {
            "host": "127.0.0.1",
            "port": port,
            "user": getpass.getuser(),
            "identity_file": str(tmp_path / "user"),
            "known_hosts_file": str(tmp_path / "known_hosts"),
            "command": [str(CODER), "agent"],
        }
    finally:
        daemon.terminate()
        daemon.wait(10)


def listens(port: int) -> bool:
    with socket.socket() as trying:
        return trying.connect_ex(("127.0.0.1", port)) == 0


def pid(place: Path) -> str:
    """Return the number of the agent's process, nothing while it is being started."""
    noted = place / "main" / "pid"
    return noted.read_text() if noted.exists() else ""


def test_an_agent_is_started_on_a_host_over_ssh(tmp_path, host):
    server = Deployment(tmp_path)
    try:
        server.start_server()
        sign_in(server)
        (tmp_path / "host.json").write_text(json.dumps({"kind": "ssh", "settings": host}))
        server.ok("templates", "create", "lab", "--file", str(tmp_path / "host.json"))
        server.ok("create", "dev", "--template", "lab")
        wait_until("the agent", lambda: server.agent_status() == "connected")
        assert server.ok("ssh", "dev", "echo", "hello") == "hello\n"
        place = Path.home() / ".local/state/coder-agents" / server.json("show", "dev")["id"]
        assert (place / "main" / "token").stat().st_mode & 0o077 == 0
        killed = (place / "main" / "pid").read_text()
        os.kill(int(killed), signal.SIGKILL)
        wait_until("another agent", lambda: pid(place) not in {"", killed} and server.agent_status() == "connected")
        assert "The agent main ended and is started again." in server.ok("logs", "dev")
        assert server.ok("ssh", "dev", "echo", "again") == "again\n"
        server.ok("stop", "dev")
        assert not (place / "main" / "token").exists()
        (tmp_path / "known_hosts").write_text("")
        refused = server.run("start", "dev")
        assert refused.returncode == 1
        assert "known hosts" in refused.stderr, "a host with another key gets no token"
        assert "Traceback" not in refused.stderr
        (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{host['port']} {(tmp_path / 'host.pub').read_text()}")
        server.ok("delete", "dev", "--yes")
        assert not (place / "main").exists()
    finally:
        server.close()
