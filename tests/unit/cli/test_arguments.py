from datetime import UTC, datetime, timedelta

import click
import pytest
from fakes.network import BY_NAME
from fakes.server import agent, workspace

from coder.cli.options import Moment


@pytest.mark.parametrize("words", [("help",), ("help", "ssh"), ("help", "tokens", "create")])
def test_help_is_a_word_too(coder, words):
    run = coder(*words)
    assert run.code == 0
    assert run.out == coder(*words[1:], "--help").out


@pytest.mark.parametrize(
    "words",
    [
        ("start",), ("stop",), ("restart",), ("delete", "-y"), ("update",),
        ("schedule", "show"), ("schedule", "stop", "8h"), ("schedule", "extend", "8h"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_is_done_to_a_whole_workspace_takes_no_agent(coder, signed_in, words):
    signed_in.answers[BY_NAME] = (200, workspace(agent()))
    place = 2 if words[0] == "schedule" else 1
    run = coder(*words[:place], "dev.main", *words[place:])
    assert run.code == 1
    assert run.err == "error: this is done to a whole workspace, not to its agent 'main'. Name it only: dev.\n"
    assert signed_in.calls == []


def test_show_of_one_agent_shows_that_one(coder, signed_in):
    signed_in.answers[BY_NAME] = (200, workspace(agent(status="connecting"), agent(name="db", status="timeout")))
    run = coder("show", "dev.db")
    assert run.code == 0, run.err
    assert "coder ssh dev.db" in run.out
    assert "main" not in run.out
    assert "It has: main, db" in coder("show", "dev.nope").err


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2030-01-31T08:00:00Z", "2030-01-31T08:00:00Z"),
        ("2030-01-31T08:00:00+02:00", "2030-01-31T06:00:00Z"),
        ("2030-01-31", datetime(2030, 1, 31).astimezone(UTC).isoformat().replace("+00:00", "Z")),
    ],
)
def test_moments(text, moment):
    assert Moment().convert(text, None, None) == moment


def test_a_moment_may_be_so_long_ago():
    found = datetime.fromisoformat(Moment().convert("2h", None, None))
    assert timedelta(hours=2) <= datetime.now(UTC) - found < timedelta(hours=3)


@pytest.mark.parametrize("text", ["yesterday", "2030-13-01", "", "99999999w"])
def test_what_is_no_moment(text):
    with pytest.raises(click.BadParameter, match="neither a day"):
        Moment().convert(text, None, None)


@pytest.mark.parametrize("url", ["foo bar", "https://\ufffd", "https://ex\u2028ample"])
def test_what_can_be_no_host_is_no_address(coder, signed_in, url):
    assert "is not the address of a server" in coder("--url", url, "whoami").err
    assert signed_in.calls == []
