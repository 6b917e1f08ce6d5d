from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.core.deadline import attempt_limit, clamp, effective, useful

moments = st.floats(-1e6, 1e6)
seconds = st.floats(0, 1e6)


@pytest.mark.parametrize(
    ("arguments", "at"),
    [
        ({"total": 30.0, "inherited_at": None, "inbound": False}, 130.0),
        ({"total": None, "inherited_at": None, "inbound": False}, math.inf),
        ({"total": 30.0, "inherited_at": 110.0, "inbound": False}, 110.0),
        ({"total": 30.0, "inherited_at": 110.0, "inbound": True}, 109.995),
        ({"total": 30.0, "inherited_at": 110.0, "inbound": True, "reserve": 0.5}, 109.5),
        ({"total": 30.0, "inherited_at": 500.0, "inbound": True}, 130.0),
        ({"total": 30.0, "inherited_at": 110.0, "inbound": True, "extension": 101.0}, 101.0),
        ({"total": 30.0, "inherited_at": None, "inbound": False, "extension": 500.0}, 130.0),
        ({"total": None, "inherited_at": None, "inbound": False, "extension": 500.0}, 500.0),
        ({"total": 30.0, "inherited_at": 90.0, "inbound": False}, 90.0),
    ],
)
def test_the_earliest_counts(arguments: dict[str, float | bool | None], at: float) -> None:
    assert effective(100.0, **arguments) == pytest.approx(at)  # type: ignore[arg-type]


@given(moments, seconds, st.none() | moments, st.booleans(), st.none() | moments)
def test_nobody_extends_a_deadline(now: float, total: float, inherited_at: float | None, inbound: bool, extension: float | None) -> None:
    at = effective(now, total, inherited_at, inbound, extension=extension)
    assert at <= now + total
    assert inherited_at is None or at <= inherited_at
    assert extension is None or at <= extension


@pytest.mark.parametrize(
    ("deadline", "attempt", "may_follow", "at"),
    [
        (130.0, 10.0, True, 110.0),
        (130.0, 10.0, False, 130.0),
        (105.0, 10.0, True, 105.0),
        (130.0, None, True, 130.0),
        (math.inf, 10.0, True, 110.0),
        (math.inf, 10.0, False, math.inf),
    ],
)
def test_an_attempt_that_none_can_follow_has_the_whole_total(deadline: float, attempt: float | None, may_follow: bool, at: float) -> None:
    assert attempt_limit(100.0, deadline, attempt, may_follow) == at


@pytest.mark.parametrize(
    ("deadline", "min_useful", "is_useful"),
    [
        (100.25, 0.25, True),
        (100.125, 0.25, False),
        (100.0, 0.0, False),
        (99.0, 0.0, False),
        (100.001, 0.0, True),
        (math.inf, 0.01, True),
    ],
)
def test_an_attempt_with_too_little_left_is_not_started(deadline: float, min_useful: float, is_useful: bool) -> None:
    assert useful(100.0, deadline, min_useful) is is_useful


@given(st.none() | st.floats(-10, 1e6), st.floats(-10, 1e6))
def test_a_clamped_timeout_ends_in_time(timeout: float | None, remaining: float) -> None:
    clamped = clamp(timeout, remaining)
    assert clamped >= 0
    assert clamped <= max(0.0, remaining)
    if timeout is not None and 0 <= timeout <= remaining:
        assert clamped == timeout
