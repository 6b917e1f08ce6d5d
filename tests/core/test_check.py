"""When a check is well, ill, or not known."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.core.check import HURRY, ILL, JITTER, STATES, UNKNOWN, WELL, Change, Standing, pause

LASTS = 32.0


def standing(failures: int = 3, successes: int = 1) -> Standing:
    return Standing(failures, successes, LASTS)


def after(one: Standing, results: str, *, at: float = 0.0) -> Standing:
    """`results`: a letter a second, w for a good one and i for a bad one."""
    for second, letter in enumerate(results):
        one.record(letter == "w", "" if letter == "w" else f"bad {second}", at + second)
    return one


def test_before_the_first_result_nothing_is_known() -> None:
    one = standing()
    assert (one.state(0.0), one.told, one.reason, one.at, one.since, one.against) == (UNKNOWN, UNKNOWN, "", -math.inf, -math.inf, 0)
    assert one.look(0.0) is None


@pytest.mark.parametrize(("first", "state"), [("w", WELL), ("i", ILL)])
def test_the_first_result_decides(first: str, state: str) -> None:
    assert after(standing(5, 5), first).state(0.0) == state


@pytest.mark.parametrize(
    ("results", "state", "against"),
    [
        ("wi", WELL, 1),
        ("wii", WELL, 2),
        ("wiii", ILL, 0),
        ("wiiwii", WELL, 2),
        ("wiiwiii", ILL, 0),
        ("wiiiw", ILL, 1),
        ("wiiiww", WELL, 0),
        ("wiiiwiw", ILL, 1),
        ("wiiiwi", ILL, 0),
    ],
)
def test_it_takes_some_in_a_row(results: str, state: str, against: int) -> None:
    one = after(standing(3, 2), results)
    assert (one.state(len(results)), one.against) == (state, against)


def test_bad_results_that_come_more_often_count_as_one() -> None:
    one = Standing(3, 2, LASTS, apart=8.0)
    for second in (0.0, 1.0):
        one.record(True, "", second)
    for second in (2.0, 3.0, 9.9):
        one.record(False, f"at {second}", second)
    assert (one.state(9.9), one.against, one.reason, one.at) == (WELL, 1, "at 9.9", 9.9)
    one.record(False, "", 10.0)
    assert (one.state(10.0), one.against) == (WELL, 2)
    one.record(False, "", 17.9)
    assert one.against == 2
    one.record(False, "", 18.0)
    assert (one.state(18.0), one.against) == (ILL, 0)
    for second in (18.5, 18.6):  # good ones always count
        one.record(True, "", second)
    assert one.state(18.6) == WELL
    for second in (18.7, 18.8):  # and so does a bad one after a good one
        one.record(False, "", second)
        one.record(True, "", second)
    one.record(False, "", 18.9)
    assert (one.state(18.9), one.against) == (WELL, 1)


def test_the_reason_is_that_of_the_last_result() -> None:
    one = after(standing(), "wi")
    assert (one.state(1.0), one.reason, one.at) == (WELL, "bad 1", 1.0)
    one.record(True, "not looked at", 2.0)
    assert (one.reason, one.at) == ("", 2.0)


def test_an_old_result_says_nothing_and_what_it_was_has_to_be_outweighed() -> None:
    one = after(standing(3, 2), "w")
    assert one.state(LASTS) == WELL
    assert one.state(LASTS + 0.001) == UNKNOWN
    one.record(False, "bad", 100.0)
    assert one.state(100.0) == WELL
    ill = after(standing(3, 2), "i")
    ill.record(True, "", 100.0)
    assert ill.state(100.0) == ILL


def test_a_change_is_told_once_with_its_reason_and_when_it_was_seen() -> None:
    one = standing(2)
    one.record(True, "", 1.0)
    assert one.look(1.5) == Change(UNKNOWN, WELL, "")
    assert (one.look(1.6), one.since, one.told) == (None, 1.5, WELL)
    one.record(False, "first", 2.0)
    assert one.look(2.0) is None
    one.record(False, "second", 3.0)
    assert one.look(3.0) == Change(WELL, ILL, "second")
    assert one.look(3.0 + LASTS + 1) == Change(ILL, UNKNOWN, "no result lately")
    assert one.since == 3.0 + LASTS + 1


def test_what_is_forgotten_is_as_it_was_at_first() -> None:
    one = after(standing(5, 5), "wi")
    one.forget()
    assert (one.state(2.0), one.reason, one.at, one.against) == (UNKNOWN, "", -math.inf, 0)
    one.record(False, "bad", 3.0)
    assert one.state(3.0) == ILL


@given(st.text("wi", max_size=30), st.integers(1, 4), st.integers(1, 4))
def test_it_is_what_the_last_long_enough_row_says(results: str, failures: int, successes: int) -> None:
    expected, row = UNKNOWN, 0
    for index, letter in enumerate(results):
        row = row + 1 if index and results[index - 1] == letter else 1
        said = WELL if letter == "w" else ILL
        if expected == UNKNOWN or row >= (successes if letter == "w" else failures):
            expected = said
    assert after(standing(failures, successes), results).state(len(results)) == expected


def test_words_and_figures_are_those_that_are_documented() -> None:
    assert (WELL, ILL, UNKNOWN) == STATES == ("well", "ill", "unknown")
    assert (HURRY, JITTER) == (1.0, 0.1)


@pytest.mark.parametrize(("random", "share"), [(0.0, 1 - JITTER), (0.5, 1.0), (1.0, 1 + JITTER)])
def test_pauses_are_spread(random: float, share: float) -> None:
    assert pause(20.0, random) == pytest.approx(20.0 * share)
    assert pause(20.0, random, hurried=True) == pytest.approx(HURRY * share)
    assert pause(0.2, random, hurried=True) == pytest.approx(0.2 * share)
