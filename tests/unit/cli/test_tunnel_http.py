import asyncio
import socket

import pytest

from coder.cli import tunnel_http
from coder.errors import PeerMisbehaved, PeerUnsupported, TimedOut, Unreachable

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class Peer:
    """A node whose peer answers with these bytes, whatever it is asked."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = b""
        self.tasks = []

    async def connect(self, address, port):
        if isinstance(self.answer, Exception):
            raise self.answer
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.tasks.append(asyncio.ensure_future(self._serve(theirs)))
        return ours

    async def _serve(self, stream):
        reader, writer = await asyncio.open_connection(sock=stream)
        self.asked = await reader.readuntil(b"\r\n\r\n")
        if self.answer is None:
            await reader.read()
        else:
            writer.write(self.answer)
        writer.close()


async def get(answer, patience=5.0):
    peer = Peer(answer)
    try:
        return await tunnel_http.get(peer, "fd7a::1", "/x", patience), peer
    finally:
        await asyncio.gather(*peer.tasks)


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b'Content-Length: 8\r\n\r\n{"a": 1}',
        HEAD + b'Transfer-Encoding: chunked\r\n\r\n3\r\n{"a\r\n5\r\n": 1}\r\n0\r\n\r\n',
        HEAD + b'Connection: close\r\n\r\n{"a": 1}',
    ],
)
async def test_reads_the_answer_however_it_is_framed(answer):
    value, peer = await get(answer)
    assert value == {"a": 1}
    assert peer.asked.startswith(b"GET /x HTTP/1.1\r\n")
    assert b"Host: [fd7a::1]:4\r\n" in peer.asked


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", PeerUnsupported),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", PeerMisbehaved),
        (b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\nContent-Length: 0\r\n\r\n", PeerMisbehaved),
        (HEAD + b"Content-Length: 3\r\n\r\n{{{", PeerMisbehaved),
        (HEAD + b"Content-Length: 9\r\n\r\nshort", PeerMisbehaved),
        (HEAD + b"Connection: close\r\n\r\n[" + b"1," * (1 << 19) + b"1]", PeerMisbehaved),
        (b"SSH-2.0-x\r\n\r\n", PeerMisbehaved),
        (b"", PeerMisbehaved),
        (Unreachable("refused"), Unreachable),
    ],
)
async def test_anything_else_is_an_error_that_says_whose(answer, error):
    with pytest.raises(error):
        await get(answer)


async def test_a_silent_agent_is_given_up():
    with pytest.raises(TimedOut):
        await get(None, patience=0.05)
