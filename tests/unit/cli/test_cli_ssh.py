import asyncio
import shutil

import pytest
from fakes.server import AGENT_ID, agent, workspace
from hypothesis import given
from hypothesis import strategies as st

from coder.cli.api import Api
from coder.cli.commands.ssh import strip_host
from coder.cli.workspaces import Target


@pytest.fixture
def no_keys(monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


USAGE = f"POST /api/v2/workspaces/{workspace(agent())['id']}/usage"
NAME = st.from_regex(r"[a-z0-9]+(-[a-z0-9]+)*", fullmatch=True)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("coder.dev", "dev"),
        ("coder.me--dev", "me/dev"),
        ("coder.me--dev--main", "me/dev.main"),
        ("dev.coder", "dev"),
        ("main.dev.coder", "dev.main"),
        ("main.dev.me.coder", "me/dev.main"),
        ("dev", "dev"),
        ("me/dev.main", "me/dev.main"),
        ("dev.other", "dev.other"),
        ("devcoder", "devcoder"),
    ],
)
def test_a_host_name_names_a_workspace(host, name):
    assert strip_host(host, prefix="coder.", suffix="coder") == name


def test_without_prefix_and_suffix_a_name_is_itself():
    assert strip_host("coder.dev", prefix=None, suffix=None) == "coder.dev"
    assert strip_host("dev.coder", prefix="", suffix="") == "dev.coder"


def test_a_suffix_may_have_its_dot_and_more_of_them():
    assert strip_host("dev.ws.example", prefix=None, suffix=".ws.example") == "dev"


@given(owner=NAME, workspace=NAME, agent=NAME)
def test_each_way_to_write_a_host_leads_to_the_same_agent(owner, workspace, agent):
    target = Target(owner, workspace, agent)
    for host in (f"coder.{owner}--{workspace}--{agent}", f"{agent}.{workspace}.{owner}.coder"):
        assert Target.parse(strip_host(host, prefix="coder.", suffix="coder")) == target
    assert Target.parse(strip_host(f"{agent}.{workspace}.coder", prefix="coder.", suffix="coder")) == Target(
        "me", workspace, agent
    )


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--stdio", "dev", "true"), 2, "--stdio goes without a command"),
        (("-e", "x", "dev"), 2, "NAME=VALUE"),
        (("-A", "dev"), 2, "SSH_AUTH_SOCK"),
        (("nowhere", "true"), 255, "there is no workspace 'nowhere'"),
        (("--stdio", "nowhere"), 255, "there is no workspace 'nowhere'"),
    ],
)
@pytest.mark.usefixtures("no_keys")
def test_what_goes_wrong_here_is_told_in_the_last_line(coder, network, arguments, code, words):
    network.answers["GET /api/v2/users/me/workspace/nowhere"] = (404, {"message": "Resource not found."})
    run = coder("ssh", *arguments)
    assert run.code == code
    assert words in run.err.splitlines()[-1]
    assert run.out == ""


class Native:
    """The native client: runs no session, and remembers what it was asked for."""

    def __init__(self, monkeypatch, how="status", code=0, signal=""):
        self.asked = []
        self.result = (code, how, signal)
        monkeypatch.setattr("coder.dataplane.ssh.run_session", self.run)
        monkeypatch.setattr("coder.dataplane.ssh.join_stdio", self.join)

    async def run(self, stream, **session):
        stream.close()
        self.asked.append(session)
        return self.result

    async def join(self, stream):
        stream.close()
        self.asked.append("stdio")


def test_a_session_is_asked_for_as_the_flags_say(coder, network, monkeypatch):
    native = Native(monkeypatch, code=3)
    run = coder("ssh", "-t", "-e", "A=b=c", "-A", "dev", "ls", "-l", TERM="vt100", SSH_AUTH_SOCK="/keys")
    assert (run.code, run.out) == (3, "")
    assert native.asked == [
        {"command": "ls -l", "terminal": "vt100", "variables": [("A", "b=c")], "agent": "/keys"},
    ]


def test_a_signal_that_ended_the_process_is_named(coder, network, monkeypatch):
    Native(monkeypatch, how="signal", code=255, signal="SEGV")
    run = coder("ssh", "dev", "crash")
    assert (run.code, run.err.splitlines()[-1]) == (255, "The remote process was ended by signal SEGV.")


def test_a_lost_connection_is_our_own_failure(coder, network, monkeypatch):
    Native(monkeypatch, how="lost")
    run = coder("ssh", "dev", "true")
    assert run.code == 255
    assert run.err.splitlines()[-1].startswith("error: the connection to dev was lost")


def test_editors_call_it_with_flags_of_their_own(coder, network, monkeypatch, tmp_path):
    native = Native(monkeypatch)
    run = coder(
        "ssh", "--stdio", "--usage-app=vscode", "--disable-autostart=true", "--wait=no", "--force-new-tunnel",
        "--network-info-dir", str(tmp_path / "net"), "--network-info-interval", "3s",
        "--log-dir", str(tmp_path / "log"), "--ssh-host-prefix", "coder-vscode.host--",
        "coder-vscode.host--me--dev--main",
    )  # fmt: skip
    assert (run.code, run.out, native.asked) == (0, "", ["stdio"]), run.err
    [log] = (tmp_path / "log").iterdir()
    events = [line.split(" ", 1)[1] for line in log.read_text().splitlines()]
    assert events[0] == "connecting to me/dev.main"
    assert events[-1] == "ended with 0"
    assert (tmp_path / "net").is_dir()


def test_a_failure_is_in_the_log_too(coder, network, tmp_path):
    network.answers["GET /api/v2/users/me/workspace/nowhere"] = (404, {"message": "Resource not found."})
    (tmp_path / "log").mkdir()
    assert coder("ssh", "--log-dir", str(tmp_path / "log"), "nowhere", "true").code == 255
    [log] = (tmp_path / "log").iterdir()
    assert "failed: there is no workspace 'nowhere'" in log.read_text()


@pytest.mark.parametrize("flag", ["--log-dir", "--network-info-dir"])
def test_a_directory_that_cannot_be_is_one_line(coder, network, tmp_path, flag):
    (tmp_path / "file").touch()
    run = coder("ssh", flag, str(tmp_path / "file" / "x"), "dev", "true")
    assert run.code == 255
    [line] = run.err.splitlines()
    assert "file" in line


@pytest.mark.parametrize(
    "arguments", [("--stdio", "-G", "dev"), ("-c", "box", "dev"), ("--stdio", "-R", "1:a:2", "dev")]
)
def test_what_is_not_there_is_refused(coder, network, arguments):
    assert coder("ssh", *arguments).code == 2


@pytest.mark.parametrize("app", ["ssh", "vscode", "disable"])
def test_the_server_is_told_of_use_by_which_app(coder, network, monkeypatch, app):
    told = asyncio.Event()

    async def tell(note, name, clock):
        note(name)
        told.set()

    async def run(stream, **session):
        stream.close()
        if app != "disable":
            await told.wait()
        return 0, "status", ""

    monkeypatch.setattr("coder.cli.sessions.SETTLED", 0.0)
    monkeypatch.setattr("coder.cli.pulse.tell_usage", tell)
    monkeypatch.setattr("coder.dataplane.ssh.run_session", run)
    network.answers[USAGE] = (204, b"")
    assert coder("ssh", f"--usage-app={app}", "dev", "true").code == 0
    bodies = [call.body for call in network.calls if f"{call.method} {call.path}" == USAGE]
    assert bodies == ([] if app == "disable" else [{"agent_id": str(AGENT_ID), "app_name": app}])


def test_use_without_an_app_is_told_without_a_body(server):
    server.answers["POST /api/v2/workspaces/w/usage"] = (204, b"")
    with Api(server.url) as api:
        api.note_usage("w", "a", None)
    assert server.calls[-1].body is None


def test_options_behind_the_workspace_are_no_command(coder, network):
    run = coder("ssh", "dev", "-t", "htop")
    assert run.code == 2
    assert "coder ssh -t ... dev" in " ".join(run.err.split())


@pytest.mark.skipif(shutil.which("ssh") is None, reason="asks OpenSSH")
def test_a_forward_that_openssh_does_not_understand(coder, network):
    run = coder("ssh", "-R", "foo", "dev", "true")
    assert (run.code, run.err.splitlines()[-1]) == (
        255,
        "error: --remote-forward: Bad remote forwarding specification 'foo'. Write it like 8080:localhost:3000.",
    )


def test_a_log_goes_where_there_is_a_directory(coder, network, tmp_path):
    run = coder("ssh", "-l", str(tmp_path / "nope"), "dev", "true")
    assert run.code == 255
    assert "there is no directory" in run.err
    assert not (tmp_path / "nope").exists()
