"""A connection that one command keeps open for the next."""

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from e2e.deployment import wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture
def shared():
    """An environment whose connections are shared, and the directory of their sockets."""
    runtime = Path(tempfile.mkdtemp(prefix="r"))
    yield {"XDG_RUNTIME_DIR": str(runtime), "CODER_SSH_SHARE": "1"}, runtime / "coder"
    shutil.rmtree(runtime, ignore_errors=True)


def sockets(where):
    return [path for path in where.glob("ssh-*") if path.is_socket()]


def keep(workspace, environment, where):
    """Run a first command; return the socket it leaves, once commands are served there."""
    assert workspace.run("ssh", "dev", "true", **environment).returncode == 0
    wait_until("the process that keeps the connection", lambda: sockets(where))
    [path] = sockets(where)
    return path


def test_the_next_command_needs_no_server(workspace, shared):
    environment, where = shared
    path = keep(workspace, environment, where)
    assert (where.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)
    # Whoever has the socket ready has the workspace reached; a server is not needed any more.
    wait_until(
        "a shared stream", lambda: workspace.run("ssh", "--share", "dev", "exit 3", **environment).returncode == 3
    )
    assert workspace.stop("server") == 0
    done = workspace.run("ssh", "dev", "echo shared; exit 7", **environment)
    assert (done.returncode, done.stdout, done.stderr) == (7, "shared\n", "")
    alone = workspace.run("ssh", "--no-share", "dev", "true", **environment)
    assert alone.returncode == 255
    workspace.start_server()
    wait_until("the agent", lambda: workspace.agent_status() == "connected")
    end(path)


def end(path):
    """End the process that listens at a path."""
    [holder] = [
        int(process.name)
        for process in Path("/proc").iterdir()
        if process.name.isdigit() and str(path).encode() in _words(process)
    ]
    os.kill(holder, signal.SIGTERM)
    wait_until("its end", lambda: not path.exists())


def _words(process):
    try:
        return (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def test_it_ends_when_nobody_uses_it(workspace, shared):
    environment, where = shared
    environment["CODER_SSH_SHARE_IDLE"] = "300ms"
    assert workspace.run("ssh", "dev", "true", **environment).returncode == 0
    wait_until("the process", lambda: list(where.glob("*.lock")))
    wait_until("its end", lambda: not sockets(where) and not _held(where))


def _held(where):
    import fcntl

    [lock] = where.glob("*.lock")
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def test_it_ends_with_the_session_of_its_user(workspace, shared):
    environment, where = shared
    token = workspace.ok("tokens", "create", "--name", "short-lived").split()[-1]
    path = keep(workspace, environment | {"CODER_SESSION_TOKEN": token}, where)
    assert workspace.run("tokens", "remove", "short-lived").returncode == 0
    wait_until("the end of the process", lambda: not path.exists())


def test_a_directory_of_others_is_not_used(workspace, shared):
    environment, where = shared
    where.mkdir(mode=0o755)
    where.chmod(0o755)
    assert workspace.run("ssh", "dev", "true", **environment).returncode == 0
    assert list(where.iterdir()) == []
