"""Logs: one format, no secrets."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from coder import log


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    yield stream
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()


def lines(output: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_events_and_records_of_libraries_come_out_alike(output: io.StringIO):
    log.configure(style="json", stream=output)
    structlog.get_logger("a").info("agent.connected", agent="x")
    logging.getLogger("lib").warning("from %s", "elsewhere")
    first, second = lines(output)
    assert (first["event"], first["agent"], first["level"]) == ("agent.connected", "x", "info")
    assert (second["event"], second["level"]) == ("from elsewhere", "warning")
    assert first["timestamp"].endswith("Z")


def test_secrets_are_hidden_by_name_and_by_shape(output: io.StringIO):
    log.configure(style="json", stream=output)
    token = "Ab3dE6gH9k-0123456789abcdefghijkl"
    structlog.get_logger("a").info(f"got {token}", session_token="x", nested={"password": "x", "ok": token}, Cookie="x")
    logging.getLogger("lib").error("header %s", token)
    text = output.getvalue()
    assert token not in text
    assert text.count(log.REDACTED) == 6
    assert lines(output)[0]["nested"] == {"password": log.REDACTED, "ok": log.REDACTED}


def test_the_level_is_kept(output: io.StringIO):
    log.configure(style="json", level="warning", stream=output)
    structlog.get_logger("a").info("quiet")
    structlog.get_logger("a").warning("loud")
    assert [line["event"] for line in lines(output)] == ["loud"]


def test_auto_is_json_unless_on_a_terminal(output: io.StringIO, monkeypatch: pytest.MonkeyPatch):
    log.configure(stream=output)
    structlog.get_logger("a").info("x")
    assert lines(output)
    monkeypatch.setattr(output, "isatty", lambda: True)
    log.configure(stream=output)
    structlog.get_logger("a").info("human")
    assert "human" in output.getvalue().splitlines()[-1]
    assert not output.getvalue().splitlines()[-1].startswith("{")


def test_an_exception_is_one_json_line(output: io.StringIO):
    log.configure(style="json", stream=output)
    try:
        int("boom")
    except ValueError:
        structlog.get_logger("a").exception("failed")
    [line] = lines(output)
    assert "boom" in line["exception"]
