"""The schedule of a race, and what counts as a good answer, without anything that runs."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.core.hedge import SHORTEST, Heat, delay_of, is_good
from resilient.core.outcome import Outcome

HURRY = {"after_failure": True}
Failures = dict[float, float | None]
"""When an attempt fails, and the seconds that the dependency then asks to be left alone for."""


def starts(heat: Heat, failures: Failures | None = None, until: float = 100.0) -> list[float]:
    """When attempts start, if those fail that are said to."""
    begun, pending = [0.0], sorted((failures or {}).items())
    while not heat.over:
        if pending and pending[0][0] <= heat.due:
            at, retry_after = pending.pop(0)
            heat.failed(at, retry_after=retry_after)
        elif heat.due <= until:
            begun.append(heat.due)
            heat.started(heat.due)
        else:
            break
    return begun


@pytest.mark.parametrize(
    ("failures", "expected"),
    [
        pytest.param({}, [0, 0.5, 1.0, 1.5], id="hedge-10 no answers"),
        pytest.param({0.2: None}, [0, 0.2, 0.7, 1.2], id="hedge-10 not fatal"),
        pytest.param({0.2: 2.0}, [0, 2.2, 2.7, 3.2], id="hedge-10 pushback"),
        pytest.param({0.2: math.inf}, [0], id="hedge-10 do not retry"),
    ],
)
def test_the_schedule_of_grpc(failures: Failures, expected: list[float]) -> None:
    assert starts(Heat(0.0, 0.5, 3, **HURRY), failures) == pytest.approx(expected)


def test_hedge_01_attempts_are_a_delay_apart() -> None:
    assert starts(Heat(0.0, 1.0, 3)) == [0, 1, 2, 3]


def test_a_failure_with_nobody_else_out_ends_the_race() -> None:
    heat = Heat(0.0, 1.0, 3)
    heat.failed(0.2)
    assert heat.over and heat.due == math.inf


def test_with_another_one_out_the_next_still_starts_when_it_is_due() -> None:
    heat = Heat(0.0, 1.0, 2)
    heat.started(1.0)
    heat.failed(1.5)
    assert heat.due == 2.0 and not heat.over


def test_pushback_only_ever_puts_off() -> None:
    heat = Heat(0.0, 1.0, 2)
    heat.started(1.0)
    heat.failed(1.5, retry_after=0.1)
    assert heat.due == 2.0
    assert starts(Heat(0.0, 1.0, 1, **HURRY), {0.2: 5.0}) == [0, 5.2]


def test_pushback_beyond_the_deadline_stops() -> None:
    heat = Heat(0.0, 1.0, 3, latest=4.0, **HURRY)
    heat.failed(0.2, retry_after=4.0)
    assert heat.over


def test_what_another_attempt_cannot_mend_is_not_tried_again() -> None:
    heat = Heat(0.0, 1.0, 3, **HURRY)
    heat.failed(0.2, mendable=False)
    assert heat.over


def test_nothing_starts_too_late_to_be_of_use() -> None:
    assert starts(Heat(0.0, 1.0, 5, latest=2.5)) == [0, 1, 2]
    assert starts(Heat(0.0, 1.0, 5, latest=2.0)) == [0, 1, 2]


def test_stopped() -> None:
    heat = Heat(0.0, 1.0, 3)
    heat.stop()
    assert heat.due == math.inf and not heat.over
    heat.failed(5.0)
    assert heat.over


@given(
    delay=st.floats(0, 10),
    hedges=st.integers(0, 5),
    latest=st.one_of(st.just(math.inf), st.floats(0, 20)),
    after_failure=st.booleans(),
    failures=st.dictionaries(st.floats(0, 30), st.one_of(st.none(), st.floats(0, 30), st.just(math.inf)), max_size=6),
)
def test_never_more_never_earlier_never_too_late(delay: float, hedges: int, latest: float, after_failure: bool, failures: Failures) -> None:
    heat = Heat(0.0, delay, hedges, latest=latest, after_failure=after_failure)
    begun = [0.0]
    closed = 0.0  # nothing may start before: the dependency has asked for it
    pending = sorted(failures.items())
    while not heat.over:
        due = heat.due
        if pending and heat.out and pending[0][0] <= due:
            at, retry_after = pending.pop(0)
            at = max(at, begun[-1])
            heat.failed(at, retry_after=retry_after)
            closed = max(closed, at + (retry_after or 0.0)) if not after_failure else at + (retry_after or 0.0)
        elif due < math.inf:
            assert due >= closed or after_failure
            assert due >= begun[-1]
            if not after_failure:
                assert due >= begun[-1] + delay or math.isclose(due, begun[-1] + delay)
            heat.started(due)
            begun.append(due)
        else:
            break
    assert len(begun) <= hedges + 1
    assert all(moment <= latest for moment in begun[1:])
    assert heat.left == hedges + 1 - len(begun)


@pytest.mark.parametrize(("p95", "delay"), [(None, None), (0.0, SHORTEST), (0.0002, SHORTEST), (0.1, 0.1125)])
def test_the_delay_by_estimate(p95: float | None, delay: float | None) -> None:
    assert delay_of(p95) == (None if delay is None else pytest.approx(delay))


@pytest.mark.parametrize("outcome", list(Outcome))
def test_good_is_what_is_neither_a_failure_nor_refused(outcome: Outcome) -> None:
    assert is_good(outcome, late=False, degraded=False) == (outcome in (Outcome.SUCCESS, Outcome.IGNORED))
    assert not is_good(outcome, late=False, degraded=True)
    assert is_good(outcome, late=True, degraded=False)


def test_each_that_starts_is_one_more_that_is_out() -> None:
    heat = Heat(0.0, 1.0, 2)
    heat.started(1.0)
    assert (heat.out, heat.left) == (2, 1)
    heat.stop()
    assert (heat.out, heat.left) == (2, 0)


def test_after_a_failure_a_hedge_starts_when_the_dependency_asks_for_it_also_before_its_turn() -> None:
    heat = Heat(0.0, 10.0, 1, after_failure=True)
    heat.failed(1.0, retry_after=2.0)
    assert heat.due == 3.0
