"""Shells, commands and forwarding in a workspace: by the command itself, and by OpenSSH through it."""

import contextlib
import fcntl
import hashlib
import json
import os
import pty
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from coder.cli import x11
from e2e.deployment import CODER, wait_until
from e2e.services import DRAW, PATIENCE, free_ports, read_all, reverse_all, service

pytestmark = pytest.mark.e2e

MEGABYTES = random.Random(5).randbytes(6_000_000)


def coder_ssh(workspace, *arguments, send=b"", **environment):
    return subprocess.run(
        [CODER, "ssh", *arguments],
        env=workspace.environment(**environment),
        input=send,
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_a_command_has_two_outputs_and_its_own_exit_code(workspace):
    done = coder_ssh(workspace, "dev", "echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")


def test_words_of_a_command_are_joined_as_ssh_does(workspace):
    done = coder_ssh(workspace, "dev", "echo", "a  b;", "exit", "4")
    assert (done.returncode, done.stdout) == (4, b"a b\n")


def test_megabytes_go_in_and_come_out(workspace):
    done = coder_ssh(workspace, "dev", "sha256sum", send=MEGABYTES)
    assert done.stdout.split()[0].decode() == hashlib.sha256(MEGABYTES).hexdigest()
    done = coder_ssh(workspace, "dev", "cat", send=MEGABYTES)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(MEGABYTES).digest()


def test_a_reader_that_leaves_ends_the_session_as_it_ends_programs(workspace):
    with subprocess.Popen(
        [CODER, "ssh", "dev", "yes"], env=workspace.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        assert process.wait(PATIENCE) == 128 + signal.SIGPIPE
        assert process.stderr.read() == b""


def test_without_a_terminal_there_is_none_unless_asked_for(workspace):
    assert coder_ssh(workspace, "dev", "test -t 1 || echo none").stdout == b"none\n"
    assert b"/dev/" in coder_ssh(workspace, "-t", "dev", "tty").stdout


def test_a_shell_reads_its_standard_input(workspace):
    done = coder_ssh(workspace, "dev", send=b"echo shell:$0; exit 7\n")
    assert done.returncode == 7
    assert b"shell:" in done.stdout


def test_a_session_knows_its_workspace_and_what_it_was_given(workspace):
    done = coder_ssh(workspace, "-e", "LC_FRUIT=pear", "dev", "echo $CODER/$CODER_WORKSPACE_NAME/$LC_FRUIT")
    assert done.stdout == b"true/dev/pear\n"


def test_a_relayed_session_works_too(workspace):
    done = coder_ssh(workspace, "dev", "cat; exit 9", send=b"x" * 100_000, CODER_DISABLE_DIRECT_CONNECTIONS="1")
    assert (done.returncode, len(done.stdout)) == (9, 100_000)


@pytest.mark.parametrize(
    "arguments", [("nowhere", "true"), ("--stdio", "nowhere"), ("dev.nobody", "true"), ("a/b/c", "true")]
)
def test_its_own_failures_are_255_and_one_line(workspace, arguments):
    done = coder_ssh(workspace, *arguments)
    assert (done.returncode, done.stdout) == (255, b"")
    [line] = done.stderr.splitlines()
    assert line.startswith(b"error: ")


def test_the_server_hears_of_each_session(workspace):
    def heard():
        """Actions on each connection since."""
        events = [json.loads(line) for line in workspace.log("server").splitlines()[before:] if line.startswith("{")]
        found = {}
        for event in events:
            if event["event"] == "agent.connection":
                assert (event["workspace"], event["kind"]) == ("dev", "ssh")
                assert event["peer"].startswith("fd7a:115c:a1e0:")
                found.setdefault(event["connection"], []).append(event["action"])
        return found

    before = len(workspace.log("server").splitlines())
    assert coder_ssh(workspace, "dev", "true").returncode == 0
    wait_until("both reports", lambda: ["connect", "disconnect"] in heard().values())


class Terminal:
    """The command on a terminal of its own."""

    def __init__(self, workspace, *arguments, rows=33, columns=101):
        self.ours, theirs = pty.openpty()
        self.resize(rows, columns)
        self.seen = b""
        self.process = subprocess.Popen(
            [CODER, "ssh", *arguments],
            env=workspace.environment(TERM="xterm"),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - makes one system call
        )
        os.set_blocking(self.ours, False)
        wait_until("the session", lambda: not termios.tcgetattr(theirs)[3] & termios.ICANON)
        os.close(theirs)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(PATIENCE)
        os.close(self.ours)

    def resize(self, rows, columns):
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text):
        os.write(self.ours, text)

    def expect(self, text):
        """Read until this is there."""

        def there():
            with contextlib.suppress(BlockingIOError, OSError):
                self.seen += os.read(self.ours, 1 << 16)
            return text in self.seen

        wait_until(f"{text!r} after {self.seen[-500:]!r}", there)


def test_a_login_shell_has_the_terminals_size_and_follows_it(workspace):
    with Terminal(workspace, "dev") as terminal:
        terminal.type(b"stty size; echo t=$TERM\r")
        terminal.expect(b"33 101\r\n")
        terminal.expect(b"t=xterm\r\n")
        terminal.resize(44, 120)
        terminal.type(b"until [ \"$(stty size)\" = '44 120' ]; do :; done; echo new$((1+1))\r")
        terminal.expect(b"new2\r\n")
        terminal.type(b"exit 6\r")
        assert terminal.process.wait(PATIENCE) == 6


def test_an_interrupt_reaches_the_command_and_not_the_session(workspace):
    with Terminal(workspace, "dev") as terminal:
        terminal.type(b"echo ready$((1+1)); sleep 1000\r")
        terminal.expect(b"ready2\r\n")
        terminal.type(b"\x03")
        terminal.type(b"echo still$((1+1))\r")
        terminal.expect(b"still2\r\n")
        assert terminal.process.poll() is None


def test_a_tilde_and_a_dot_at_the_start_of_a_line_end_it(workspace):
    with Terminal(workspace, "dev") as terminal:
        terminal.type(b"echo on$((1+1))\r")
        terminal.expect(b"on2\r\n")
        terminal.type(b"\r~.")
        assert terminal.process.wait(PATIENCE) == 255


@pytest.fixture
def openssh(workspace, config):
    """Run OpenSSH's client."""

    def run(*arguments, program="ssh", send=b"", **environment):
        return subprocess.run(
            [program, "-F", config, *arguments],
            env=workspace.environment(**environment),
            input=send,
            capture_output=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    "host", ["coder.dev", "dev.coder", "main.dev.coder", "main.dev.me.coder", "coder.me--dev", "coder.me--dev--main"]
)
def test_openssh_runs_a_command_on_every_kind_of_name(openssh, host):
    done = openssh(host, "echo out; echo err >&2; cat; exit 5", send=b"in")
    assert (done.returncode, done.stdout, done.stderr) == (5, b"out\nin", b"err\n")


@pytest.mark.skipif(shutil.which("xauth") is None, reason="OpenSSH asks xauth for the cookie")
def test_openssh_lends_its_screen(openssh, tmp_path):
    draw = tmp_path / "draw.py"
    draw.write_text(DRAW.format(src=str(Path(x11.__file__).parents[2])))
    shown = []

    def answer(connection):
        shown.append(connection.recv(100))
        connection.sendall(b"drawn")

    with service(answer) as port:
        # A display's number is its port's distance from 6000.
        display = f"127.0.0.1:{port - x11.FIRST_PORT}"
        cookies = {"DISPLAY": display, "XAUTHORITY": str(tmp_path / "cookies")}
        subprocess.run(["xauth", "-f", tmp_path / "cookies", "add", display, ".", "0123456789abcdef" * 2], check=True)
        done = openssh("-Y", "dev.coder", f"{sys.executable} {draw}", **cookies)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1] == b"drawn"
    [begin] = shown
    assert begin.endswith(bytes.fromhex("0123456789abcdef" * 2) + b"draw")


def test_openssh_gets_a_terminal(openssh):
    assert b"/dev/" in openssh("-tt", "dev.coder", "tty").stdout


def test_openssh_moves_megabytes(openssh):
    done = openssh("dev.coder", "tee /dev/stderr | sha256sum", send=MEGABYTES)
    assert done.stdout.split()[0].decode() == hashlib.sha256(MEGABYTES).hexdigest()
    assert done.stderr == MEGABYTES


def test_openssh_of_a_workspace_that_is_not_there_is_255_and_says_so(openssh):
    done = openssh("nowhere.coder", "true")
    assert done.returncode == 255
    assert b"there is no workspace 'nowhere'" in done.stderr.splitlines()[0]


@pytest.mark.parametrize("flags", [("-O",), ("-s",)], ids=["scp", "sftp"])
def test_scp_copies_there_and_back(openssh, tmp_path, flags):
    (tmp_path / "big file").write_bytes(MEGABYTES)
    done = openssh(*flags, "-p", str(tmp_path / "big file"), f"dev.coder:{tmp_path}/there", program="scp")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "there").read_bytes() == MEGABYTES
    done = openssh(*flags, f"dev.coder:{tmp_path}/there", str(tmp_path / "back"), program="scp")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back").read_bytes() == MEGABYTES


def test_git_clones_and_pushes(workspace, config, tmp_path):
    if shutil.which("git") is None:
        pytest.skip("there is no git")

    def git(*words):
        who = ("-c", "user.name=a", "-c", "user.email=a@example.com")
        environment = workspace.environment(GIT_SSH_COMMAND=f"ssh -F {config}", GIT_CONFIG_GLOBAL="/dev/null")
        return subprocess.run(["git", *who, *words], env=environment, check=True, capture_output=True, text=True).stdout

    there, here = tmp_path / "there.git", tmp_path / "here"
    git("init", "-q", "--bare", str(there))
    git("clone", "-q", f"dev.coder:{there}", str(here))
    (here / "file").write_bytes(MEGABYTES[:1_000_000])
    git("-C", str(here), "add", "file")
    git("-C", str(here), "commit", "-q", "-m", "one")
    git("-C", str(here), "push", "-q", "origin", "HEAD")
    assert git("-C", str(there), "log", "--all", "--format=%s") == "one\n"


@contextlib.contextmanager
def forwarding(workspace, config, *flags, port):
    """Keep OpenSSH forwarding; `port` is one that it, or the workspace, will listen on."""
    process = subprocess.Popen(
        ["ssh", "-F", config, "-N", "-o", "ExitOnForwardFailure=yes", *flags, "dev.coder"],
        env=workspace.environment(),
        stdin=subprocess.DEVNULL,
    )
    try:

        def listening():
            assert process.poll() is None
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=PATIENCE):
                return True
            return False

        wait_until("the port", listening)
        yield
    finally:
        process.kill()  # a gentler signal is overlooked now and then
        process.wait(PATIENCE)


def exchange(connection, payload):
    connection.sendall(payload)
    connection.shutdown(socket.SHUT_WR)
    return read_all(connection)


def test_local_and_remote_forwarding_carry_both_ways(workspace, config):
    payload = MEGABYTES[:1_000_000]
    for flag in ("-L", "-R"):
        [port] = free_ports()
        with (
            service(reverse_all) as target,
            forwarding(workspace, config, flag, f"{port}:127.0.0.1:{target}", port=port),
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection,
        ):
            assert exchange(connection, payload) == payload[::-1]


def test_dynamic_forwarding_leads_where_the_client_says(workspace, config):
    [port] = free_ports()
    with (
        service(reverse_all) as target,
        forwarding(workspace, config, "-D", str(port), port=port),
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection,
    ):
        connection.sendall(b"\5\1\0")  # SOCKS 5, one method: no authentication
        assert connection.recv(2) == b"\5\0"
        connection.sendall(b"\5\1\0\1" + socket.inet_aton("127.0.0.1") + struct.pack("!H", target))
        assert connection.recv(10)[:2] == b"\5\0"
        assert exchange(connection, b"abc") == b"cba"


def test_a_unix_socket_of_the_workspace_can_be_a_port_here(workspace, config, tmp_path):
    [port] = free_ports()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "service"))
        listening.listen()
        listening.settimeout(PATIENCE)
        with forwarding(workspace, config, "-L", f"{port}:{tmp_path}/service", port=port):
            listening.accept()[0].close()  # the one that looked whether the port is there
            with (
                socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as ours,
                listening.accept()[0] as theirs,
            ):
                ours.sendall(b"hello")
                assert theirs.recv(10) == b"hello"


def test_forwarding_to_nothing_closes_the_connection_and_keeps_the_session(workspace, config):
    port, nothing = free_ports(2)
    with forwarding(workspace, config, "-L", f"{port}:127.0.0.1:{nothing}", port=port):
        for _ in range(2):
            with (
                socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection,
                contextlib.suppress(ConnectionResetError),
            ):
                assert connection.recv(1) == b""


@pytest.fixture
def key_agent(tmp_path):
    """A running agent with one key; the value is its socket and what it calls the key."""
    if not all(map(shutil.which, ("ssh-agent", "ssh-add", "ssh-keygen"))):
        pytest.skip("there is no OpenSSH key agent")
    path = str(tmp_path / "keys")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "pear", "-f", tmp_path / "key"], check=True
        )
        wait_until("the key agent", (tmp_path / "keys").exists)
        environment = os.environ | {"SSH_AUTH_SOCK": path}
        subprocess.run(["ssh-add", "-q", tmp_path / "key"], env=environment, check=True)
        yield path
    finally:
        process.kill()
        process.wait(PATIENCE)


def test_a_key_agent_is_forwarded_by_openssh_and_by_us_when_asked(workspace, openssh, key_agent):
    for done in (
        openssh("-A", "dev.coder", "ssh-add -l", SSH_AUTH_SOCK=key_agent),
        coder_ssh(workspace, "-A", "dev", "ssh-add -l", SSH_AUTH_SOCK=key_agent),
    ):
        assert done.returncode == 0, done.stderr
        assert b" pear (ED25519)" in done.stdout
    done = coder_ssh(workspace, "dev", "ssh-add -l", SSH_AUTH_SOCK=key_agent)
    assert b"pear" not in done.stdout


@pytest.mark.parametrize("program", ["coder", "openssh"])
def test_a_session_outlives_the_server(workspace, config, program):
    command = [CODER, "ssh", "dev", "cat"] if program == "coder" else ["ssh", "-F", config, "dev.coder", "cat"]
    process = subprocess.Popen(
        command, env=workspace.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:

        def say(text):
            process.stdin.write(text)
            process.stdin.flush()
            assert process.stdout.read(len(text)) == text

        say(b"before")
        assert workspace.stop("server") == 0
        say(b"while")
        workspace.start_server()
        wait_until("the agent", lambda: workspace.agent_status() == "connected")
        say(b"after")
        rest, _ = process.communicate(timeout=PATIENCE)
        assert (process.returncode, rest) == (0, b"")
    finally:
        process.kill()
        process.wait(PATIENCE)


def test_a_port_of_the_workspace_leads_here_for_as_long_as_a_session(workspace, config):
    [there] = free_ports()
    place = f"/dev/tcp/127.0.0.1/{there}"
    look = f"until (exec 3<>{place}) 2>/dev/null; do :; done; exec 3<>{place}; cat <&3"
    with service(lambda connection: connection.sendall(b"from here")) as here:
        done = coder_ssh(workspace, "-R", f"{there}:127.0.0.1:{here}", "dev", f"bash -c '{look}'")
    assert (done.returncode, done.stdout) == (0, b"from here"), done.stderr


def test_a_session_whose_client_is_told_to_go_is_over_at_the_other_end_too(workspace, config, tmp_path):
    there = tmp_path / "there"
    command = ["ssh", "-F", config, "-N", "-R", f"{there}:127.0.0.1:9", "dev.coder"]
    process = subprocess.Popen(command, env=workspace.environment(), stdin=subprocess.DEVNULL)
    wait_until("the socket in the workspace", there.exists)
    process.terminate()
    process.wait(PATIENCE)
    wait_until("its end", lambda: not there.exists())


def test_an_editor_finds_figures_and_a_log_of_its_connection(workspace, config, tmp_path):
    places = f"--network-info-dir {tmp_path}/net --network-info-interval 1s --log-dir {tmp_path}/log"
    proxy = f"ProxyCommand={CODER} ssh --stdio --usage-app=vscode {places} dev"
    command = ["ssh", "-F", config, "-o", proxy, "dev.coder", "cat"]
    process = subprocess.Popen(command, env=workspace.environment(), stdin=subprocess.PIPE)
    try:
        file = tmp_path / "net" / f"{process.pid}.json"
        wait_until("the figures", file.exists)
        found = json.loads(file.read_text())
        assert found["latency"] > 0
        assert found["preferred_derp"] == "Coder Embedded Relay"
    finally:
        process.communicate(timeout=PATIENCE)
    [log] = (tmp_path / "log").iterdir()
    assert log.name.endswith(f"-{process.pid}.log")
    assert " reached fd7a:" in log.read_text()
