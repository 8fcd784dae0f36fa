import pytest

from coder.access.schedule import Schedule
from coder.cli import times
from coder.cli.daytimes import line
from coder.errors import CoderError


@pytest.mark.parametrize(
    ("words", "made"),
    [
        ("9:30", "CRON_TZ=UTC 30 9 * * *"),
        ("9:30AM Mon-Fri", "CRON_TZ=UTC 30 9 * * mon-fri"),
        ("12am", "CRON_TZ=UTC 0 0 * * *"),
        ("12pm", "CRON_TZ=UTC 0 12 * * *"),
        ("9pm sat,Sunday Europe/Berlin", "CRON_TZ=Europe/Berlin 0 21 * * sat,sun"),
        ("23:59 Asia/Tokyo", "CRON_TZ=Asia/Tokyo 59 23 * * *"),
        ("7:00 wednesday", "CRON_TZ=UTC 0 7 * * wed"),
        ("6:05 1-5", "CRON_TZ=UTC 5 6 * * 1-5"),
        ("30 9 * * 1-5", "30 9 * * 1-5"),
        ("CRON_TZ=Europe/Berlin 30 9 * * 1-5", "CRON_TZ=Europe/Berlin 30 9 * * 1-5"),
    ],
)
def test_what_people_write_is_a_line_that_the_server_reads(words, made):
    assert line(words.split(), "UTC") == line([words], "UTC") == made
    Schedule.parse(made)


@pytest.mark.parametrize(
    "words", ["9", "25:00", "9:75", "13pm", "0am", "noon", "9:30 Mars/Base", "9:30 mon UTC more", "30 9 * *", "9:30 8"]
)
def test_anything_else_is_told_what_is_expected(words):
    with pytest.raises(CoderError) as caught:
        line(words.split(), "UTC")
    assert "9:30AM Mon-Fri Europe/Berlin" in caught.value.remedy
    assert "cron" in caught.value.remedy


def test_this_machine_s_zone(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert times.zone() == "Asia/Tokyo"
    monkeypatch.setenv("TZ", "nonsense/here")
    monkeypatch.setattr("os.path.realpath", lambda _path: "/usr/share/zoneinfo/Europe/Berlin")
    assert times.zone() == "Europe/Berlin"
    monkeypatch.setattr("os.path.realpath", lambda path: path)
    assert times.zone() == "UTC"


def test_times_in_tables_are_local_and_short(monkeypatch):
    import time

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert times.short("2026-01-02T03:04:05.678Z") == "2026-01-02 12:04:05"
    finally:
        monkeypatch.undo()
        time.tzset()
    assert times.short(None) == times.short("0001-01-01T00:00:00Z") == ""
