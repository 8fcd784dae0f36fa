"""What the log says of links between relays."""

import asyncio

from structlog.testing import capture_logs

from coder.clock import FakeClock
from coder.server import mesh_links

ONE, TWO = "https://one.example:443", "https://two.example:443"


async def test_each_problem_is_told_once_and_so_is_its_end():
    clock, looks = FakeClock(), iter([{}, {ONE: "refused"}, {ONE: "refused", TWO: "late"}, {TWO: "late"}])
    with capture_logs() as said:
        watching = asyncio.ensure_future(mesh_links.watch(lambda: next(looks), clock))
        for _ in range(4):
            await clock.advance(mesh_links.LOOK)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert [(each["event"], each["relay"]) for each in said] == [
        ("relay.not_linked", ONE),
        ("relay.not_linked", TWO),
        ("relay.linked", ONE),
    ]
