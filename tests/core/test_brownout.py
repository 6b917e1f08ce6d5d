"""The dimmer: it keeps a plant at its target, and neither flaps nor runs away."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient.core.brownout import LEAST_ALPHA, MOST_ALPHA, Dimmer, quantile, shares

PERIOD = 0.5


def run(dimmer: Dimmer, plant: Callable[[float], float], seconds: float, start: float = 0.0) -> list[tuple[float, float]]:
    """What was measured, and the share that followed, period by period."""
    told = []
    for number in range(int(seconds / PERIOD)):
        measured = plant(dimmer.share)
        told.append((measured, dimmer.update(measured, start + number * PERIOD)))
    return told


def dimmer(**settings: float) -> Dimmer:
    return Dimmer(**{"pole": 0.7, "margin": 0.1, "dwell": 1.0, **settings})


@pytest.mark.parametrize("alpha", [1.3, 2.0, 5.0, 20.0, 100.0])
def test_it_settles_where_the_target_is_met(alpha: float) -> None:
    """Time in proportion to the share: at the target from a few seconds on, and no more is given away than needs be."""
    told = run(dimmer(), lambda share: alpha * share, 60)
    settled = [measured for measured, _ in told[40:]]
    assert max(settled) <= 1.05
    assert min(settled) >= 0.85


def test_a_base_that_no_dimming_removes() -> None:
    told = run(dimmer(), lambda share: 0.5 + 3 * share, 60)
    assert all(0.85 <= measured <= 1.05 for measured, _ in told[40:])


def test_a_load_that_dimming_cannot_help_takes_everything_optional_away() -> None:
    subject = dimmer()
    run(subject, lambda share: 3.0, 30)
    assert subject.share == 0


def test_it_is_all_back_after_the_load() -> None:
    subject = dimmer()
    run(subject, lambda share: 2 + 5 * share, 20)
    assert subject.share == 0
    told = run(subject, lambda share: 0.1 + 0.2 * share, 20, start=20)
    assert subject.share == 1
    rises = [share for _, share in told]
    assert rises == sorted(rises), "on the way up nothing turns"


def test_without_load_nothing_is_dimmed() -> None:
    subject = dimmer()
    assert {share for _, share in run(subject, lambda share: 0.9, 60)} == {1.0}


def test_in_the_dead_band_nothing_changes() -> None:
    subject = dimmer()
    subject.update(2.0, 0)
    dimmed = subject.share
    assert dimmed < 1
    for second in range(1, 50):
        assert subject.update(0.95, second) == dimmed
    assert subject.update(0.5, 51) > dimmed


def test_it_does_not_rise_within_the_dwell_of_a_fall() -> None:
    subject = dimmer(dwell=3.0)
    subject.update(2.0, 100)
    dimmed = subject.share
    assert subject.update(0.1, 101) == subject.update(0.1, 102.9) == dimmed
    assert subject.update(0.1, 103) > dimmed


def test_to_be_exactly_on_target_is_no_fall() -> None:
    subject = dimmer(dwell=3.0)
    subject.update(2.0, 100)
    dimmed = subject.share
    assert subject.update(1.0, 102) == dimmed
    assert subject.update(0.1, 103) > dimmed


def test_the_margin_belongs_to_the_dead_band() -> None:
    subject = dimmer(margin=0.25)
    subject.update(2.0, 0)
    dimmed = subject.share
    assert subject.update(0.75, 10) == dimmed
    assert subject.update(0.74, 20) > dimmed


@pytest.mark.parametrize("pole", [0.0, 0.3, 0.7])
def test_if_the_model_is_right_the_pole_is_what_is_left_of_an_error(pole: float) -> None:
    subject = dimmer(pole=pole)
    excess = 1.0
    for period in range(4):
        measured = 2 * subject.share
        assert measured - 1 == pytest.approx(excess, abs=0.01)
        subject.update(measured, period * PERIOD)
        excess *= pole


@given(st.lists(st.floats(0.3, 3.0), min_size=1, max_size=12))
def test_the_estimate_is_that_of_least_squares_with_forgetting(samples: list[float]) -> None:
    """What recursion comes to is a quotient of two sums, in which a sample counts the less the older it is."""
    subject, forgetting = dimmer(pole=0.9), 0.95
    above, below = 1.0 / 1000.0, 1.0 / 1000.0  # the first guess is 1, and a thousandth of a sample's worth
    for period, measured in enumerate(samples):
        share = subject.share
        above, below = forgetting * above + share * measured, forgetting * below + share * share
        subject.update(measured, period * PERIOD)
        assert subject.alpha == pytest.approx(above / below)


def test_a_pole_nearer_to_one_is_slower() -> None:
    moved = []
    for pole in (0.0, 0.5, 0.9):
        subject = dimmer(pole=pole)
        subject.update(1.5, 0)
        moved.append(1 - subject.share)
    assert moved == sorted(moved, reverse=True)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), max_size=80), st.floats(0, 0.99))
def test_whatever_is_measured_it_stays_in_bounds_and_goes_the_right_way(samples: list[float], pole: float) -> None:
    subject = dimmer(pole=pole)
    for number, measured in enumerate(samples):
        before = subject.share
        after = subject.update(measured, number * PERIOD)
        assert 0 <= after <= 1
        assert after <= before if measured > 1 else after >= before
        assert LEAST_ALPHA <= subject.alpha <= MOST_ALPHA
    subject.reset()
    assert subject.share == 1


@given(st.floats(0, 1), st.integers(1, 20))
def test_the_share_is_spent_on_those_that_are_dimmed_last(share: float, count: int) -> None:
    spent = shares(share, count)
    assert len(spent) == count
    assert sum(spent) == pytest.approx(share * count)
    assert spent == sorted(spent)
    assert sum(0 < one < 1 for one in spent) <= 1


def test_three_features_at_half() -> None:
    assert shares(0.5, 3) == [0.0, 0.5, 1.0]
    assert shares(1.0, 3) == [1.0, 1.0, 1.0]
    assert shares(0.0, 2) == [0.0, 0.0]
    assert shares(0.5, 0) == []


def test_quantiles() -> None:
    hundred = [float(number) for number in range(1, 101)]
    assert quantile(hundred, 0.99) == 99
    assert quantile(hundred, 0.5) == 50
    assert quantile([3.0, 1.0, 2.0], 0.99) == 3
    assert quantile([5.0], 0.01) == 5
    assert quantile([7.0, 5.0], 0.01) == quantile([7.0, 5.0], 0.0) == 5
    assert quantile([7.0, 5.0], 1.0) == 7
