from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coder.web import text

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;https://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;ZXZpbA==\x07pasted", "pasted"),
        ("\x1bP1;2qsixel\x1b\\shown", "shown"),
        ("\x9b31mred", "red"),
        ("cut\x1b[", "cut"),
        ("cut\x1b", "cut"),
        ("a\tb", "a\tb"),
        ("a\x00\x08\rb", "ab"),
        ("evil\u202etxt.exe", "eviltxt.exe"),
        ("<b>&", "<b>&"),
    ],
)
def test_a_line_loses_what_it_would_do_to_a_terminal(line: str, shown: str):
    assert text.plain(line) == shown


@given(st.text(alphabet="\x1b[]0;mP\\\x07\x9bab", max_size=60))
def test_no_control_character_is_left_of_any_line(line: str):
    assert not set(text.plain(line)) & {"\x1b", "\x9b", "\x07"}


@pytest.mark.parametrize(
    ("past", "words"),
    [
        (timedelta(seconds=2), "just now"),
        (timedelta(seconds=59), "59 seconds ago"),
        (timedelta(minutes=1), "1 minute ago"),
        (timedelta(hours=5), "5 hours ago"),
        (timedelta(days=3), "3 days ago"),
        (timedelta(days=-6), "in 6 days"),
        (timedelta(days=400), "2028-11-27"),
    ],
)
def test_times_read_as_how_long_ago(past: timedelta, words: str):
    assert text.ago((NOW - past).isoformat(), NOW) == words


@pytest.mark.parametrize("value", [None, "", "yesterday", "0001-01-01T00:00:00Z"])
def test_no_time_is_never(value: object):
    assert text.ago(value, NOW) == "never"


def test_latencies_have_the_digits_they_are_worth():
    assert [text.milliseconds(each) for each in (0.01, 1.234, 56.7, None)] == ["< 0.1 ms", "1.2 ms", "57 ms", "unknown"]


def test_spans_go_on_until_they_end():
    begun = (NOW - timedelta(hours=2, minutes=3)).isoformat()
    assert text.span(begun, None, NOW) == "2 h 3 min"
    assert text.span(begun, (NOW - timedelta(hours=2, seconds=170)).isoformat(), NOW) == "10 s"
