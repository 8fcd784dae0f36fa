"""What a node says about its network and its paths."""

import asyncio
import json

import pytest

from coder.dataplane.engine import Engine, NetworkReport, NodeSettings, Peer, SelfChanged
from coder.errors import Closed, Malformed

ADDRESSES = ("fd7a:115c:a1e0::1", "fd7a:115c:a1e0::2")
PATIENCE = 20
"""A limit for what hangs; nothing takes this long."""


@pytest.fixture
async def engine():
    async with Engine() as made:
        yield made


def quiet(_event: object) -> None:
    """Hear of nothing."""


async def test_granted_endpoints_are_told_first(engine):
    heard: asyncio.Queue[SelfChanged] = asyncio.Queue()
    node = engine.node(
        NodeSettings(addresses=ADDRESSES[:1]), lambda e: heard.put_nowait(e) if isinstance(e, SelfChanged) else None
    )
    node.set_mapped(["203.0.113.9:4000"])
    async with asyncio.timeout(PATIENCE):
        while (event := await heard.get()).endpoints[:1] != ("203.0.113.9:4000",):
            pass
    assert len(event.endpoints) > 1
    with pytest.raises(ValueError, match="not a socket address"):
        node.set_mapped(["router"])


@pytest.mark.parametrize("region", ["65536", "-1", "x"])
async def test_a_map_that_is_none_is_malformed(engine, region):
    node = engine.node(NodeSettings(addresses=ADDRESSES[:1]), quiet)
    with pytest.raises(Malformed, match="DERP map"):
        node.set_map(json.dumps({"Regions": {region: {"RegionID": 1, "Nodes": []}}}))


async def test_ports_of_the_sockets_are_told(engine):
    node = engine.node(NodeSettings(addresses=ADDRESSES[:1]), quiet)
    v4, v6 = node.udp_ports()
    assert v4 > 0 or v6 > 0


async def test_a_check_reports_and_the_report_is_kept(engine):
    heard: list[object] = []
    node = engine.node(NodeSettings(addresses=ADDRESSES[:1]), heard.append)
    check = asyncio.ensure_future(node.netcheck(PATIENCE))
    await asyncio.sleep(0)
    assert node.report is None, "without a map there is nobody to ask"
    silent = {"Name": "1a", "RegionID": 1, "HostName": "127.0.0.1", "DERPPort": 9, "STUNPort": -1}
    node.set_map(json.dumps({"Regions": {"1": {"RegionID": 1, "Nodes": [silent]}}}))
    report = await check
    assert node.report is report
    assert any(isinstance(event, NetworkReport) for event in heard)
    assert not report.udp
    assert report.region_latency == {}


async def test_a_closed_node_ends_its_check(engine):
    region = {
        "RegionID": 1,
        "Nodes": [{"Name": "1a", "RegionID": 1, "HostName": "127.0.0.1", "DERPPort": 9, "STUNPort": 9}],
    }
    node = engine.node(NodeSettings(addresses=ADDRESSES[:1]), quiet)
    node.set_map(json.dumps({"Regions": {"1": region}}))
    check = asyncio.ensure_future(node.netcheck(PATIENCE))
    await asyncio.sleep(0)
    node.close()
    with pytest.raises(Closed):
        await check


async def test_the_way_to_a_peer_is_told(engine):
    node = engine.node(NodeSettings(addresses=ADDRESSES[:1]), quiet)
    key = "nodekey:" + "1a" * 32
    peer = Peer(key=key, disco="discokey:" + "2b" * 32, home=1, endpoints=("192.0.2.9:9",), addresses=(ADDRESSES[1],))
    node.set_peers([peer])
    paths = node.peer_paths(key)
    assert paths is not None
    assert [(e.address, e.source, e.trusted) for e in paths.endpoints] == [("192.0.2.9:9", "advertised", False)]
    assert paths.endpoint is None
    assert paths.first_direct is None
    assert not paths.block_direct
    assert node.peer_paths("nodekey:" + "1b" * 32) is None
