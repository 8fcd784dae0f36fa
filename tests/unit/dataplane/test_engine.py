"""The data plane as Python sees it: two real nodes in this process, joined by the machine's own addresses."""

import asyncio
import socket
from pathlib import Path

import pytest

from coder.dataplane.engine import Engine, Incoming, NodeEvent, NodeSettings, Peer
from coder.errors import Closed, NotFound, StreamReset, Unreachable

ADDRESSES = ("fd7a:115c:a1e0::1", "fd7a:115c:a1e0::2")
PATIENCE = 20
"""A limit for what hangs; nothing takes this long."""


def data_threads() -> int:
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    return sum(name.startswith("coder-") for name in names)


class Pair:
    """A client and a workspace whose node answers port 80 in Python and splices all others."""

    def __init__(self) -> None:
        self.engines = (Engine(), Engine())
        self.incoming: asyncio.Queue[Incoming] = asyncio.Queue()
        self.endpoints: list[asyncio.Future[tuple[str, ...]]] = []
        self.nodes = [self._node(0, NodeSettings(addresses=(ADDRESSES[0],)))]
        self.nodes.append(
            self._node(
                1, NodeSettings(addresses=(ADDRESSES[1],), ports={80: "python", 3: "speedtest"}, default="splice")
            )
        )

    def _node(self, side: int, settings: NodeSettings):
        found: asyncio.Future[tuple[str, ...]] = asyncio.get_running_loop().create_future()
        self.endpoints.append(found)

        def hear(event: NodeEvent) -> None:
            if isinstance(event, Incoming):
                self.incoming.put_nowait(event)
            elif not found.done() and getattr(event, "endpoints", ()):
                found.set_result(event.endpoints)

        node = self.engines[side].node(settings, hear)
        node.set_map('{"Regions": {}}')
        return node

    async def introduce(self) -> None:
        # The workspace first: it answers the client's first ping.
        for side in (1, 0):
            other = self.nodes[1 - side]
            peer = Peer(
                key=other.key,
                disco=other.disco,
                home=0,
                endpoints=await self.endpoints[1 - side],
                addresses=(ADDRESSES[1 - side],),
            )
            self.nodes[side].set_peers([peer])
        await self.nodes[0].reach(ADDRESSES[1])

    def close(self) -> None:
        for engine in self.engines:
            engine.close()
        while not self.incoming.empty():
            self.incoming.get_nowait().stream.close()


@pytest.fixture
async def pair():
    made = Pair()
    try:
        async with asyncio.timeout(PATIENCE):
            await made.introduce()
        yield made
    finally:
        made.close()


async def test_two_nodes_exchange_bytes_over_a_direct_path(pair):
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(PATIENCE):
        assert (await pair.nodes[0].ping(ADDRESSES[1])).path.kind == "direct"
        near = await pair.nodes[0].connect(ADDRESSES[1], 80)
        far = (await pair.incoming.get()).stream
        with near, far:
            await loop.sock_sendall(near, b"question")
            near.shutdown(socket.SHUT_WR)
            assert await loop.sock_recv(far, 100) == b"question"
            assert await loop.sock_recv(far, 100) == b""
            await loop.sock_sendall(far, b"answer")
            assert await loop.sock_recv(near, 100) == b"answer"


async def test_a_port_nobody_listens_on_refuses(pair):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(Unreachable):
                await pair.nodes[0].connect(ADDRESSES[1], unused.getsockname()[1])


async def test_an_address_of_no_peer_is_not_found(pair):
    with pytest.raises(NotFound):
        await pair.nodes[0].ping("fd7a:115c:a1e0::99")


async def test_a_splice_that_the_peer_cuts_says_so(pair):
    async with asyncio.timeout(PATIENCE):
        inner, outer = socket.socketpair()
        with outer:
            splice = asyncio.create_task(pair.nodes[0].splice(inner, ADDRESSES[1], 80))
            far = (await pair.incoming.get()).stream
            pair.nodes[1].close()
            with pytest.raises(StreamReset):
                await splice
        far.close()


@pytest.mark.parametrize("remover", [0, 1])
async def test_streams_end_on_both_sides_when_either_removes_the_peer(pair, remover):
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(PATIENCE):
        near = await pair.nodes[0].connect(ADDRESSES[1], 80)
        far = (await pair.incoming.get()).stream
        with near, far:
            await loop.sock_sendall(near, b"question")
            assert await loop.sock_recv(far, 100) == b"question"
            pair.nodes[remover].set_peers([])
            for stream in (near, far):
                assert await loop.sock_recv(stream, 100) == b""


async def test_a_splice_ends_when_its_peer_is_removed(pair):
    async with asyncio.timeout(PATIENCE):
        inner, outer = socket.socketpair()
        with outer:
            splice = asyncio.create_task(pair.nodes[0].splice(inner, ADDRESSES[1], 80))
            far = (await pair.incoming.get()).stream
            pair.nodes[0].set_peers([])
            with pytest.raises(StreamReset):
                await splice
        far.close()


async def test_a_cancelled_request_leaves_no_stream_behind(pair):
    async with asyncio.timeout(PATIENCE):
        near = asyncio.create_task(pair.nodes[0].connect("fd7a:115c:a1e0::2", 80))
        await asyncio.sleep(0)
        near.cancel()
        with pytest.raises(asyncio.CancelledError):
            await near
        while pair.nodes[0].stats().streams:  # noqa: ASYNC110 - the count is asked, it does not tell
            await asyncio.sleep(0.005)


async def test_closing_fails_what_waits_and_leaves_no_thread():
    before = data_threads()
    engine = Engine()
    node = engine.node(NodeSettings(addresses=(ADDRESSES[0],)), lambda _event: None)
    while data_threads() == before:  # noqa: ASYNC110 - a thread takes its name when it has begun
        await asyncio.sleep(0)
    key = "nodekey:" + "07" * 32
    disco = "discokey:" + "09" * 32
    node.set_peers([Peer(key=key, disco=disco, home=0, endpoints=(), addresses=(ADDRESSES[1],))])
    waiting = [asyncio.create_task(request) for request in (node.reach(ADDRESSES[1]), node.connect(ADDRESSES[1], 1))]
    await asyncio.sleep(0)
    engine.close()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Closed, Closed]
    assert data_threads() == before


async def test_what_a_listener_to_a_speed_test_raises_ends_the_test_and_nothing_else(pair):
    def unread(_interval: object) -> None:
        raise BrokenPipeError

    async with asyncio.timeout(PATIENCE):
        with pytest.raises(BrokenPipeError):
            await pair.nodes[0].speedtest(ADDRESSES[1], duration=PATIENCE, download=True, on_interval=unread)
        assert (await pair.nodes[0].ping(ADDRESSES[1])).latency > 0
