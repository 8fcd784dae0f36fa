"""Terminals that outlive their connections: real shells, sockets in memory."""

import asyncio
import json
import os
import socket
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from coder.agent import pty
from coder.agent.pty import DETACHED_FOR, MAX_TERMINALS, Setting, Terminals
from coder.agent.pty_messages import MAX_MESSAGE, Hello, Reader, Resized, Typed
from coder.agent.pty_output import RESET, Output
from coder.clock import FakeClock
from coder.errors import PeerMisbehaved

ID = UUID("7a0c0f7e-3f5e-4a58-9a53-7d0d1a3b5c11")
PATIENCE = 20


class Client:
    """The other end of a stream."""

    def __init__(self, terminals: Terminals, hello: bytes) -> None:
        self.stream, theirs = socket.socketpair()
        self.stream.setblocking(False)
        self.seen = b""
        self.stream.send(hello)
        terminals.serve(theirs, "fd7a::1")

    async def until(self, text: bytes) -> bytes:
        async with asyncio.timeout(PATIENCE):
            while text not in self.seen:
                piece = await asyncio.get_running_loop().sock_recv(self.stream, 1 << 16)
                assert piece, f"ended after {self.seen!r}"
                self.seen += piece
        return self.seen

    async def rest(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            while piece := await asyncio.get_running_loop().sock_recv(self.stream, 1 << 16):
                self.seen += piece
        return self.seen

    async def say(self, **message: object) -> None:
        await asyncio.get_running_loop().sock_sendall(self.stream, json.dumps(message).encode())


def hello(number=ID, command="cat", rows=24, columns=80, **more):
    body = json.dumps({"ID": str(number), "Height": rows, "Width": columns, "Command": command, **more}).encode()
    return len(body).to_bytes(2, "little") + body


class Lab:
    def __init__(self, place):
        self.clock, self.reports = FakeClock(), []
        environment = {"PATH": os.environ["PATH"], "HOME": str(place), "PS1": "ready> "}
        setting = Setting(shell="/bin/sh", directory=str(place), environment=environment)
        self.terminals = Terminals(setting, self.clock, self.reports.append)
        self.clients = []

    def client(self, **what):
        self.clients.append(Client(self.terminals, hello(**what)))
        return self.clients[-1]

    async def eventually(self, condition):
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - what other processes do makes no event here
                await asyncio.sleep(0.001)


@pytest.fixture
async def lab(tmp_path):
    made = Lab(tmp_path)
    yield made
    await made.terminals.close()
    for client in made.clients:
        client.stream.close()


async def test_a_terminal_has_the_limit_of_open_files_it_is_given(lab: Lab):
    lab.terminals.setting = replace(lab.terminals.setting, open_files=200)
    client = lab.client(command="ulimit -Sn")
    assert b"200" in await client.rest()


async def test_what_is_typed_is_echoed_and_read(lab):
    client = lab.client()
    await client.say(data="hello\r")
    assert (await client.until(b"hello\r\nhello\r\n")).count(b"hello") == 2


async def test_without_a_command_it_is_a_login_shell_on_a_terminal_of_its_own(lab):
    client = lab.client(command="", rows=31, columns=97)
    await client.say(data="echo $TERM; stty size; tty; ps -o stat= -p $$; exit 3\r")
    seen = await client.rest()
    assert b"xterm-256color\r\n31 97\r\n/dev/pts/" in seen
    await lab.eventually(lambda: len(lab.reports) == 2)
    assert (lab.reports[1].ended, lab.reports[1].status) == ("the program has ended", 3)


async def test_the_window_follows_whoever_resizes(lab):
    client = lab.client(command="trap 'stty size' WINCH; echo up; while :; do sleep 0.05; done")
    await client.until(b"up")
    await client.say(height=40, width=120)
    await client.until(b"40 120")


async def test_an_interrupt_reaches_the_program(lab):
    client = lab.client(command="trap 'echo caught; exit' INT; echo up; while :; do sleep 0.05; done")
    await client.until(b"up")
    await client.say(data="\x03")
    assert b"caught" in await client.rest()


async def test_another_connection_finds_what_was_printed_and_shares_what_comes(lab):
    first = lab.client()
    await first.say(data="one\r")
    await first.until(b"one\r\none")
    second = lab.client()
    await second.until(b"one\r\none")
    await second.say(data="two\r")
    await first.until(b"two\r\ntwo")
    await second.until(b"two\r\ntwo")
    assert (len(lab.terminals), lab.terminals.viewers) == (1, 2)


async def test_a_terminal_outlives_its_connections_for_a_while(lab):
    first = lab.client()
    await first.say(data="kept\r")
    await first.until(b"kept\r\nkept")
    first.stream.close()
    await lab.eventually(lambda: lab.terminals.viewers == 0)
    await lab.clock.advance(DETACHED_FOR - 1)
    second = lab.client()
    await second.until(b"kept\r\nkept")
    second.stream.close()
    await lab.eventually(lambda: lab.terminals.viewers == 0)
    await lab.clock.advance(DETACHED_FOR - 1)
    assert len(lab.terminals) == 1
    await lab.clock.advance(2)
    await lab.eventually(lambda: len(lab.terminals) == 0)


async def test_viewers_are_reported_by_their_address(lab):
    client = lab.client()
    await client.say(data="x\r")
    await client.until(b"x\r\nx")
    assert [(one.source, one.ended) for one in lab.reports] == [("fd7a::1", None)]
    client.stream.close()
    await lab.eventually(lambda: len(lab.reports) == 2)
    assert lab.reports[1].key is lab.reports[0].key


async def test_a_slow_viewer_makes_the_program_wait_and_loses_nothing(lab):
    client = lab.client(command="i=0; while [ $i -lt 60000 ]; do echo line-$i; i=$((i+1)); done; echo the end")
    await lab.eventually(
        lambda: lab.terminals._terminals and not next(iter(lab.terminals._terminals.values()))._reading
    )
    [terminal] = lab.terminals._terminals.values()
    held = terminal._output.end - terminal.viewers[0].offset
    assert held <= pty.BEHIND + 2 * pty._PIECE
    seen = await client.rest()
    assert seen.count(b"line-") == 60000
    assert seen.endswith(b"the end\r\n")


async def test_a_viewer_slower_than_another_starts_over_and_holds_nobody_up(lab):
    quick = lab.client(command="read go; i=0; while [ $i -lt 120000 ]; do echo line-$i; i=$((i+1)); done; echo the end")
    await lab.eventually(lambda: lab.terminals.viewers == 1)
    slow = lab.client()
    await lab.eventually(lambda: lab.terminals.viewers == 2)
    await quick.say(data="\r")
    assert (await quick.rest()).count(b"line-") == 120000
    seen = await slow.rest()
    assert RESET in seen
    assert seen.endswith(b"the end\r\n")


@pytest.mark.parametrize(
    "first",
    [b"\x02\x00{", b"\x02\x00[]", b"\x04\x00null", b"\x02\x00{}", b"\x0c\x00" + b'{"ID":"nope"', hello(rows=-1)],
)
async def test_a_first_message_that_is_none_ends_the_connection(lab, first):
    client = Client(lab.terminals, first)
    lab.clients.append(client)
    client.stream.shutdown(socket.SHUT_WR)
    assert await client.rest() == b""
    assert len(lab.terminals) == 0


async def test_what_cannot_be_started_is_said(lab):
    lab.terminals.setting = Setting(shell="/bin/sh", directory="/nowhere", environment={})
    assert b"cannot be started" in await lab.client().rest()
    assert b"containers" in await lab.client(Container="box").rest()


async def test_there_is_a_limit_to_terminals(lab):
    lab.terminals._terminals.update((uuid4(), None) for _ in range(MAX_TERMINALS))
    assert b"terminals already" in await lab.client().rest()
    lab.terminals._terminals.clear()


async def test_a_client_that_talks_nonsense_is_hung_up_on(lab):
    client = lab.client()
    await client.say(data="x\r")
    await client.until(b"x\r\nx")
    client.stream.send(b"nonsense}")
    await client.rest()
    await lab.eventually(lambda: len(lab.reports) == 2)
    assert "JSON" in lab.reports[1].ended
    assert len(lab.terminals) == 1


def test_messages_are_read_in_any_pieces():
    text = '{"data":"ls\\r"} {"height":40,"width":120}\n{"data":"ä🙂","height":0,"width":0}{}'.encode()
    wanted = [Typed(b"ls\r"), Resized(40, 120), Typed("ä🙂".encode())]
    assert list(Reader().feed(text)) == wanted
    bytewise = Reader()
    assert [one for at in range(len(text)) for one in bytewise.feed(text[at : at + 1])] == wanted


@pytest.mark.parametrize(
    "bad",
    [b"[1]}", b"7}", b'{"data":1}', b'{"height":true,"width":1}', b'{"height":99999,"width":1}', b"[" * 9999 + b"}"],
)
def test_messages_that_are_none(bad):
    with pytest.raises(PeerMisbehaved):
        list(Reader().feed(bad))


def test_a_message_without_end_is_refused():
    reader = Reader()
    list(reader.feed(b'{"data":"' + b"x" * (MAX_MESSAGE - 20)))
    with pytest.raises(PeerMisbehaved):
        list(reader.feed(b"x" * 64))


def test_the_first_message_has_defaults():
    assert Hello.parse(b'{"ID":"%s"}' % str(ID).encode()) == Hello(id=ID, rows=24, columns=80)


def test_output_is_kept_up_to_a_limit():
    output = Output(kept=10)
    lines = [b"%d23456\n" % at for at in range(10)]
    for line in lines:
        output.add(line)
    assert output.end == 70
    assert output.start >= 50
    assert output.read(output.start, 99) == b"".join(lines)[output.start :]
    assert output.read(69, 99) == b"\n"
    assert output.replay() == b"923456\n"


def test_a_replay_asks_the_terminal_nothing():
    output = Output()
    output.add(
        b"a\x1b[cb\x1b[>0cc\x1b[6nd\x1b]10;?\x07e\x1b]52;c;?\x1b\\f\x1bP+q544e\x1b\\g\x1b[?2026$ph\x1b[31mi\x1b]0;t\x07j"
    )
    assert output.replay() == b"abcdefgh\x1b[31mi\x1b]0;t\x07j"
