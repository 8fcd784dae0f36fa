from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coder.agent import cron
from coder.errors import Malformed


@pytest.mark.parametrize(
    ("schedule", "now", "due"),
    [
        ("CRON_TZ=UTC * * * * *", "2030-01-01T00:00:00", "2030-01-01T00:01:00"),
        ("CRON_TZ=UTC */10 * * * * *", "2030-01-01T00:00:05", "2030-01-01T00:00:10"),
        ("CRON_TZ=UTC 30 9 * * 1-5", "2030-01-04T10:00:00", "2030-01-07T09:30:00"),
        ("CRON_TZ=UTC 0 0 29 feb *", "2030-01-01T00:00:00", "2032-02-29T00:00:00"),
        ("CRON_TZ=UTC 0 0 13 * fri", "2030-01-01T00:00:00", "2030-01-04T00:00:00"),
        ("CRON_TZ=UTC 5,50 8/6 * * *", "2030-01-01T08:50:00", "2030-01-01T14:05:00"),
        ("CRON_TZ=UTC 0 0 * * 7", "2030-01-01T00:00:00", "2030-01-06T00:00:00"),
        ("CRON_TZ=Europe/Berlin 0 9 * * *", "2030-01-01T00:00:00", "2030-01-01T08:00:00"),
        ("TZ=Europe/Berlin @daily", "2030-07-01T00:00:00", "2030-07-01T22:00:00"),
        ("CRON_TZ=UTC @yearly", "2030-01-01T00:00:00", "2031-01-01T00:00:00"),
    ],
)
def test_the_next_time(schedule, now, due):
    found = cron.parse(schedule).after(datetime.fromisoformat(now).replace(tzinfo=UTC))
    assert found == datetime.fromisoformat(due).replace(tzinfo=UTC)


def test_a_day_that_never_comes():
    assert cron.parse("0 0 30 feb *").after(datetime(2030, 1, 1, tzinfo=UTC)) is None


@pytest.mark.parametrize(
    "text",
    ["", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "a * * * *", "5-1 * * * *", "*/0 * * * *", "@often",
     "CRON_TZ=No/Where * * * * *", "* * * * * * *", "1- * * * *x", "-1 * * * *", "٣ * * * *"],
)  # fmt: skip
def test_what_is_no_schedule(text):
    with pytest.raises(Malformed):
        cron.parse(text)


@given(st.text(max_size=40))
def test_any_text_is_a_schedule_or_refused(text):
    try:
        found = cron.parse(text)
    except Malformed:
        return
    assert found.minutes


@given(st.datetimes(timezones=st.just(UTC)).filter(lambda now: now.year < 9000), st.integers(0, 59), st.integers(0, 23))
def test_it_is_always_later_and_fits(now, minute, hour):
    due = cron.parse(f"CRON_TZ=UTC {minute} {hour} * * *").after(now)
    assert due > now
    assert (due.minute, due.hour, due.second) == (minute, hour, 0)
