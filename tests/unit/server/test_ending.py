"""Tasks that were left behind end with the process's work."""

import asyncio

import pytest

from coder.server import ending


async def stubborn(cancellations: int, seen: list[int]) -> None:
    """Wait for what never comes, and once more after each of so many cancellations."""
    for number in range(cancellations + 1):
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            seen.append(number)


@pytest.mark.parametrize("cancellations", [0, 1, 2])
def test_what_needs_several_cancellations_gets_them(monkeypatch, cancellations):
    monkeypatch.setattr(ending, "PATIENCE", 0.0)
    seen: list[int] = []

    async def work() -> str:
        task = asyncio.ensure_future(stubborn(cancellations, seen))
        await asyncio.sleep(0)
        assert not task.done()
        return "done"

    with asyncio.Runner() as runner:
        assert runner.run(ending.to_its_end(work())) == "done"
    assert seen == list(range(cancellations + 1))


def test_a_failure_stays_one():
    async def work() -> None:
        raise ValueError("wrong")

    with asyncio.Runner() as runner, pytest.raises(ValueError, match="wrong"):
        runner.run(ending.to_its_end(work()))
