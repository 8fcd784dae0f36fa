"""Runs inside a network namespace of its own: a transfer whose direct path goes dark and comes back.

Everything but the tunnel is on loopback. Exits 0 when the bytes arrived unharmed and the relay carried them in between.
"""

import asyncio
import hashlib
import os
import subprocess
import sys
from pathlib import Path

from e2e.deployment import Deployment, sign_in, wait_until

from coder.cli.connect import connect
from coder.cli.context import Globals

CHUNK = os.urandom(1 << 20)
CHUNKS = 150
"""A third before the fault, a third in the dark, a third after it."""

RULES = """
table inet lab {
    chain dark {
        type filter hook input priority 0;
        meta l4proto udp drop
    }
}
"""


def shell(*command: str, text: str = "") -> None:
    subprocess.run(command, input=text.encode(), check=True)


async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The service in the workspace: answers what it received with its digest."""
    digest = hashlib.sha256()
    while data := await reader.read(1 << 20):
        digest.update(data)
    writer.write(digest.hexdigest().encode())
    writer.close()


async def until(connection, kind: str) -> None:
    async with asyncio.timeout(40):
        while (await connection.ping(10)).path.kind != kind:  # noqa: ASYNC110 - the path is asked, it does not tell
            await asyncio.sleep(0.05)


async def transfer(flags: Globals) -> None:
    service = await asyncio.start_server(count, "127.0.0.1", 0)
    port = service.sockets[0].getsockname()[1]
    digest = hashlib.sha256()
    loop = asyncio.get_running_loop()
    async with connect(flags, "dev", patience=20) as connection:
        await connection.reach(20)
        await until(connection, "direct")
        stream = await connection.node.connect(connection.address, port)

        async def send(chunks: int) -> None:
            for _ in range(chunks):
                await loop.sock_sendall(stream, CHUNK)
                digest.update(CHUNK)

        await send(CHUNKS // 3)
        shell("nft", "-f", "-", text=RULES)
        await send(CHUNKS // 3)
        await until(connection, "relay")
        shell("nft", "flush", "ruleset")
        await send(CHUNKS // 3)
        await until(connection, "direct")
        stream.shutdown(1)
        answer = b""
        while data := await loop.sock_recv(stream, 100):
            answer += data
        stream.close()
    service.close()
    assert answer.decode() == digest.hexdigest(), "the bytes that arrived are not those that were sent"


def main(place: Path) -> None:
    shell("ip", "link", "set", "lo", "up")
    deployment = Deployment(place)
    try:
        deployment.start_server()
        sign_in(deployment)
        deployment.ok("create", "dev", "--output-token-file", str(place / "token"))
        deployment.start_agent()
        wait_until("the agent", lambda: deployment.agent_status() == "connected")
        flags = Globals.from_flags(
            sources={},
            url=None,
            token=None,
            global_config=str(place / "config"),
            headers=(),
            disable_direct_connections=False,
            verbose=False,
            force_tty=False,
            no_color=True,
        )
        asyncio.run(transfer(flags))
    finally:
        deployment.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
