"""The WebSocket channel against a real server of the same library, and calls through it."""

import contextlib
import socket

import pytest
from websockets.asyncio.server import serve as serve_websocket
from websockets.exceptions import ConnectionClosed

from coder.errors import Closed, Malformed, TimedOut, Unreachable, UpgradeRefused
from coder.rpc.client import RpcClient
from coder.rpc.handlers import Unary
from coder.rpc.server import serve
from coder.rpc.websocket import MAX_MESSAGE, WebSocketChannel, connect
from coder.wire.proto.tailnet_pb2 import CoordinateRequest, CoordinateResponse


@contextlib.asynccontextmanager
async def server(handle, **options):
    async with serve_websocket(handle, "127.0.0.1", 0, **options) as running:
        yield f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}/path?version=2.0"


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def test_bytes_pass_both_ways_and_close_is_1000():
    seen = []

    async def handle(connection):
        seen.append((connection.request.path, connection.request.headers["Coder-Session-Token"]))
        seen.append(connection.request.headers.get("Sec-WebSocket-Extensions"))
        await connection.send(await connection.recv())
        with contextlib.suppress(ConnectionClosed):
            await connection.recv()
        seen.append(connection.close_code)

    async with server(handle) as url:
        channel = await connect(url, {"Coder-Session-Token": "secret"})
        await channel.send(b"hello")
        assert await channel.recv() == b"hello"
        await channel.close()
        await channel.close()
        assert await channel.recv() is None
        with pytest.raises(Closed):
            await channel.send(b"more")
    assert seen == [("/path?version=2.0", "secret"), None, 1000]


async def test_a_message_of_4_mib_passes():
    async with server(echo, max_size=None) as url:
        channel = await connect(url)
        await channel.send(bytes(MAX_MESSAGE))
        assert await channel.recv() == bytes(MAX_MESSAGE)
        await channel.close()


async def test_a_message_in_endless_parts_ends_the_connection():
    async def handle(connection):
        async def parts():
            yield b"begin"
            while True:
                yield b""

        with contextlib.suppress(ConnectionClosed):
            await connection.send(parts())

    async with server(handle) as url:
        channel = await connect(url)
        assert await channel.recv() is None


async def test_a_message_may_come_in_parts():
    async def handle(connection):
        await connection.send([b"a", b"", b"b"] + [b"c"] * 1000)
        await connection.send(b"next")

    async with server(handle) as url:
        channel = await connect(url)
        assert await channel.recv() == b"ab" + b"c" * 1000
        assert await channel.recv() == b"next"
        await channel.close()


async def test_a_text_message_closes_with_1003():
    codes = []

    async def handle(connection):
        await connection.send("text")
        with contextlib.suppress(ConnectionClosed):
            await connection.recv()
        codes.append(connection.close_code)

    async with server(handle) as url:
        channel = await connect(url)
        assert await channel.recv() is None
        assert await channel.recv() is None
    assert codes == [1003]


async def test_calls_pass_through_it():
    async def answer(ctx, request):
        return CoordinateResponse(error=ctx.rpc)

    async def handle(connection):
        await serve(WebSocketChannel(connection), {"/x": Unary(CoordinateRequest, answer)})

    async with server(handle, compression=None) as url, RpcClient(await connect(url)) as rpc:
        assert (await rpc.unary("/x", CoordinateRequest(), CoordinateResponse)).error == "/x"


@pytest.mark.parametrize("status", [400, 401, 404, 503])
async def test_a_refused_upgrade_tells_status_and_body(status):
    def refuse(connection, request):
        return connection.respond(status, '{"message":"no"}')

    async with server(echo, process_request=refuse) as url:
        with pytest.raises(UpgradeRefused) as caught:
            await connect(url)
    assert (caught.value.http_status, caught.value.body) == (status, b'{"message":"no"}')


async def test_nobody_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(Unreachable):
            await connect(f"http://127.0.0.1:{free.getsockname()[1]}/")


async def test_nobody_answers():
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimedOut):
        await connect(f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout=0.01)


@pytest.mark.parametrize("url", ["", "127.0.0.1", "ftp://127.0.0.1/", "http://"])
async def test_what_is_no_url(url):
    with pytest.raises(Malformed):
        await connect(url)
