"""The relay carries what it cannot read: everything that crosses the server's door is searched for what was sent."""

import asyncio
import os

import pytest

from coder.cli.connect import connect
from coder.cli.context import Globals
from e2e.deployment import Deployment, global_flags, sign_in, wait_until
from e2e.recorder import Recorder

pytestmark = pytest.mark.e2e

SECRET = os.urandom(24)
WINDOW = 12
"""Twelve random bytes do not appear by chance."""


@pytest.fixture
def recorded(tmp_path):
    deployment = Deployment(tmp_path)
    with Recorder(lambda: ("127.0.0.1", int(deployment.address.rsplit(":", 1)[1]))) as recorder:
        try:
            deployment.start_server(access_url=recorder.url)
            sign_in(deployment)
            deployment.ok("create", "dev", "--output-token-file", str(tmp_path / "token"))
            deployment.start_agent()
            wait_until("the agent", lambda: deployment.agent_status() == "connected")
            yield deployment, recorder
        finally:
            deployment.close()


async def echo(reader, writer):
    while data := await reader.read(1 << 16):
        writer.write(data)
    writer.close()


async def send_and_get_back(flags: Globals, data: bytes) -> bytes:
    service = await asyncio.start_server(echo, "127.0.0.1", 0)
    loop = asyncio.get_running_loop()
    async with service, connect(flags, "dev", patience=20) as connection, asyncio.timeout(40):
        stream = await connection.node.connect(connection.address, service.sockets[0].getsockname()[1])
        with stream:
            await loop.sock_sendall(stream, data)
            stream.shutdown(1)
            answer = b""
            while piece := await loop.sock_recv(stream, 1 << 16):
                answer += piece
        assert (await connection.ping(10)).path.kind == "relay"
    return answer


def test_the_relay_sees_no_plaintext(recorded, monkeypatch):
    deployment, recorder = recorded
    monkeypatch.setenv("CODER_CONFIG_DIR", str(deployment.place / "config"))
    flags = global_flags(deployment, disable_direct_connections=True)
    sent = SECRET * 2000
    before = sum(map(len, recorder.seen()))
    assert asyncio.run(send_and_get_back(flags, sent)) == sent

    seen = recorder.seen()
    # It did cross the relay, there and back, each time in and out; and what can be read there was looked at.
    assert sum(map(len, seen)) - before > 4 * len(sent)
    assert any(b"DERP" in piece for piece in seen)
    doubled = SECRET + SECRET
    windows = [doubled[start : start + WINDOW] for start in range(len(SECRET))]
    assert not [window for piece in seen for window in windows if window in piece]
