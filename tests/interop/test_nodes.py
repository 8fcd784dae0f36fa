"""Our node and a node of another maker: WireGuard, disco and pings of every kind, over our relay and directly."""

import asyncio
import json
import urllib.request
from contextlib import asynccontextmanager

import pytest

from coder.dataplane.engine import Engine, NodeSettings, Peer, SelfChanged
from coder.wire import derpmap_json

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]

OURS, THEIRS = "fd7a:115c:a1e0::1", "fd7a:115c:a1e0::2"
PATIENCE = 60.0


@pytest.fixture(scope="module")
def program(build_large):
    return build_large("./wgpeer")


@pytest.fixture(scope="module")
def relay_map(deployment) -> str:
    """The map's relay. The other maker's nodes would make a region without one their home."""
    token = (deployment.place / "config" / "session").read_text().strip()
    request = urllib.request.Request(
        f"{deployment.url}/api/v2/workspaceagents/connection", headers={"Coder-Session-Token": token}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        regions = json.load(answer)["derp_map"]["Regions"]
    return json.dumps({"Regions": {number: region for number, region in regions.items() if region["EmbeddedRelay"]}})


class Other:
    """The other maker's node, in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def tell(self, value: object) -> None:
        self._process.stdin.write(json.dumps(value).encode() + b"\n")
        await self._process.stdin.drain()

    async def hear(self) -> dict:
        line = await self._process.stdout.readline()
        assert line, (await self._process.stderr.read()).decode()
        return json.loads(line)

    async def ping(self, how: str) -> dict:
        await self.tell(how)
        return await self.hear()


@asynccontextmanager
async def pair(program, relay_map: str, *, block_direct: bool):
    """Two nodes that know of each other: ours, and the other."""
    process = await asyncio.create_subprocess_exec(
        program,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"TS_DEBUG_USE_DERP_HTTP": "true", "TS_DEBUG_NEVER_DIRECT_UDP": str(block_direct).lower()},
    )
    engine = Engine()
    try:
        async with asyncio.timeout(PATIENCE):
            other = Other(process)
            await other.tell({"Map": json.loads(relay_map), "Address": THEIRS})
            about = asyncio.get_running_loop().create_future()

            def heard(event: object) -> None:
                if isinstance(event, SelfChanged) and event.home and not about.done():
                    about.set_result(event)

            node = engine.node(NodeSettings(addresses=(OURS,), block_direct=block_direct), heard)
            node.set_map(relay_map)
            theirs, ours = await other.hear(), await about
            await other.tell(
                {
                    "Key": node.key,
                    "Disco": node.disco,
                    "Address": OURS,
                    "Home": ours.home,
                    "Endpoints": [] if block_direct else list(ours.endpoints),
                }
            )
            node.set_peers(
                [
                    Peer(
                        key=theirs["Key"],
                        disco=theirs["Disco"],
                        home=theirs["Home"],
                        endpoints=() if block_direct else tuple(theirs["Endpoints"]),
                        addresses=(THEIRS,),
                    )
                ]
            )
            yield node, other
    finally:
        engine.close()
        process.kill()
        await process.wait()


def test_the_map_is_one_that_both_read(relay_map):
    assert derpmap_json.loads(relay_map.encode()).regions


@pytest.mark.parametrize("block_direct", [False, True], ids=["direct", "relay"])
async def test_our_node_asks(program, relay_map, block_direct):
    async with pair(program, relay_map, block_direct=block_direct) as (node, _other):
        await node.reach(THEIRS)
        wanted = "relay" if block_direct else "direct"
        while (await node.ping(THEIRS)).path.kind != wanted:  # noqa: ASYNC110 - the path does not tell of itself
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("block_direct", [False, True], ids=["direct", "relay"])
async def test_the_other_node_asks(program, relay_map, block_direct):
    async with pair(program, relay_map, block_direct=block_direct) as (_node, other):
        for how in ("tsmp", "icmp"):
            assert "error" not in await other.ping(how)
        while True:
            answer = await other.ping("disco")
            assert "error" not in answer
            if bool(answer["relay"]) is block_direct:
                break
            await asyncio.sleep(0.1)
