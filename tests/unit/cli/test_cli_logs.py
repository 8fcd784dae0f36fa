import json

import pytest
from fakes.network import AGENT, BY_NAME
from fakes.server import agent, workspace
from hypothesis import given
from hypothesis import strategies as st

from coder.cli import loglines
from coder.cli.commands import logs
from coder.cli.loglines import Line

SOURCE = "44444444-4444-4444-8444-444444444444"
BUILD = "55555555-5555-4555-8555-555555555555"


def agent_line(number, time, text, level="info"):
    return {"id": number, "created_at": time, "output": text, "level": level, "source_id": SOURCE}


@pytest.fixture
def printed(signed_in):
    """A workspace whose build and agent have printed something."""
    found = workspace(agent(log_sources=[{"id": SOURCE, "display_name": "Set up"}]))
    found["latest_build"]["id"] = BUILD
    signed_in.answers[BY_NAME] = (200, found)
    signed_in.lines = [
        agent_line(7, "2030-01-01T00:00:02.5Z", "\x1b[32mgreen\x1b[0m\tand"),
        agent_line(9, "2030-01-01T00:00:04Z", "bad \x1b]0;title\x07 \x9b2J\u202e", "error"),
    ]

    def after(call, rows):
        number = int(call.query["after"][0])
        return 200, [row for row in rows if row["id"] > number]

    built = {"id": 1, "created_at": "2030-01-01T00:00:02.25Z", "log_level": "info", "stage": "Plan", "output": "made"}
    signed_in.answers[f"{AGENT}/logs"] = lambda call: after(call, signed_in.lines)
    signed_in.answers[f"GET /api/v2/workspacebuilds/{BUILD}/logs"] = lambda call: after(call, [built])
    return signed_in


@pytest.mark.usefixtures("printed")
def test_lines_of_build_and_agent_are_merged_by_time_and_do_nothing_to_a_terminal(coder):
    run = coder("logs", "dev")
    assert run.code == 0, run.err
    assert run.out.splitlines() == [
        "2030-01-01 00:00:02  Plan | made",
        "2030-01-01 00:00:02  main/Set up | green    and",
        "2030-01-01 00:00:04  main/Set up | error: bad ?]0;title? ?2J?",
    ]


@pytest.mark.usefixtures("printed")
@pytest.mark.parametrize(("count", "left"), [("0", 0), ("1", 1), ("2", 2), ("99", 3)])
def test_only_the_last_lines(coder, count, left):
    assert len(coder("logs", "dev", "-n", count).out.splitlines()) == left


@pytest.mark.usefixtures("printed")
def test_as_json(coder):
    run = coder("logs", "dev", "-o", "json")
    assert [(one["source"], one["level"]) for one in json.loads(run.out)] == [
        ("Plan", "info"), ("main/Set up", "info"), ("main/Set up", "error"),
    ]  # fmt: skip
    assert "\x9b" not in run.out


def test_following_shows_each_line_once(coder, printed, monkeypatch):
    rounds = []

    def pause(_seconds):
        rounds.append(1)
        if len(rounds) == 2:
            printed.lines.append(agent_line(11, "2030-01-01T00:00:09Z", "new"))
        if len(rounds) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(logs.time, "sleep", pause)
    run = coder("logs", "dev", "--follow", "-n", "1", "-o", "json")
    assert run.code == 130
    assert [json.loads(line)["output"] for line in run.out.splitlines()][1:] == ["new"]


@pytest.mark.parametrize("name", ["dev", "dev.main"])
def test_following_goes_on_with_the_next_build(coder, printed, monkeypatch, name):
    later = "66666666-6666-4666-8666-666666666666"
    built = {"id": 3, "created_at": "2030-01-01T00:01:00Z", "log_level": "info", "stage": "Stop", "output": "ended"}
    rounds = []

    def pause(_seconds):
        rounds.append(1)
        if len(rounds) == 1:  # the agent has gone, and the workspace does not say so yet
            printed.answers[f"{AGENT}/logs"] = (404, {"message": "There is no such resource."})
        if len(rounds) == 2:
            stopped = workspace()
            stopped["latest_build"] |= {"id": later, "transition": "stop", "resources": []}
            printed.answers[BY_NAME] = (200, stopped)
            printed.answers[f"GET /api/v2/workspacebuilds/{later}/logs"] = (200, [built])
        if len(rounds) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(logs.time, "sleep", pause)
    run = coder("logs", name, "--follow")
    assert run.code == 130, run.err
    assert run.out.splitlines()[3:] == ["2030-01-01 00:01:00  Stop | ended"]


def test_following_waits_for_a_server_that_restarts(coder, printed, monkeypatch):
    rounds = []

    def pause(_seconds):
        rounds.append(1)
        if len(rounds) == 1:
            monkeypatch.setattr("coder.cli.api.Api.agent_logs", away)
        if len(rounds) == 4:
            raise KeyboardInterrupt

    def away(*_):
        raise logs.Unreachable("cannot reach the server")

    monkeypatch.setattr(logs.time, "sleep", pause)
    run = coder("logs", "dev", "--follow")
    assert run.code == 130
    assert run.err.count("waiting for it") == 1


def test_nothing_printed_yet_is_said(coder, signed_in):
    signed_in.answers[BY_NAME] = (200, workspace(agent()))
    signed_in.answers[f"{AGENT}/logs"] = (200, [])
    run = coder("logs", "dev")
    assert (run.code, run.out) == (0, "")
    assert "coder logs dev --follow" in run.err


@given(st.text())
def test_no_text_moves_a_cursor(text):
    assert loglines.plain(text).isprintable()


def test_times_of_different_lengths_are_in_order():
    times = ["2030-01-01T00:00:00Z", "2030-01-01T00:00:00.05Z", "2030-01-01T00:00:00.5Z", "2030-01-01T00:00:01Z"]
    lines = [Line(time, "", "info", "") for time in times]
    assert loglines.merged(lines[::-2], lines[::-1][1::2]) == lines


def test_a_token_is_renewed(coder, signed_in, tmp_path):
    signed_in.answers[BY_NAME] = (200, workspace(agent()))
    signed_in.answers[f"{AGENT}/token".replace("GET", "POST")] = (201, {"agent_token": "the-new-one"})
    assert coder("agents", "token", "dev").code == 2, "it must be asked for"
    run = coder("agents", "token", "dev.main", "--renew")
    assert (run.code, run.out) == (0, "the-new-one\n")
    for _ in range(2):  # the file of the old token may be there
        run = coder("agents", "token", "dev", "--renew", "--output-token-file", str(tmp_path / "token"), "-o", "json")
        assert run.code == 0
        assert "agent_token" not in json.loads(run.out)
    assert (tmp_path / "token").read_text() == "the-new-one\n"
    before = len(signed_in.calls)
    assert coder("agents", "token", "dev", "--renew", "--output-token-file", str(tmp_path / "no" / "t")).code == 2
    assert len(signed_in.calls) == before, "a token that could not be kept is not made"
