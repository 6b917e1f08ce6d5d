from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.core.breaker import CLOSED, OPEN, Breaker, Rules, Transition
from resilient.core.health import Health
from resilient.core.outcome import Outcome
from resilient.core.window import TimeWindow

SUCCESS, FAILURE, OUTAGE, THROTTLED, IGNORED = Outcome


def quiet(**settings: float) -> Health:
    """Nothing but one success, at 10."""
    health = Health(Rules(**settings))  # type: ignore[arg-type]
    health.last_success = 10.0
    return health


def test_a_call_hangs_after_ten_times_the_usual_and_a_second() -> None:
    health = quiet()
    assert [health.hang(p95) for p95 in (0.0, 0.05, 0.1, 0.5, 20.0)] == [1.0, 1.0, 1.0, 5.0, 200.0]
    assert quiet(stall_factor=3, stall_after=0.5).hang(0.2) == pytest.approx(0.6)


def test_five_calls_that_hang_and_a_second_without_success() -> None:
    health = quiet()
    assert health.stalled([1.01] * 5, 0.02, 11.0)
    assert not health.stalled([1.01] * 5, 0.02, 10.99)  # there was a success
    assert not health.stalled([1.01] * 4 + [1.0], 0.02, 11.0)  # a second is not more than a second
    assert not health.stalled([1.01] * 5, 0.2, 11.0)  # that is usual there
    assert not health.stalled([], 0.02, 11.0)


def test_no_success_was_ever_seen() -> None:
    assert Health(Rules()).stalled([2.0] * 5, 0.02, 11.0)


def test_no_such_rule() -> None:
    for health in (quiet(stall_calls=None), quiet(consecutive=3)):  # type: ignore[arg-type]
        assert not health.stalled([100.0] * 50, 0.02, 100.0)
        assert health.crowd == math.inf


def test_one_call_is_enough_where_so_set() -> None:
    health = quiet(stall_calls=1, stall_after=0.0)
    assert health.crowd == 1
    assert health.stalled([0.21], 0.02, 10.0)
    assert not health.stalled([0.2], 0.02, 10.0)


@given(st.lists(st.floats(0, 100), max_size=20), st.floats(0, 10), st.floats(10, 20))
def test_the_rule_is_monotone(waits: list[float], p95: float, now: float) -> None:
    """Having waited longer never makes it less of a stall, nor do further calls."""
    health = quiet()
    if health.stalled(waits, p95, now):
        assert health.stalled([wait + 1 for wait in waits], p95, now + 1)
        assert health.stalled([*waits, 0.0], p95, now)
    else:
        assert not health.stalled(waits[:-1], p95, now)


# -- breaks that are given another length --------------------------------------------------------------------------


def opened() -> tuple[Breaker, Transition]:
    breaker = Breaker(Rules())
    transition = breaker.trip(0.0, "outage", 0.5)
    assert transition is not None
    return breaker, transition


def test_a_break_is_lengthened() -> None:
    breaker, transition = opened()
    assert (transition.number, transition.generation) == (1, 1)
    assert breaker.lengthen(transition, 10.0, 0.0)
    assert breaker.retry_after(4.0) == 6.0
    assert breaker.admit(9.99) is None
    assert breaker.admit(10.0) is not None
    # The next one grows from there, up to its own cap.
    again = breaker.trip(10.0, "outage", 0.5)
    assert again is not None and (again.number, again.retry_after) == (2, 3.0)


def test_another_break_is_left_alone() -> None:
    breaker, transition = opened()
    breaker.half_open(0.5)
    assert not breaker.lengthen(transition, 10.0, 0.5)
    breaker.trip(0.5, "outage", 0.5)
    assert not breaker.lengthen(transition, 10.0, 0.5)
    assert breaker.retry_after(0.5) == 2.0


def test_isolation_has_no_length() -> None:
    breaker, transition = opened()
    breaker.open(0.5)
    assert not breaker.lengthen(transition, 10.0, 0.5)
    assert breaker.retry_after(100.0) is None and breaker.state is OPEN


def test_breaks_are_counted_until_it_closes() -> None:
    breaker, _ = opened()
    for number in (2, 3):
        breaker.half_open(0.0)
        changed = breaker.trip(0.0, "outage", 0.5)
        assert changed is not None and changed.number == number == breaker.breaks
    breaker.close(0.0)
    assert (breaker.breaks, breaker.state) == (0, CLOSED)


# -- flights --------------------------------------------------------------------------------------------------------


def test_each_transition_forgets_who_is_in_flight() -> None:
    breaker = Breaker(Rules())
    for act in (lambda: breaker.trip(0.0, "outage", 0.5), lambda: breaker.half_open(0.0), lambda: breaker.close(0.0)):
        breaker.flights["a call"] = breaker.generation
        assert act() is not None
        assert breaker.flights == {}
    breaker.flights["a call"] = breaker.generation
    assert breaker.close(0.0) is None
    assert breaker.flights == {"a call": 3}


def test_a_permit_that_nobody_has_given_counts_nowhere() -> None:
    breaker = Breaker(Rules())
    breaker.record_success(-1, 5.0)
    assert breaker.totals(5.0) == (0, 0, 0) and breaker.last_success == -math.inf


def test_other_rules_look_for_stalls_from_another_number_of_calls() -> None:
    health = Health(Rules())
    assert health.crowd == 5
    health.adopt(Rules(stall_calls=7))
    assert health.crowd == 7
    health.adopt(Rules(consecutive=3))
    assert health.crowd == math.inf


def test_the_window_is_that_of_the_rules() -> None:
    window = Health(Rules(window=5.0, buckets=2))._window
    assert isinstance(window, TimeWindow)
    assert (window.seconds, window.buckets) == (5.0, 2)
