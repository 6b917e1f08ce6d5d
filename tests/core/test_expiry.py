"""How many requests are refused for being late: a share of all, whatever the clocks of others say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.core.expiry import ExpiredShare


def come(guard: ExpiredShare, now: float, *, late: bool) -> bool:
    guard.count(now)
    return late and guard.refuse(now)


def test_a_few_late_ones_among_many_are_all_refused() -> None:
    guard = ExpiredShare(0.2)
    refused = [come(guard, number / 100, late=number % 10 == 9) for number in range(100)]
    assert sum(refused) == 10


def test_where_all_are_late_a_fifth_is_refused() -> None:
    guard = ExpiredShare(0.2)
    assert sum(come(guard, number / 100, late=True) for number in range(1000)) == 200


def test_the_first_ones_are_served() -> None:
    guard = ExpiredShare(0.2)
    assert [come(guard, 0.0, late=True) for _ in range(5)] == [False] * 4 + [True]


@pytest.mark.parametrize(("share", "refused"), [(0.0, 0), (1.0, 100), (0.29, 29)])
def test_none_all_and_a_share_that_is_no_binary_fraction(share: float, refused: int) -> None:
    guard = ExpiredShare(share)
    assert sum(come(guard, 1.0, late=True) for _ in range(100)) == refused


def test_what_came_long_ago_pays_for_nothing() -> None:
    guard = ExpiredShare(0.2, 10.0)
    for _ in range(1000):
        guard.count(5.0)
    assert come(guard, 14.9, late=True)
    assert not come(guard, 15.1, late=True)


@given(
    st.sampled_from([0.05, 0.2, 0.5, 1.0]),
    st.lists(st.tuples(st.floats(min_value=0, max_value=3), st.booleans()), max_size=200),
)
def test_never_more_than_the_share_of_any_window(share: float, comings: list[tuple[float, bool]]) -> None:
    guard = ExpiredShare(share, 10.0)
    now, seen = 0.0, []
    for step, late in comings:
        now += step
        refused = come(guard, now, late=late)
        seen.append((now // 1.0, refused))
        if refused:  # of the ten steps that end now
            window = [one for grain, one in seen if grain > now // 1.0 - 10]
            assert sum(window) <= share * len(window) + 1e-6


@pytest.mark.parametrize(
    ("settings", "error", "name"),
    [
        ({"share": -0.1}, ValueError, "max_expired"),
        ({"share": 1.1}, ValueError, "max_expired"),
        ({"share": float("nan")}, ValueError, "max_expired"),
        ({"share": "0.2"}, TypeError, "max_expired"),
        ({"window": 0}, ValueError, "window"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], error: type[Exception], name: str) -> None:
    with pytest.raises(error, match=name):
        ExpiredShare(**settings)
