from datetime import UTC, datetime, timedelta

import click
import pytest

from coder.cli import options, output, times
from coder.cli.context import normal_url
from coder.cli.workspaces import Target, choose_agent
from coder.errors import CoderError, Conflict, NotFound


def test_table_has_upper_case_headers_and_no_trailing_blanks():
    assert output.table(["name", "x"], [["a", "longer"], ["bcdefg", ""]]) == "NAME    X\na       longer\nbcdefg"


def test_columns_are_chosen_in_any_letter_case():
    assert output.pick(["interval", "last built"], "Last Built, interval", ()) == ["last built", "interval"]
    assert output.pick(["a"], None, ["a"]) == ["a"]


@pytest.mark.parametrize("chosen", ["nope", "", ","])
def test_an_unknown_column_names_those_there_are(chosen):
    with pytest.raises(click.BadParameter, match="interval"):
        output.pick(["interval"], chosen, ())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5), ("1m30s", 90), ("250ms", 0.25), ("24h0m0s", 86400), ("8d", 691200), ("2", 2), ("3us", 3e-6)],
)  # fmt: skip
def test_durations(text, seconds):
    assert options.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "5x", "5s!", "-5s", "1m 30s", "five"])
def test_no_durations(text):
    with pytest.raises(ValueError, match="duration"):
        options.parse_duration(text)


@pytest.mark.parametrize(("seconds", "text"), [(5, "5s"), (2.5, "2.5s"), (90, "1m30s"), (3600, "1h"), (60, "1m")])
def test_durations_are_written_short(seconds, text):
    assert options.format_duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.000264, "0.26ms"), (0.0034, "3.4ms"), (0.029, "29ms"), (1.234, "1.23s")]
)
def test_latencies_have_useful_digits(seconds, text):
    assert options.format_latency(seconds) == text


@pytest.mark.parametrize(
    ("age", "text"), [(5, "5s ago"), (90, "1m ago"), (7300, "2h ago"), (200000, "2d ago"), (-3, "0s ago")]
)
def test_ages(age, text):
    now = datetime(2026, 5, 1, tzinfo=UTC)
    assert times.ago((now - timedelta(seconds=age)).isoformat(), now) == text


def test_no_time_has_no_age():
    assert times.ago("0001-01-01T00:00:00Z") == times.ago(None) == times.ago("soon") == ""


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("dev", Target("me", "dev", None)),
        ("bob/dev", Target("bob", "dev", None)),
        ("dev.main", Target("me", "dev", "main")),
        ("bob/dev.main", Target("bob", "dev", "main")),
    ],
)
def test_workspace_arguments(text, target):
    assert Target.parse(text) == target


def test_a_user_before_the_workspace_is_refused_with_a_remedy():
    with pytest.raises(CoderError) as caught:
        Target.parse("root@dev.main")
    assert caught.value.remedy.endswith("write dev.main.")


@pytest.mark.parametrize("text", ["", "a/b/c", "/dev", "dev.", "a.b.c", "@", "ann@"])
def test_no_workspace_arguments(text):
    with pytest.raises(CoderError, match="names no workspace"):
        Target.parse(text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("localhost:3000", "http://localhost:3000"),
        ("coder.example.com/", "https://coder.example.com"),
        ("http://10.0.0.1:80", "http://10.0.0.1:80"),
    ],
)
def test_urls_are_completed(text, url):
    assert normal_url(text) == url


@pytest.mark.parametrize("text", ["ftp://x", "http://", "https://x:notaport", "http://x?y=1", "http://[::1"])
def test_no_urls(text):
    with pytest.raises(CoderError, match="not the address"):
        normal_url(text)


def build(*names: str, transition: str = "start") -> dict:
    agents = [{"name": name, "id": name} for name in names]
    return {"latest_build": {"transition": transition, "resources": [{"agents": agents}, {"agents": None}]}}


def test_the_only_agent_is_chosen():
    assert choose_agent(build("main"), Target("me", "dev", None))["id"] == "main"


def test_an_agent_is_chosen_by_name():
    assert choose_agent(build("a", "b"), Target("me", "dev", "b"))["id"] == "b"


@pytest.mark.parametrize(
    ("workspace", "agent", "kind", "text"),
    [
        (build("a", "b"), None, Conflict, "several agents: a, b"),
        (build("a", "b"), "c", NotFound, "no agent 'c'"),
        (build(), None, Conflict, "has no agents"),
        (build("a", transition="stop"), None, Conflict, "not started"),
    ],
)
def test_agents_that_cannot_be_chosen(workspace, agent, kind, text):
    with pytest.raises(kind, match=text) as caught:
        choose_agent(workspace, Target("me", "dev", agent))
    assert caught.value.remedy
