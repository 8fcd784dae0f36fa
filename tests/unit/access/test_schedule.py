"""When workspaces stop and start by themselves."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coder.access.schedule import Schedule, ttl_problem
from coder.errors import Malformed


@pytest.mark.parametrize(
    ("line", "after", "due"),
    [
        ("30 9 * * *", "2030-01-01T09:29:59", "2030-01-01T09:30:00"),
        ("30 9 * * *", "2030-01-01T09:30:00", "2030-01-02T09:30:00"),
        ("CRON_TZ=UTC 0 0 * * 1", "2030-01-01T00:00:00", "2030-01-07T00:00:00"),  # that 1st is a Tuesday
        ("30 9 * * 1-5", "2030-01-04T10:00:00", "2030-01-07T09:30:00"),
        ("30 9 * * mon,WED", "2030-01-01T10:00:00", "2030-01-02T09:30:00"),
        ("30 9 * * 6-1", "2030-01-01T10:00:00", "2030-01-05T09:30:00"),
        ("30 9 * * 7", "2030-01-01T10:00:00", "2030-01-06T09:30:00"),
        ("CRON_TZ=Europe/Berlin 30 9 * * *", "2030-01-01T00:00:00", "2030-01-01T08:30:00"),
        ("CRON_TZ=Europe/Berlin 30 9 * * *", "2030-07-01T00:00:00", "2030-07-01T07:30:00"),
        ("CRON_TZ=Asia/Tokyo 0 1 * * 2", "2030-01-01T00:00:00", "2030-01-07T16:00:00"),
    ],
)
def test_the_next_time_is_found(line: str, after: str, due: str):
    moment = datetime.fromisoformat(after).replace(tzinfo=UTC)
    assert Schedule.parse(line).after(moment) == datetime.fromisoformat(due).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "line",
    [
        *("", "nine", "60 9 * * *", "0 24 * * *", "0 9 1 * *", "0 9 * 1 *", "*/5 * * * *", "0 9 * * 8", "0 9 * * mon-"),
        *("0 9 * *", "CRON_TZ=Nowhere/City 0 9 * * *", "CRON_TZ=../../etc/passwd 0 9 * * *", "CRON_TZ=/etc 0 9 * * *"),
        *("0 9 * * \u0661", "0 9 * * 1\n", "0 9 * * ,"),
    ],
)
def test_what_is_no_schedule_is_refused(line: str):
    if line.endswith("\n"):
        assert Schedule.parse(line)  # blanks around it do no harm
        return
    with pytest.raises(Malformed):
        Schedule.parse(line)


@given(
    st.integers(0, 59),
    st.integers(0, 23),
    st.sets(st.integers(0, 6), min_size=1),
    st.integers(1_577_836_800, 2_208_988_800),
)
def test_the_next_time_is_the_first_that_fits(minute: int, hour: int, days: set[int], seconds: int):
    moment = datetime.fromtimestamp(seconds, UTC)
    due = Schedule.parse(f"{minute} {hour} * * {','.join(map(str, sorted(days)))}").after(moment)
    assert due > moment
    assert (due.minute, due.hour, due.isoweekday() % 7 in days) == (minute, hour, True)
    assert (due - moment).days <= 7


@pytest.mark.parametrize(("ttl", "good"), [(0, True), (59_999, False), (60_000, True), (30 * 86_400_000, True)])
def test_the_time_until_a_stop_has_bounds(ttl: int, *, good: bool):
    assert (ttl_problem(ttl) is None) is good


@pytest.mark.parametrize("ttl", [-1, 30 * 86_400_000 + 1, 2**70, -(2**70)])
def test_a_time_beyond_them_is_refused(ttl: int):
    assert ttl_problem(ttl)
