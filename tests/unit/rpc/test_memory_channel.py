"""A channel between two parts of one process keeps the contract of channels."""

import asyncio

import pytest

from coder.errors import Closed
from coder.rpc import memory


async def test_what_one_end_sends_the_other_receives():
    left, right = memory.pair()
    await left.send(b"there")
    await right.send(b"back")
    assert (await right.recv(), await left.recv()) == (b"there", b"back")


async def test_a_sender_waits_for_a_receiver_that_is_behind():
    left, right = memory.pair()

    async def flood():
        for number in range(1000):
            await left.send(b"%d" % number)

    flooding = asyncio.ensure_future(flood())
    for _ in range(2000):
        await asyncio.sleep(0)
    assert not flooding.done()
    assert [await right.recv() for _ in range(1000)] == [b"%d" % number for number in range(1000)]
    await flooding


@pytest.mark.parametrize("first", [0, 1])
async def test_closing_one_end_ends_both(first):
    ends = memory.pair()
    waiting = [asyncio.ensure_future(end.recv()) for end in ends]
    await asyncio.sleep(0)
    await ends[first].close()
    await ends[first].close()
    assert await asyncio.gather(*waiting) == [None, None]
    for end in ends:
        assert await end.recv() is None
        with pytest.raises(Closed):
            await end.send(b"late")
