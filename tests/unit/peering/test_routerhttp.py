"""HTTP to routers that mean no good."""

import asyncio
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Address

import pytest

from coder.errors import PeerMisbehaved, TimedOut, Unreachable
from coder.peering import routerhttp
from coder.peering.routerhttp import exchange
from coder.tailnet.portmap.values import Http
from coder.wire.boundedxml import MAX_SIZE
from coder.wire.upnp import Url

LOCAL = "127.0.0.1"


@asynccontextmanager
async def serving(answer: bytes, *, hang: bool = False):
    """A server that answers every connection with these bytes; yields its URL and what it was asked."""
    asked: list[bytes] = []
    over, serving = asyncio.Event(), set()

    async def serve(reader, writer):
        serving.add(asyncio.current_task())
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        if hang:
            await over.wait()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, LOCAL, 0)
    try:
        yield Url(IPv4Address(LOCAL), server.sockets[0].getsockname()[1], "/rootDesc.xml"), asked
    finally:
        over.set()
        server.close()
        await asyncio.gather(*serving, return_exceptions=True)


async def get(answer: bytes, **options: bool) -> bytes:
    async with serving(answer, **options) as (url, _):
        return await exchange(Http(1, url), LOCAL)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 Fault\r\nContent-Length: 5\r\n\r\nhello",
    ],
)
async def test_bodies_in_every_wrapping(answer):
    assert await get(answer) == b"hello"


async def test_what_a_request_looks_like():
    async with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (url, asked):
        await exchange(Http(1, url), LOCAL)
        await exchange(Http(2, url, '"service#Action"', b"body"), LOCAL)
    lines = [head.decode().split("\r\n") for head in asked]
    assert lines[0][0] == "GET /rootDesc.xml HTTP/1.1"
    assert lines[1][0] == "POST /rootDesc.xml HTTP/1.1"
    assert 'SOAPAction: "service#Action"' in lines[1]
    assert "Content-Length: 4" in lines[1]
    assert f"Host: {url.host}:{url.port}" in lines[0]


@pytest.mark.parametrize("status", [204, 301, 302, 307, 401, 403, 404, 503])
async def test_other_statuses_are_failures_and_redirects_are_not_followed(status):
    async with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (elsewhere, asked):
        head = f"HTTP/1.1 {status} x\r\nLocation: {elsewhere}\r\nContent-Length: 0\r\n\r\n"
        with pytest.raises(PeerMisbehaved, match=f"status {status}"):
            await get(head.encode())
    assert asked == []


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-dropbear\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\ncut off",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 40_000 + b"\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
)
async def test_what_is_no_answer(answer):
    with pytest.raises(PeerMisbehaved):
        await get(answer)


@pytest.mark.parametrize("head", [b"Content-Length: 99999999\r\n", b""])
async def test_an_answer_too_large_is_not_read_to_its_end(head):
    with pytest.raises(PeerMisbehaved, match="too large"):
        await get(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + b"x" * (MAX_SIZE + 1), hang=True)


async def test_a_router_that_never_finishes_is_left(monkeypatch):
    monkeypatch.setattr(routerhttp, "PATIENCE", 0.01)
    with pytest.raises(TimedOut):
        await get(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n", hang=True)


async def test_nobody_listens():
    async with serving(b"") as (url, _):
        pass
    with pytest.raises(Unreachable):
        await exchange(Http(1, url), LOCAL)
