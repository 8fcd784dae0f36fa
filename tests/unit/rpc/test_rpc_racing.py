import asyncio
import gc
import warnings

import pytest

from coder.rpc import racing


async def test_a_dial_given_up_at_any_step_leaves_no_socket_open():
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for steps in range(20):
            dial = asyncio.ensure_future(racing.connect("127.0.0.1", port))
            for _ in range(steps):
                await asyncio.sleep(0)
            dial.cancel()
            [made] = await asyncio.gather(dial, return_exceptions=True)
            if not isinstance(made, BaseException):
                made.close()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        gc.collect()
    assert [str(one.message) for one in caught if one.category is ResourceWarning] == []
    server.close()
    await server.wait_closed()


async def test_an_address_where_nothing_listens_gives_way_to_the_next(monkeypatch):
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo("127.0.0.1", port, type=1)

    async def resolve(*_args, **_options):
        return [(*found[0][:4], ("127.0.0.9", port)), *found]

    monkeypatch.setattr(loop, "getaddrinfo", resolve)
    made = await racing.connect("box.example", port)
    assert made.getpeername() == ("127.0.0.1", port)
    made.close()
    server.close()
    await server.wait_closed()
    with pytest.raises(ConnectionRefusedError):
        await racing.connect("box.example", port)
