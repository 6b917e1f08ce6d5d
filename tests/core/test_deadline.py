from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.core.deadline import clamp, useful

moments = st.floats(-1e6, 1e6)
seconds = st.floats(0, 1e6)


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
