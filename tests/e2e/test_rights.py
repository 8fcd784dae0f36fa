"""What is open ends with the right to it: at both ends of the tunnel, at once, and for nobody else."""

import contextlib
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest

from e2e.deployment import CODER, PATIENCE, running, wait_until

pytestmark = pytest.mark.e2e


@contextlib.contextmanager
def deployed(place):
    with running(place) as made:
        made.ok("users", "create", "-u", "bob", "-e", "b@example.com", CODER_USER_PASSWORD="correct-horse-battery-8")
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The workspace `dev` of the user `admin`, and `bob`, who may reach it."""
    with deployed(tmp_path_factory.mktemp("rights")) as made:
        yield made


@pytest.fixture
def bob(shared):
    """A token of an active user who may reach what others have."""
    shared.ok("users", "activate", "bob")
    shared.ok("users", "edit-roles", "bob", "--roles", "owner", "-y")
    return new_token(shared, "bob")


def new_token(shared, user):
    return shared.ok("tokens", "create", "--user", user, "--lifetime", "1h").split()[-1]


class Echo:
    """A command in the workspace that answers each line, and a process there that lives as long."""

    def __init__(self, deployment, token):
        self.process = subprocess.Popen(
            [CODER, "ssh", "admin/dev", "echo $$; exec cat"],
            env=deployment.environment(CODER_URL=deployment.url, CODER_SESSION_TOKEN=token),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        first = self.process.stdout.readline()
        assert first, self.process.communicate()
        self.remote = int(first)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate()

    def answers(self):
        self.process.stdin.write(b"hello\n")
        self.process.stdin.flush()
        return self.process.stdout.readline() == b"hello\n"

    def gone_there(self):
        """Whether the agent has ended its process."""
        try:
            return b"cat" not in Path(f"/proc/{self.remote}/cmdline").read_bytes()
        except OSError:
            return True

    def last_words(self):
        assert self.process.wait(PATIENCE) == 255
        return self.process.stderr.read().decode().splitlines()


def set_password(shared, _token):
    session = (shared.place / "config" / "session").read_text().strip()
    request = urllib.request.Request(
        f"{shared.url}/api/v2/users/bob/password",
        b'{"password":"correct-horse-battery-7"}',
        {"Coder-Session-Token": session, "Content-Type": "application/json"},
        method="PUT",
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        assert answer.status == 204


ENDS = {
    "suspended": lambda shared, _: shared.ok("users", "suspend", "bob", "-y"),
    "token deleted": lambda shared, token: shared.ok("tokens", "remove", token.partition("-")[0]),
    "signed out": lambda shared, token: shared.ok(
        "logout", CODER_CONFIG_DIR=str(shared.place / "bob"), CODER_URL=shared.url, CODER_SESSION_TOKEN=token
    ),
    "role taken": lambda shared, _: shared.ok("users", "edit-roles", "bob", "--roles", "", "-y"),
    "password changed": set_password,
}


@pytest.mark.parametrize("end", ENDS)
def test_a_session_ends_with_its_right_and_another_users_goes_on(shared, bob, end):
    with Echo(shared, new_token(shared, "admin")) as other, Echo(shared, bob) as mine:
        assert mine.answers()
        assert other.answers()
        ENDS[end](shared, bob)
        wait_until("the agent's end", mine.gone_there)
        lines = mine.last_words()
        assert [line[:7] for line in lines if not line.startswith("hint:")] == ["error: "], lines
        assert other.answers()


def test_a_client_that_is_stopped_is_cut_off_all_the_same(shared, bob):
    with Echo(shared, bob) as mine:
        mine.process.send_signal(signal.SIGSTOP)
        shared.ok("users", "suspend", "bob", "-y")
        wait_until("the agent's end", mine.gone_there)
        mine.process.send_signal(signal.SIGCONT)
        assert mine.last_words()


def test_a_restart_of_the_server_ends_nothing(shared, bob):
    with Echo(shared, bob) as mine:
        assert shared.stop("server") == 0
        assert mine.answers()
        shared.start_server()
        wait_until("the agent", lambda: shared.agent_status() == "connected")
        assert mine.answers()


def test_a_deleted_workspace_lets_nobody_stay(tmp_path):
    with deployed(tmp_path) as made, Echo(made, new_token(made, "admin")) as mine:
        made.ok("delete", "dev", "-y")
        wait_until("the agent's end", mine.gone_there)
        assert mine.last_words()
