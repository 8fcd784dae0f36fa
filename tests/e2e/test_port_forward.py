"""Ports of a workspace as ports of this machine, through real processes."""

import contextlib
import itertools
import random
import signal
import socket

import pytest

from e2e.deployment import wait_until
from e2e.services import PATIENCE, ask_udp, datagram_service, echo, free_ports, read_all, reverse_all, service

pytestmark = pytest.mark.e2e

NUMBERS = itertools.count()


@contextlib.contextmanager
def forwarding(workspace, *arguments, before=(), ready="Ready!"):
    """Run the command; the value is its log, and its process."""
    name = f"forward-{next(NUMBERS)}"
    process = workspace.start(name, *before, "port-forward", "dev", *arguments)
    try:
        wait_until("the ports", lambda: ready in workspace.log(name) or process.poll() is not None)
        assert process.poll() is None, workspace.log(name)
        yield lambda: workspace.log(name), process
    finally:
        workspace.stop(name, kill=True)


def call(port, host="127.0.0.1"):
    return socket.create_connection((host, port), timeout=PATIENCE)


def ask(port, payload, host="127.0.0.1"):
    """Send, finish, and return all that comes back."""
    with call(port, host) as connection:
        connection.sendall(payload)
        connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def test_megabytes_go_there_and_back_after_one_side_has_finished(workspace):
    [local] = free_ports()
    payload = random.Random(7).randbytes(5_000_000)
    with service(reverse_all) as remote, forwarding(workspace, "--tcp", f"{local}:{remote}") as (log, _):
        assert ask(local, payload) == payload[::-1]
        assert log().splitlines() == [
            f"Forwarding 'tcp://127.0.0.1:{local}' locally to 'tcp://127.0.0.1:{remote}' in the workspace",
            "Ready!",
        ]


def test_lists_ranges_and_addresses_lead_where_they_say(workspace):
    there = free_ports(2)
    here = free_ports(3)
    with (
        service(lambda connection: connection.sendall(b"other")) as other,
        socket.create_server(("127.0.0.1", there[0])) as first,
        socket.create_server(("127.0.0.1", there[1])) as second,
        forwarding(
            workspace, "--tcp", f"{here[0]}-{here[1]}:{there[0]}-{there[1]},[::1]:{here[2]}:{other}",
            "--tcp", f"127.0.0.2:{here[2]}:{other}",
        ),
    ):  # fmt: skip
        for listening, port in zip((first, second), here, strict=False):
            listening.settimeout(PATIENCE)
            with call(port) as ours, listening.accept()[0] as theirs:
                theirs.sendall(b"%d" % port)
                assert ours.recv(100) == b"%d" % port
        assert ask(here[2], b"", "::1") == b"other"
        assert ask(here[2], b"", "127.0.0.2") == b"other"
        with pytest.raises(ConnectionRefusedError):
            call(here[2])


def test_a_service_that_is_not_there_is_a_reset_and_told_once(workspace):
    local, nothing = free_ports(2)
    with forwarding(workspace, "--tcp", f"{local}:{nothing}") as (log, process):
        for _ in range(2):
            # The reset may come before connecting has returned.
            with pytest.raises(ConnectionResetError), call(local) as connection:
                connection.recv(1)
        assert log().splitlines()[-1] == f"Failed to dial 'tcp://127.0.0.1:{nothing}' in workspace: connection refused"
        assert log().count("Failed") == 1
        with socket.create_server(("127.0.0.1", nothing)) as late, call(local) as ours:
            late.settimeout(PATIENCE)
            with late.accept()[0] as theirs:
                theirs.sendall(b"now")
                assert ours.recv(10) == b"now"
        assert process.poll() is None


def test_a_service_that_cuts_the_connection_cuts_ours(workspace):
    def cut(connection):
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    [local] = free_ports()
    with service(cut) as remote, forwarding(workspace, "--tcp", f"{local}:{remote}"), call(local) as connection:
        connection.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_a_port_in_use_is_one_line_with_a_remedy(workspace):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = workspace.run("port-forward", "dev", "--tcp", str(port))
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert f"cannot listen on 127.0.0.1:{port}" in line
    assert "Choose another local port" in line


def test_a_workspace_that_is_not_there_is_one_line(workspace):
    [local] = free_ports()
    done = workspace.run("port-forward", "nowhere", "--tcp", str(local))
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "nowhere" in line


def test_a_signal_ends_it_with_a_word(workspace):
    [local] = free_ports()
    with (
        service(echo) as remote,
        forwarding(workspace, "--tcp", f"{local}:{remote}") as (log, process),
        call(local) as open_,
    ):
        open_.sendall(b"x")
        assert open_.recv(1) == b"x"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
        with pytest.raises(ConnectionResetError):
            open_.recv(1)
        assert log().splitlines()[-1] == "Received signal, closing all listeners and active connections"


def test_a_terminal_shows_live_counters(workspace):
    [local] = free_ports()
    with (
        service(echo) as remote,
        forwarding(workspace, "--tcp", f"{local}:{remote}", before=("--force-tty",), ready="LOCAL") as (log, _),
        call(local) as connection,
    ):
        connection.sendall(bytes(100_000))
        received = 0
        while received < 100_000:
            received += len(connection.recv(1 << 16))
        wait_until("the counters", lambda: log().count("100 kB") == 2)
        row = next(line for line in reversed(log().splitlines()) if line.startswith("127.0.0.1"))
        assert row.split() == [f"127.0.0.1:{local}", str(remote), "1", "1", "0", "100", "kB", "100", "kB"]


def test_udp_datagrams_go_there_and_back_beside_tcp(workspace):
    here = free_ports(3)
    with (
        datagram_service() as remote,
        service(echo) as other,
        forwarding(
            workspace,
            "--udp", f"{here[0]}:{remote},[::1]:{here[1]}:{remote}", "--udp", f"127.0.0.2:{here[2]}:{remote}",
            "--tcp", f"{here[0]}:{other}",
        ) as (log, process),
    ):  # fmt: skip
        assert ask_udp(here[0], b"abc") == b"cba"
        assert ask_udp(here[0], bytes(1232)) == bytes(1232)
        assert ask_udp(here[0], b"abc", "::1") == b"cba"
        assert ask_udp(here[1], b"def", "::1") == b"fed"
        assert ask_udp(here[2], b"ghi", "127.0.0.2") == b"ihg"
        assert ask(here[0], b"tcp") == b"tcp"
        assert f"Forwarding 'udp://127.0.0.1:{here[0]}' locally to 'udp://127.0.0.1:{remote}' in the workspace" in log()
        assert process.poll() is None


def test_a_udp_port_serves_again_when_another_agent_took_over(workspace):
    [local] = free_ports()
    with datagram_service() as remote, forwarding(workspace, "--udp", f"{local}:{remote}"):
        assert ask_udp(local, b"one") == b"eno"
        workspace.stop("agent", kill=True)
        workspace.start_agent()
        assert wait_until("the new agent", lambda: ask_udp(local, b"two", tries=60)) == b"owt"


def test_a_port_of_the_workspace_leads_to_this_machine(workspace):
    [there] = free_ports()
    payload = random.Random(8).randbytes(300_000)
    with service(reverse_all) as here, forwarding(workspace, "--reverse", f"{there}:{here}") as (log, _):

        def answered():
            with contextlib.suppress(ConnectionRefusedError):
                return ask(there, payload)
            return None

        assert wait_until("the port", answered) == payload[::-1]
        assert f"Forwarding 'tcp://127.0.0.1:{there}' in the workspace to 'tcp://127.0.0.1:{here}'" in log()


def test_a_connection_and_its_port_outlive_the_server(workspace):
    [local] = free_ports()
    with (
        service(echo) as remote,
        forwarding(workspace, "--tcp", f"{local}:{remote}") as (_, process),
        call(local) as kept,
    ):
        kept.sendall(b"before")
        assert kept.recv(100) == b"before"
        assert workspace.stop("server") == 0
        kept.sendall(b"while")
        assert kept.recv(100) == b"while"
        workspace.start_server()
        wait_until("the agent", lambda: workspace.agent_status() == "connected")
        kept.sendall(b"after")
        assert kept.recv(100) == b"after"
        assert ask(local, b"anew") == b"anew"
        assert process.poll() is None


def test_the_port_serves_again_when_another_agent_took_over(workspace):
    [local] = free_ports()
    with service(echo) as remote, forwarding(workspace, "--tcp", f"{local}:{remote}") as (_, process):
        assert ask(local, b"one") == b"one"
        workspace.stop("agent", kill=True)
        workspace.start_agent()

        def answered():
            with contextlib.suppress(OSError):
                return ask(local, b"two")
            return None

        assert wait_until("the new agent", answered) == b"two"
        assert process.poll() is None
