"""Errors, ids and keys, and the clock."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from coder import errors
from coder.clock import FakeClock, SystemClock
from coder.errors import Malformed
from coder.ids import DiscoKey, NodeKey, Secret, uuid_from_bytes, uuid_from_text

HEX = "0123456789abcdef" * 4


def test_every_error_is_a_sentence_with_status_and_exit_code():
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.CoderError):
            assert kind.__doc__, name
            assert 400 <= kind.status <= 599
            assert kind.exit_code > 0


def test_a_remedy_can_be_given_with_the_error():
    error = errors.Unreachable("no answer", remedy="Plug it in.")
    assert (str(error), error.remedy) == ("no answer", "Plug it in.")
    assert errors.Unreachable("x").remedy


def test_malformed_names_the_place():
    error = Malformed("expected a number", where="a.b")
    assert (str(error), error.where) == ("a.b: expected a number", "a.b")
    assert str(Malformed("broken")) == "broken"


def test_uuids_in_both_forms():
    owner = UUID("4b0f9be3-2a1d-4e5c-9f10-0123456789ab")
    assert uuid_from_bytes(owner.bytes) == uuid_from_text(str(owner)) == uuid_from_text(str(owner).upper()) == owner


@pytest.mark.parametrize("raw", [b"", bytes(15), bytes(17)])
def test_ids_have_16_bytes(raw):
    with pytest.raises(Malformed):
        uuid_from_bytes(raw)


@pytest.mark.parametrize("text", ["", "x", HEX[:32], "{4b0f9be3-2a1d-4e5c-9f10-0123456789ab}"])
def test_ids_have_their_canonical_text(text):
    with pytest.raises(Malformed):
        uuid_from_text(text)


@pytest.mark.parametrize("kind", [NodeKey, DiscoKey])
def test_keys_are_their_text(kind):
    key = kind.parse(kind.PREFIX + HEX)
    assert key == kind.PREFIX + HEX
    assert kind.from_raw(key.raw) == key
    assert key.short == "01234567"
    for text in ("", HEX, kind.PREFIX + HEX.upper(), kind.PREFIX + HEX[1:], kind.PREFIX + HEX + "0", f" {key}"):
        with pytest.raises(Malformed):
            kind.parse(text)
    with pytest.raises(Malformed):
        kind.from_raw(bytes(31))


def test_a_node_key_travels_as_34_bytes():
    key = NodeKey.parse("nodekey:" + HEX)
    assert key.to_wire() == b"np" + bytes.fromhex(HEX)
    assert NodeKey.from_wire(key.to_wire()) == key
    for wrong in (b"", key.raw, b"nP" + key.raw, key.to_wire() + b"\0"):
        with pytest.raises(Malformed):
            NodeKey.from_wire(wrong)


def test_a_secret_does_not_print():
    secret = Secret("hunter2")
    for text in (str(secret), repr(secret), f"{secret}", "%s" % secret, repr([secret])):  # noqa: UP031
        assert "hunter2" not in text
    with pytest.raises(TypeError):
        json.dumps(secret)
    assert secret.reveal() == "hunter2"
    assert secret == Secret("hunter2")
    assert secret != Secret("hunter3")
    assert secret != "hunter2"
    assert len({secret, Secret("hunter2")}) == 1
    assert not Secret("")


async def test_the_fake_clock_wakes_sleepers_at_their_moment_in_order():
    clock, log = FakeClock(datetime(2030, 1, 1, tzinfo=UTC)), []

    async def sleeper(name, *naps):
        for nap in naps:
            await clock.sleep(nap)
            log.append((name, clock.monotonic()))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sleeper("a", 2, 2))
        tasks.create_task(sleeper("b", 3, 0))
        await clock.advance(3.5)
        assert log == [("a", 2), ("b", 3), ("b", 3)]
        await clock.advance(10)
    assert log[3:] == [("a", 4)]
    assert clock.now() == datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=13.5)


async def test_the_system_clock_goes_on():
    clock = SystemClock()
    before = clock.monotonic()
    await clock.sleep(-1)
    assert clock.monotonic() >= before
    assert clock.now().tzinfo is UTC
