import asyncio
import errno
import os
import signal
import socket
import sys

import pytest

from coder.cli import forwarding, forwards, main, reverse
from coder.cli.commands import port_forward
from coder.cli.datagrams import DatagramListener
from coder.cli.forwarding import Figures, Listener
from coder.dataplane.values import DatagramStats
from coder.errors import Closed, CoderError, StreamReset, TimedOut, Unreachable

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts the bytes of a socket")


class Node:
    """Joins each connection to a service in the same loop."""

    def __init__(self, service):
        self.service = service
        self.asked = []

    async def splice(self, local, address, port):
        self.asked.append((address, port))
        local.setblocking(False)
        with local:
            await self.service(local)


async def echo(local):
    loop = asyncio.get_running_loop()
    while part := await loop.sock_recv(local, 1 << 16):
        await loop.sock_sendall(local, part)


class Served:
    """A listener on a free port whose connections a node serves."""

    def __init__(self, service, bind="127.0.0.1"):
        self.node = Node(service)
        self.told = []
        self.listener = Listener(
            forwards.Forward("tcp", bind, 0, 80), self.way, lambda _, error: self.told.append(error)
        )

    async def way(self):
        return self.node, "fd7a::1"

    async def __aenter__(self):
        self.listener.bind()
        self.listener.start()
        return self

    async def __aexit__(self, *_):
        await self.listener.close()

    async def call(self):
        port = self.listener._sockets[0].getsockname()[1]
        return await asyncio.open_connection("127.0.0.1", port)


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - these are counters, and files of other processes
            await asyncio.sleep(0)


@LINUX
async def test_bytes_are_counted_while_a_connection_is_open_and_after():
    async with Served(echo) as served:
        reader, writer = await served.call()
        writer.write(bytes(1000))
        assert await reader.readexactly(1000) == bytes(1000)
        assert (served.listener.open, served.listener.opened) == (1, 1)
        await until(lambda: served.listener.moved == (1000, 1000))
        writer.close()
        await until(lambda: served.listener.open == 0)
        assert served.listener.moved[0] in {1000, 1001}  # the end of a stream has a number too
        assert served.node.asked == [("fd7a::1", 80)]


@pytest.mark.parametrize("error", [Unreachable("connection refused"), TimedOut("no answer in time")])
async def test_a_connection_that_never_began_is_reset_and_told(error):
    async def refuse(local):
        raise error

    async with Served(refuse) as served:
        reader, _ = await served.call()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        assert served.told == [error]
        assert served.listener.failed == 1


async def test_a_connection_that_breaks_later_is_reset_and_not_told():
    async def cut(local):
        raise StreamReset("connection reset")

    async with Served(cut) as served:
        reader, _ = await served.call()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        assert (served.told, served.listener.failed) == ([], 0)


async def test_closing_resets_what_is_open():
    async with Served(echo) as served:
        reader, writer = await served.call()
        writer.write(b"x")
        await reader.readexactly(1)
    with pytest.raises(ConnectionResetError):
        await reader.read()


async def test_connections_wait_for_the_tunnel_for_a_while_only(monkeypatch):
    monkeypatch.setattr(forwarding, "PATIENCE", 0.0)
    served = Served(echo)
    served.listener._way = lambda: asyncio.Event().wait()
    async with served:
        reader, _ = await served.call()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        [error] = served.told
        assert "no connection to the workspace" in str(error)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.EADDRINUSE, "another local port"), (errno.EACCES, "1024"), (errno.EADDRNOTAVAIL, "has")],
)
def test_a_port_that_the_system_keeps_is_explained(monkeypatch, number, remedy):
    def refuse(self, address):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(CoderError, match=r"cannot listen on 127\.0\.0\.1:80") as caught:
        Listener(forwards.Forward("tcp", None, 80, 80), None, None).bind()
    assert remedy in caught.value.remedy


class DatagramNode:
    """Counts for a socket what it is told to, and is closed on demand."""

    def __init__(self, **counts):
        self.stats = DatagramStats(**counts)
        self.over = asyncio.Event()
        self.asked = []

    async def forward_datagrams(self, local, address, port, on_start):
        self.asked.append((address, port))
        on_start(lambda: self.stats)
        with local:
            await self.over.wait()
        raise Closed("the node is closed")


async def test_a_udp_port_goes_from_node_to_node_and_its_counters_go_on():
    nodes = [
        DatagramNode(open=2, opened=3, lost=1, sent=100, received=50),
        DatagramNode(open=1, opened=1, lost=0, sent=7, received=5),
    ]
    ways = iter(nodes)

    async def way():
        node = next(ways, None)
        if node is None:
            await asyncio.Event().wait()
        return node, "fd7a::1"

    listener = DatagramListener(forwards.Forward("udp", "127.0.0.1", 0, 53), way, None)
    listener.bind()
    listener.start()
    await until(lambda: nodes[0].asked)
    assert listener.figures() == Figures(2, 3, 1, 100, 50)
    nodes[0].over.set()
    await until(lambda: nodes[1].asked)
    assert listener.figures() == Figures(1, 4, 1, 107, 55)
    assert port_forward._row(listener) == ["127.0.0.1:0/udp", "53", "1", "4", "1", "107 B", "55 B"]
    await listener.close()
    assert nodes[1].asked == [("fd7a::1", 53)]


async def test_a_udp_port_that_cannot_be_served_is_told_and_tried_again(monkeypatch):
    monkeypatch.setattr("coder.cli.datagrams.RETRY", 0.0)
    told = []

    class Refusing:
        async def forward_datagrams(self, local, *_):
            local.close()
            raise Unreachable("no buffer space")

    async def way():
        return Refusing(), "fd7a::1"

    listener = DatagramListener(forwards.Forward("udp", None, 0, 53), way, lambda _, error: told.append(str(error)))
    listener.bind()
    listener.start()
    await until(lambda: len(told) > 2)
    await listener.close()
    assert set(told) == {"no buffer space"}


def test_a_udp_port_that_is_taken_is_one_line():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(CoderError, match=f"cannot listen on 127.0.0.1:{port}"):
            DatagramListener(forwards.Forward("udp", None, port, port), None, None).bind()


def free_port():
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return chosen.getsockname()[1]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "no port-forwards requested"),
        (("--tcp", "x"), 2, "is no port to forward"),
        (("--tcp", "1,1"), 2, "is specified twice"),
        (("--udp", "53-52"), 2, "ends before it begins"),
    ],
)
def test_what_cannot_be_forwarded_is_one_line(coder, config, arguments, code, words):
    run = coder("port-forward", "dev", *arguments)
    assert run.code == code
    assert words in run.err.splitlines()[-1]


def test_a_workspace_that_is_not_there_ends_the_command(coder, network):
    run = coder("port-forward", "nowhere", "--tcp", str(free_port()))
    assert run.code == 1
    assert "nowhere" in run.err


def test_a_table_is_redrawn_in_place_and_notes_go_above(capsys):
    screen = port_forward.Screen(live=True)
    served = Listener(forwards.Forward("tcp", None, 8080, 80), None, None)
    screen.listeners = [served]
    screen._show()
    screen._show()
    first = capsys.readouterr().err
    assert first.splitlines()[1].split() == ["127.0.0.1:8080", "80", "0", "0", "0", "0", "B", "0", "B"]
    assert first.count("LOCAL") == 1
    screen.note("bad \x1b[31m news")
    noted = capsys.readouterr().err
    assert noted.startswith("\x1b[2A\x1b[Jbad ?[31m news\n")
    assert noted.endswith(first)
    served.opened = 1
    screen._show()
    assert capsys.readouterr().err.startswith("\x1b[2A\x1b[J")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1536, "1.54 kB"), (1_500_000, "1.5 MB"), (10**15, "1000 TB")],
)
def test_sizes_have_three_digits(count, text):
    assert port_forward._size(count) == text


class Tunnel(port_forward.Tunnel):
    """A tunnel whose workspace has the agents of a list, one after the other."""

    def __init__(self, address):
        self.notes = []
        screen = port_forward.Screen(live=False)
        screen.note = self.notes.append
        super().__init__(None, "dev", 1.0, screen)
        self._connection = type("Connection", (), {"address": address, "node": None})
        self._address = lambda: "fd7a::2"


async def test_another_agent_of_the_workspace_is_noticed_when_nothing_answers():
    listener = Listener(forwards.Forward("tcp", None, 8080, 80), None, None)
    listener.opened = listener.failed = 1
    for address, lost in (("fd7a::1", True), ("fd7a::2", False)):
        tunnel = Tunnel(address)
        tunnel.failed(listener, TimedOut("no answer in time"))
        await tunnel._doubt
        assert tunnel._lost.is_set() == lost
        assert tunnel.notes == ["Failed to dial 'tcp://127.0.0.1:80' in workspace: no answer in time"]


def test_a_refusal_says_nothing_about_the_agent_and_is_told_again_only_after_a_success():
    listener = Listener(forwards.Forward("tcp", None, 8080, 80), None, None)
    tunnel = Tunnel("fd7a::1")
    for opened, failed, notes in ((1, 1, 1), (2, 2, 1), (4, 3, 2)):
        listener.opened, listener.failed = opened, failed
        tunnel.failed(listener, Unreachable("connection refused"))
        assert len(tunnel.notes) == notes
    assert tunnel._doubt is None


def test_names_cannot_become_flags_or_commands_of_the_ssh_client():
    wanted = forwards.parse("tcp", ["8080:80,[::]:1:2,0.0.0.0:3"])
    made = reverse.arguments("-x 'a;b'%h", [reverse.spec(forward) for forward in wanted])
    assert made[-1] == "workspace"
    [proxy] = [word for word in made if word.startswith("ProxyCommand=")]
    assert proxy.endswith(""" ssh --stdio -- '-x '"'"'a;b'"'"'%%h'""")
    assert [made[at + 1] for at, word in enumerate(made) if word == "-R"] == [
        "localhost:8080:127.0.0.1:80",
        "[::]:1:127.0.0.1:2",
        "0.0.0.0:3:127.0.0.1:3",
    ]


def test_global_flags_reach_the_inner_command_by_its_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("CODER_URL", "https://b.example")
    words = (
        "--token", "secret", "--global-config", str(tmp_path), "--header", "X-A=b", "--header", "X-C=d",
        "--disable-direct-connections", "list",
    )  # fmt: skip
    with main.group.make_context("coder", list(words)) as context:
        made = reverse.environment(context)
    assert set(made.items()) - set(os.environ.items()) == {
        ("CODER_SESSION_TOKEN", "secret"),
        ("CODER_CONFIG_DIR", str(tmp_path)),
        ("CODER_HEADER", "X-A=b,X-C=d"),
        ("CODER_DISABLE_DIRECT_CONNECTIONS", "1"),
    }
    assert made["CODER_URL"] == "https://b.example"


async def test_the_last_words_of_the_ssh_client_are_kept():
    said = await reverse._once(["/bin/sh", "-c", "echo one >&2; echo two >&2; echo >&2; exit 1"], dict(os.environ))
    assert said == "two"


async def test_a_cancelled_ssh_client_ends(tmp_path):
    mark = tmp_path / "pid"
    work = asyncio.ensure_future(
        reverse._once(
            ["/bin/sh", "-c", f"echo $$ > {mark}.new; mv {mark}.new {mark}; exec sleep 1000"], dict(os.environ)
        )
    )
    await until(mark.exists)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), signal.SIGKILL)


def test_without_an_ssh_client_reverse_says_so(coder, signed_in, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    run = coder("port-forward", "dev", "--reverse", "8080")
    assert run.code == 1
    assert "openssh-client" in run.err
