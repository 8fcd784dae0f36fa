import asyncio
import json
import socket

import pytest

from coder.agent import webapi
from coder.agent.interfaces import interfaces
from coder.agent.ports import ListeningPort, listening


async def hello():
    return {"message": "hi"}


class Client:
    async def __aenter__(self):
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self.task = asyncio.ensure_future(webapi.serve(theirs, {"/": hello}))
        self.reader, self.writer = await asyncio.open_connection(sock=ours)
        return self

    async def __aexit__(self, *exception):
        self.writer.close()
        await self.task

    async def ask(self, text: str) -> tuple[int, dict[str, str], bytes]:
        self.writer.write(text.encode())
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = head.splitlines()
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        body = b"" if text.startswith("HEAD") else await self.reader.readexactly(int(headers["content-length"]))
        return int(status.split()[1]), headers, body


async def test_answers_several_requests_on_one_connection():
    async with Client() as client:
        for _ in range(2):
            status, headers, body = await client.ask("GET /?x=1 HTTP/1.1\r\nHost: a\r\n\r\n")
            assert status == 200
            assert headers["content-type"].startswith("application/json")
            assert json.loads(body) == {"message": "hi"}


async def test_pipelined_requests_are_answered_in_order():
    async with Client() as client:
        status, _, _ = await client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /no HTTP/1.1\r\nHost: a\r\n\r\n")
        assert status == 200
        assert (await client.ask(""))[0] == 404


async def test_head_has_no_body():
    async with Client() as client:
        assert (await client.ask("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"))[0] == 200
        assert (await client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))[0] == 200


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok", 405),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("nonsense\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: " + "y" * 140_000 + "\r\n\r\n", 431),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n" + "y" * 70_000, 413),
    ],
)
async def test_what_it_does_not_serve_it_refuses(request_text, status):
    async with Client() as client:
        assert (await client.ask(request_text))[0] == status


async def test_a_client_that_leaves_in_the_middle():
    async with Client() as client:
        client.writer.write(b"GET / HT")
        client.writer.close()
        await client.task


def test_finds_a_listening_port_and_its_process():
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = {entry.port: entry.process for entry in listening()}
        assert found[server.getsockname()[1]]


def test_reads_proc_net_tcp(tmp_path):
    (tmp_path / "net").mkdir()
    header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    row = "   0: {}:{} 00000000:0000 {} 00000000:00000000 00:00000000 00000000  0  0 {} 1\n"
    lines = [("0100007F", "0BB8", "0A", 11), ("0100007F", "0BB9", "01", 12), ("00000000", "0003", "0A", 13)]
    (tmp_path / "net" / "tcp").write_text(header + "".join(row.format(*line) for line in lines))
    (tmp_path / "net" / "tcp6").write_text(header + row.format("0" * 32, "0BB8", "0A", 14) + "broken\n")
    process = tmp_path / "42"
    (process / "fd").mkdir(parents=True)
    (process / "comm").write_text("node\n")
    (process / "fd" / "3").symlink_to("socket:[14]")
    assert listening(tmp_path) == [ListeningPort(3000, "node")]


def test_without_proc_there_are_no_ports(tmp_path):
    assert listening(tmp_path) == []


def test_the_loopback_interface_is_found():
    found = {one.name: one for one in interfaces()}
    assert "127.0.0.1/8" in found["lo"].addresses
    assert found["lo"].mtu > 0
