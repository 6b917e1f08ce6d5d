from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.core.backoff import Backoff, Constant, Exponential, Linear

LARGEST = 1 - 2**-53
randoms = st.floats(0, LARGEST)
attempts = st.integers(1, 10**12)
backoffs: st.SearchStrategy[Any] = st.one_of(
    st.builds(
        Exponential,
        initial=st.floats(0.001, 100),
        maximum=st.floats(0.001, 100),
        factor=st.floats(1, 1e6) | st.integers(1, 10),
        jitter=st.sampled_from(["full", "equal", "none"]),
    ),
    st.builds(
        Linear,
        initial=st.floats(0, 100),
        step=st.floats(0, 100) | st.integers(0, 10),
        maximum=st.floats(0.001, 100),
        jitter=st.sampled_from(["full", "equal", "none"]),
    ),
    st.builds(Constant, st.floats(0, 100), jitter=st.sampled_from(["full", "equal", "none"])),
)


def test_exponential_by_default_is_full_jitter_over_doubling_delays() -> None:
    backoff = Exponential()
    assert [backoff.delay(attempt, 0.5) for attempt in range(1, 10)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10])
    assert backoff.delay(3, 0.0) == 0.0
    assert backoff.delay(3, LARGEST) == pytest.approx(0.8)


def test_jitters() -> None:
    assert Exponential(jitter="none").delay(2, 0.123) == 0.4
    assert Exponential(jitter="equal").delay(2, 0.0) == 0.2
    assert Exponential(jitter="equal").delay(2, LARGEST) == pytest.approx(0.4)


def test_linear() -> None:
    backoff = Linear(initial=1, step=2, maximum=6, jitter="none")
    assert [backoff.delay(attempt, 0.5) for attempt in (1, 2, 3, 4, 10_000)] == [1, 3, 5, 6, 6]


def test_constant() -> None:
    assert [Constant(2, jitter="none").delay(attempt, 0.5) for attempt in (1, 2, 10_000)] == [2, 2, 2]
    assert Constant(delay=2).delay(1, 0.0) == 1
    assert repr(Constant(2)) == "Constant(delay=2, jitter='equal')"


@pytest.mark.parametrize("attempt", [10_000, 10**9, 10**400])
@pytest.mark.parametrize("backoff", [Exponential(factor=1.5), Exponential(factor=10), Linear(), Constant(1)], ids=repr)
def test_no_attempt_overflows(backoff: Any, attempt: int) -> None:
    assert 0 < backoff.delay(attempt, 0.5) <= 20


@given(backoffs, attempts, randoms)
def test_a_delay_is_between_zero_and_the_maximum(backoff: Any, attempt: int, random: float) -> None:
    most = backoff.seconds if isinstance(backoff, Constant) else backoff.maximum
    delay = backoff.delay(attempt, random)
    assert 0 <= delay <= most
    if backoff.jitter == "equal":
        assert delay >= backoff.delay(attempt, 0.0)


@given(backoffs, st.integers(1, 1000), randoms)
def test_delays_never_shrink(backoff: Any, attempt: int, random: float) -> None:
    assert backoff.delay(attempt, random) <= backoff.delay(attempt + 1, random)


@given(backoffs)
def test_settings_are_frozen_values(backoff: Any) -> None:
    assert copy.copy(backoff) == backoff == pickle.loads(pickle.dumps(backoff))
    assert hash(copy.copy(backoff)) == hash(backoff)
    with pytest.raises((FrozenInstanceError, AttributeError, TypeError)):
        backoff.jitter = "none"
    assert isinstance(backoff, Backoff)


@pytest.mark.parametrize(
    ("kind", "settings", "name"),
    [
        (Exponential, {"initial": 0}, "initial"),
        (Exponential, {"maximum": -1}, "maximum"),
        (Exponential, {"factor": 0.5}, "factor"),
        (Exponential, {"factor": 0}, "factor"),
        (Exponential, {"jitter": "some"}, "jitter"),
        (Linear, {"initial": -1}, "initial"),
        (Linear, {"step": -1}, "step"),
        (Linear, {"maximum": 0}, "maximum"),
        (Linear, {"jitter": "some"}, "jitter"),
        (Constant, {"delay": -1}, "delay"),
        (Constant, {"delay": 1, "jitter": "some"}, "jitter"),
    ],
)
def test_a_bad_setting_is_named(kind: type, settings: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        kind(**settings)


def test_linear_by_default_is_equal_jitter_over_even_steps() -> None:
    assert Linear().delay(5, 0.0) == 0.5
    assert Linear(jitter="full").delay(5, 0.25) == 0.25
    assert Linear(step=0.001, jitter="none").delay(1001, 0.5) == pytest.approx(1.2)
