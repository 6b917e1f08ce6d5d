"""Controlled delay: a burst is waited out, a queue that stays is not."""

from __future__ import annotations

import pytest

from resilient.core.codel import Lateness, Line


def test_a_burst_may_wait_and_a_standing_line_may_not() -> None:
    line = Line(0.1, 0.1, 0.005)
    line.join("a", 10.0)
    line.join("b", 10.04)
    assert not line.standing(10.09) and line.limit(10.09) == 0.1
    assert line.overdue(10.09) == []
    line.join("c", 10.099)
    assert line.standing(10.101) and line.limit(10.101) == 0.005
    assert line.overdue(10.101) == ["a", "b"]  # also who joined before it was a standing one
    assert line.overdue(10.103) == []
    assert line.overdue(10.105) == ["c"]
    assert not line.standing(11.0)  # an empty line never is


def test_a_line_that_was_empty_in_between_is_a_new_one() -> None:
    line = Line(1.0, 0.1, 0.005)
    line.join("a", 10.0)
    line.join("b", 10.09)
    assert line.first() == "a"
    assert line.last() == "b"
    line.join("c", 10.15)
    assert not line.standing(10.2)
    assert line.first() == "c"
    entry = object()
    line.join(entry, 10.2)
    assert line.leave(entry) is True
    assert line.leave(entry) is False


def test_a_standing_line_that_was_empty_for_a_moment_only_is_one_still() -> None:
    line = Line(1.0, 1.0, 0.1, 0.1)
    line.join("a", 10.0)
    assert line.limit(11.0) == 0.1
    line.first()
    line.join("b", 11.09)
    assert line.limit(11.09) == 0.1
    line.first()
    line.join("c", 11.2)
    assert line.limit(11.2) == 1.0


def test_without_a_relapse_it_is_a_new_one_even_at_that_moment() -> None:
    line = Line(1.0, 1.0, 0.1)
    line.join("a", 10.0)
    assert line.standing(11.0)
    line.first()
    line.join("b", 11.0)
    assert not line.standing(11.0) and line.limit(11.9) == 1.0


def test_one_may_wait_for_all_of_the_patience() -> None:
    line = Line(0.5, 1.0, 0.25)
    line.join("a", 10.0)
    assert line.overdue(10.5) == []
    assert line.overdue(10.501) == ["a"]


def test_patience_never_grows_in_a_standing_line() -> None:
    assert _standing(Line(0.01, 0.1, 5.0)).limit(20.0) == 0.01


def _standing(line: Line) -> Line:
    line.join(object(), 10.0)
    return line


@pytest.mark.parametrize("name", ["patience", "standing_after", "standing_patience", "relapse"])
def test_wrong_settings_of_a_line(name: str) -> None:
    settings = {"patience": 1.0, "standing_after": 1.0, "standing_patience": 1.0, "relapse": 0.0, name: -1.0}
    with pytest.raises(ValueError, match=f"^{name} must be"):
        Line(**settings)


@pytest.mark.parametrize("name", ["target", "interval"])
def test_wrong_settings_of_a_lateness(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        Lateness(**{name: 0.0})


def test_five_milliseconds_are_in_time_and_more_are_late_after_100() -> None:
    lateness = Lateness()
    for step in range(20):
        assert lateness.add(0.005, 10.0 + step * 0.02) is False
    lateness.clear()
    told = [lateness.add(0.006, 20.0 + step * 0.02) for step in range(7)]
    assert told == [False] * 5 + [True] * 2
    assert lateness.add(0.005, 20.13) is False


def test_late_is_whose_least_delay_of_an_interval_is_too_much() -> None:
    lateness = Lateness(0.005, 0.1)
    assert [lateness.add(0.02, 10.0 + step * 0.02) for step in range(7)] == [False] * 5 + [True, True]
    assert lateness.latest == 0.02


def test_one_sample_in_time_ends_it() -> None:
    lateness = Lateness(0.005, 0.1)
    for step in range(7):
        lateness.add(0.02, 10.0 + step * 0.02)
    assert lateness.add(0.001, 10.14) is False
    assert lateness.add(0.3, 10.2) is False  # the interval has had a good one
    lateness.clear()
    assert lateness.latest == 0.0 and not lateness.late


def test_a_single_pause_is_none() -> None:
    lateness = Lateness(0.005, 0.1)
    assert [lateness.add(delay, at) for delay, at in ((0.0, 10.0), (0.5, 10.5), (0.0, 10.6), (0.0, 10.7))] == [False] * 4
