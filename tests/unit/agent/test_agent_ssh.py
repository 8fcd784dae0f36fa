"""What SSH sessions of an agent find, and what the server hears of them."""

import hashlib
import os
import pwd
import socket
from datetime import timedelta
from uuid import UUID

import pytest

from coder.agent import sessions, shell
from coder.clock import FakeClock
from coder.dataplane.ssh import SshBegan, SshEnded, SshPolicy
from coder.ids import Secret
from coder.wire.proto import agent_pb2 as pb

CONNECT, DISCONNECT = pb.Connection.Action.CONNECT, pb.Connection.Action.DISCONNECT
POLICY = SshPolicy(shell="/bin/sh", home="/", directory="/")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The home directory of a user whose shell is known."""
    entry = pwd.struct_passwd(("ann", "x", os.getuid(), 1, "", str(tmp_path), "/bin/zsh"))
    monkeypatch.setattr("pwd.getpwuid", lambda number: entry)
    return tmp_path


def manifest(**fields):
    names = {"owner_username": "ann", "workspace_name": "dev", "agent_name": "main"}
    return pb.Manifest(**names | fields)


def policy(given, *, directory="/", environ=None, **options):
    return shell.policy(given, directory=directory, token="agent-token", environ=environ or {}, **options)


def test_a_session_finds_its_user_workspace_and_a_connection(home):
    found = policy(manifest(vs_code_port_proxy_uri="https://{{port}}.example"))
    assert found.shell == "/bin/zsh"
    assert found.home == str(home)
    assert found.defaults == {
        "CODER": "true",
        "CODER_WORKSPACE_NAME": "dev",
        "CODER_WORKSPACE_AGENT_NAME": "main",
        "CODER_WORKSPACE_OWNER_NAME": "ann",
        "CODER_AGENT_TOKEN": "agent-token",
        "VSCODE_PROXY_URI": "https://{{port}}.example",
        "USER": "ann",
        "LOGNAME": "ann",
        "HOME": str(home),
        "SHELL": "/bin/zsh",
        "SSH_CLIENT": "0.0.0.0 0 0",
        "SSH_CONNECTION": "0.0.0.0 0 0.0.0.0 0",
    }


def test_the_agents_environment_is_inherited_without_its_own_settings(home):
    environ = {"PATH": "/bin", "LANG": "C", "CODER_AGENT_TOKEN": "other", "CODER_AGENT_URL": "x", "HOME": "/elsewhere"}
    found = policy(manifest(), environ=environ).defaults
    assert (found["PATH"], found["LANG"], found["HOME"]) == ("/bin", "C", str(home))
    assert found["CODER_AGENT_TOKEN"] == "agent-token"
    assert "CODER_AGENT_URL" not in found
    assert "VSCODE_PROXY_URI" not in found


def test_what_the_workspace_sets_no_client_changes(home):
    assert policy(manifest(environment_variables={"EDITOR": "ed"})).overrides == {"EDITOR": "ed"}


def test_secrets_are_in_no_repr(home):
    found = repr(policy(manifest(environment_variables={"PASSWORD": "pear"})))
    assert "agent-token" not in found
    assert "pear" not in found


def test_a_session_starts_where_it_can(home, tmp_path):
    there = tmp_path / "project"
    there.mkdir()
    assert policy(manifest(), directory=str(there)).directory == str(there)
    assert policy(manifest(), directory=str(tmp_path / "missing")).directory == str(home)


def test_a_user_without_a_home_starts_at_the_root(monkeypatch, tmp_path):
    entry = pwd.struct_passwd(("ann", "x", os.getuid(), 1, "", str(tmp_path / "missing"), ""))
    monkeypatch.setattr("pwd.getpwuid", lambda number: entry)
    found = policy(manifest(), directory=str(tmp_path / "missing"))
    assert (found.directory, found.shell) == ("/", "/bin/sh")


def test_a_user_whom_the_system_does_not_know_has_what_the_environment_says(monkeypatch):
    def unknown(number):
        raise KeyError(number)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/srv")
    monkeypatch.setenv("SHELL", "/bin/fish")
    assert shell.login() == (str(os.getuid()), "/srv", "/bin/fish")
    monkeypatch.setenv("USER", "bob")
    monkeypatch.delenv("SHELL")
    assert shell.login() == ("bob", "/srv", "/bin/sh")


def test_the_message_of_the_day_is_hushed_by_its_file(home):
    given = manifest(motd_path="/etc/motd")
    assert policy(given).motd == "/etc/motd"
    assert policy(manifest()).motd is None
    (home / ".hushlogin").touch()
    assert policy(given).motd is None


def test_file_transfer_is_blocked_when_the_agent_is_told_to():
    assert policy(manifest(), block_file_transfer=True).block_file_transfer
    assert not policy(manifest()).block_file_transfer


def test_the_host_key_belongs_to_the_agents_token():
    seeds = {shell.host_seed(Secret(str(UUID(int=number)))) for number in (1, 2, 2)}
    assert len(seeds) == 2
    assert {len(seed) for seed in seeds} == {32}
    assert hashlib.sha256(str(UUID(int=1)).encode()).digest() not in seeds


class Server:
    """An SSH server that serves nobody: the test says what it notices."""

    made = None

    def __init__(self, seed, policy, on_notice, *, silence):
        self.seed, self.policies, self.notice, self.silence = seed, [policy], on_notice, silence
        self.streams = []
        self.closed = False
        self.made.append(self)

    def set_policy(self, policy):
        self.policies.append(policy)

    def serve(self, stream):
        self.streams.append(stream)
        return len(self.streams)

    async def close(self):
        self.closed = True


@pytest.fixture
def servers(monkeypatch):
    monkeypatch.setattr(Server, "made", [])
    monkeypatch.setattr(sessions, "SshServer", Server)
    return Server.made


@pytest.fixture
def stream():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours


class Copies(list):
    """Reports as they were when they were made."""

    def append(self, connection):
        copied = pb.Connection()
        copied.CopyFrom(connection)
        super().append(copied)


def test_a_session_is_reported_when_it_begins_and_ends(servers, stream):
    clock, reports = FakeClock(), Copies()
    made = sessions.Sessions(b"seed", POLICY, clock, reports.append)
    assert servers == []
    made.serve(stream, "fd7a::7")
    [server] = servers
    server.notice(SshBegan(session=1, kind="vscode"))
    clock._elapsed = 5.0
    server.notice(SshEnded(session=1, status=3, reason=""))
    began, ended = reports
    assert (began.action, began.type, began.ip) == (CONNECT, pb.Connection.Type.VSCODE, "fd7a::7")
    assert len(began.id) == 16
    assert (ended.action, ended.type, ended.ip, ended.id) == (DISCONNECT, began.type, "fd7a::7", began.id)
    assert ended.status_code == 3
    assert ended.timestamp.ToDatetime() - began.timestamp.ToDatetime() == timedelta(seconds=5)


@pytest.mark.parametrize(
    ("kind", "expected"), [("ssh", "SSH"), ("vscode", "VSCODE"), ("jetbrains", "JETBRAINS"), ("other", "SSH")]
)
def test_each_kind_of_client_has_its_type(servers, stream, kind, expected):
    reports = Copies()
    sessions.Sessions(b"seed", POLICY, FakeClock(), reports.append).serve(stream, "fd7a::7")
    servers[0].notice(SshBegan(session=1, kind=kind))
    assert reports[0].type == pb.Connection.Type.Value(expected)


def test_sessions_are_told_apart_and_one_that_ran_nothing_is_not_reported(servers, stream):
    reports = Copies()
    made = sessions.Sessions(b"seed", POLICY, FakeClock(), reports.append)
    for source in ("fd7a::1", "fd7a::2", "fd7a::3"):
        made.serve(stream, source)
    [server] = servers
    server.notice(SshBegan(session=2, kind="ssh"))
    server.notice(SshBegan(session=1, kind="ssh"))
    server.notice(SshEnded(session=3, status=None, reason="no key exchange"))
    server.notice(SshEnded(session=2, status=None, reason="the stream broke"))
    assert [(report.action, report.ip) for report in reports] == [
        (CONNECT, "fd7a::2"),
        (CONNECT, "fd7a::1"),
        (DISCONNECT, "fd7a::2"),
    ]
    assert (reports[2].status_code, reports[2].reason) == (0, "the stream broke")
    assert reports[0].id != reports[1].id


async def test_a_new_policy_holds_before_and_after_the_first_session(servers, stream):
    made = sessions.Sessions(b"seed", POLICY, FakeClock(), lambda _: None, silence=3600.0)
    later = [SshPolicy(shell=f"/bin/{n}", home="/", directory="/") for n in range(2)]
    made.set_policy(later[0])
    made.serve(stream, "fd7a::7")
    made.set_policy(later[1])
    [server] = servers
    assert (server.seed, server.policies, server.silence) == (b"seed", later, 3600.0)
    await made.close()
    assert server.closed


async def test_closing_before_any_session_is_no_trouble(servers):
    await sessions.Sessions(b"seed", POLICY, FakeClock(), lambda _: None).close()
    assert servers == []
