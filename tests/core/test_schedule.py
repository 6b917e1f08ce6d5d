"""Schedules: the tiny form, read and compared with the calendar."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.core.degradation import Level
from resilient.core.schedule import DAYS, Schedule

FULL, REDUCED, STATIC, OFF = Level


def at(schedule: str | list[str], written: str) -> Level:
    return Schedule(schedule).level(datetime.fromisoformat(written).replace(tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("window", "moment", "level"),
    [
        ("static 02:00-04:00", "2026-11-22T02:00", STATIC),
        ("static 02:00-04:00", "2026-11-22T03:59:59", STATIC),
        ("static 02:00-04:00", "2026-11-22T04:00", FULL),
        ("static 02:00-04:00", "2026-11-22T01:59:59", FULL),
        ("static 02:30-03:45", "2026-11-22T02:30", STATIC),
        ("static 02:30-03:45", "2026-11-22T02:29:59", FULL),
        ("static 02:30-03:45", "2026-11-22T03:44:59", STATIC),
        ("static 02:30-03:45", "2026-11-22T03:45", FULL),
        ("off sat,sun", "2026-11-22T00:00", OFF),
        ("off sat,sun", "2026-11-22T23:59:59", OFF),
        ("off sat,sun", "2026-11-23T00:00", FULL),
        ("off fri-mon", "2026-11-23T12:00", OFF),
        ("off fri-mon", "2026-11-24T00:00", FULL),
        ("reduced mon-fri 22:00-06:00", "2026-11-20T23:00", REDUCED),
        ("reduced mon-fri 22:00-06:00", "2026-11-21T05:59", REDUCED),
        ("reduced mon-fri 22:00-06:00", "2026-11-21T22:30", FULL),
        ("reduced mon-fri 22:00-06:00", "2026-11-23T05:00", FULL),
        ("off 22:00-24:00", "2026-11-22T23:59", OFF),
        ("off 22:00-24:00", "2026-11-23T00:00", FULL),
        ("off 2026-12-24T18:00/2026-12-26T06:00", "2026-12-24T18:00", OFF),
        ("off 2026-12-24T18:00Z/2026-12-26T06:00Z", "2026-12-26T05:59", OFF),
        ("off 2026-12-24T18:00/2026-12-26T06:00", "2026-12-26T06:00", FULL),
    ],
)
def test_windows(window: str, moment: str, level: Level) -> None:
    assert at(window, moment) is level


def test_of_several_windows_the_most_severe_holds() -> None:
    schedule = ["reduced 00:00-12:00", "off sun 06:00-07:00", "static sun"]
    assert at(schedule, "2026-11-22T06:30") is OFF
    assert at(schedule, "2026-11-22T08:00") is STATIC
    assert at(schedule, "2026-11-23T08:00") is REDUCED
    assert Schedule(schedule).levels == {REDUCED, OFF, STATIC}
    assert repr(Schedule("off sun")) == "Schedule(['off sun'])"


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the zone of this process cannot be changed")
def test_moments_are_in_utc_wherever_it_runs() -> None:
    with pytest.MonkeyPatch.context() as patch:
        try:
            patch.setenv("TZ", "XXX+5")
            time.tzset()
            assert at("off 2026-12-24T18:00/2026-12-26T06:00", "2026-12-24T18:00") is OFF
            assert at("off 2026-12-24T18:00/2026-12-26T06:00", "2026-12-26T06:00") is FULL
            assert at("off thu 18:00-24:00", "2026-12-24T18:00") is OFF
        finally:
            patch.undo()
            time.tzset()


def test_there_may_be_a_hundred_windows() -> None:
    assert Schedule(["off mon"] * 100).levels == {OFF}


@pytest.mark.parametrize("window", ["off 2026-13-24T18:00/2026-12-26T06:00", "off 2026-12-24T18:00/2026-02-30T06:00"])
def test_a_moment_that_there_is_not_is_told_with_its_window(window: str) -> None:
    with pytest.raises(ValueError, match=f"'{window}': "):
        Schedule(window)


@given(
    st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1)),  # noqa: DTZ001
    st.sampled_from(DAYS),
    st.integers(0, 1439),
    st.integers(1, 1440),
)
def test_a_window_of_the_week_is_what_the_calendar_says(moment: datetime, day: str, begin: int, length: int) -> None:
    end = (begin + length) % 1440
    written = f"off {day} {begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02}" if length < 1440 else f"off {day}"
    begin = begin if length < 1440 else 0
    schedule = Schedule(written)
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    expected = any(
        DAYS[one.weekday()] == day and one + timedelta(minutes=begin) <= moment < one + timedelta(minutes=begin + length)
        for one in (midnight, midnight - timedelta(days=1))
    )
    assert (schedule.level(moment.replace(tzinfo=UTC).timestamp()) is OFF) == expected


@pytest.mark.parametrize(
    ("schedule", "error"),
    [
        (3, TypeError),
        ([3], TypeError),
        ("", ValueError),
        ("off", ValueError),
        ("full mon", ValueError),
        ("off monday", ValueError),
        ("off 2:00-4:00", ValueError),
        ("off 02:00-02:00", ValueError),
        ("off 24:00-02:00", ValueError),
        ("off 02:60-03:00", ValueError),
        ("off  mon", ValueError),
        ("off 2026-12-24T18:00/2026-12-24T18:00", ValueError),
        ("off 2026-13-24T18:00/2026-12-26T06:00", ValueError),
        (["off mon"] * 101, ValueError),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_read_is_refused(schedule: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="schedule"):
        Schedule(schedule)
