"""The recorded flows, played against this server: same order of calls, same statuses, same fields and types."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from api.conftest import PASSWORD, Server

from compat import differences
from compat.replay import AGENT_START, Replay, flows, steps_of
from compat.shapes import missing

BODIES: dict[str, Any] = {
    "/api/v2/users/first": {"email": "admin@example.com", "username": "admin", "password": PASSWORD, "trial": False},
    "/api/v2/users/login": {"email": "admin@example.com", "password": PASSWORD},
    "/api/v2/users/me/keys/tokens": {"lifetime": 0, "scope": "", "token_name": "ci"},
}


@pytest.mark.parametrize(
    ("expected", "ours", "faults"),
    [
        ({"a": "text"}, {"a": "x", "b": 1}, []),
        ({"a": "text"}, {}, ["body.a"]),
        ({"a?": "text"}, {}, []),
        ({"a?": "text"}, {"a": 1}, ["body.a: text, not 1"]),
        ({"a": "text:x"}, {"a": "y"}, ["body.a: text:x, not 'y'"]),
        ({"a": ["number"]}, {"a": []}, ["body.a[]"]),
        ({"a": ["number"]}, {"a": [True]}, ["body.a[]: number, not True"]),
        ({"{id}": "number"}, {}, ["body.{id}"]),
        ({"a": {"b": "null"}}, {"a": {"b": 1}}, ["body.a.b: null, not 1"]),
        ([], [1], []),
    ],
)
def test_the_comparison_finds_what_is_missing(expected: Any, ours: Any, faults: list[str]):
    assert missing(expected, ours) == faults


@pytest.fixture
async def replay(live: Server) -> AsyncIterator[Replay]:
    dev2 = await live.workspace("dev2")
    await live.clock.advance(121)  # the agent of dev2 is past its time to connect
    async with Replay(live, await live.workspace(), dev2, BODIES) as playing:
        yield playing


async def test_a_first_user(bare: Server):
    async with Replay(bare, None, None, BODIES) as playing:
        await playing.play("01-first-user")
        assert playing.exchanges == 4


@pytest.mark.parametrize("flow", [flow for flow in flows() if flow != "01-first-user"])
async def test_a_flow(replay: Replay, flow: str):
    if flow != AGENT_START and any("open_before" in step for step in steps_of(flow)):
        await replay.play(AGENT_START)
    before = replay.exchanges + replay.messages
    await replay.play(flow)
    assert replay.exchanges + replay.messages > before


def test_every_difference_is_one_that_the_recordings_have():
    recorded = [(flow, step) for flow in flows() for step in steps_of(flow) if "method" in step]
    idle = [
        each for each in differences.DIFFERENCES if not any(difference_fits(each, *exchange) for exchange in recorded)
    ]
    assert idle == []


def difference_fits(each: differences.Difference, flow: str, step: dict[str, Any]) -> bool:
    return differences.difference(flow, step) == each.reason
