"""The quota against a list of all that was spent."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient.core.quota import Quota

from ..thorough import often

moves = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 0.25, 1, 7, 30, 59, 60, 61, 600]), st.sampled_from(["take", "take", "back", "charge"]), st.integers(0, 6)
    ),
    max_size=60,
)


@pytest.mark.slow
@settings(max_examples=often(200), deadline=None)
@given(moves, st.data())
def test_never_more_than_the_quota_in_any_stretch_of_the_period(steps: list[tuple[float, str, int]], data: st.DataObject) -> None:
    quota, now = Quota(10, 60.0), 1000.0
    spent: list[list[float]] = []
    tickets = []
    charged = False
    for pause, what, amount in steps:
        now += pause
        if what == "take":
            ticket = quota.try_take(amount, now)
            if ticket is None:
                # Nothing is refused without need: within the period and a sixtieth of it the quota is used up.
                recent = sum(cost for at, cost in spent if at > now - 61)
                assert recent + amount > 10 or recent >= 10
            else:
                one = [now, float(amount)]
                spent.append(one)
                tickets.append((ticket, one))
        elif what == "back" and tickets:
            ticket, one = tickets[amount % len(tickets)]
            back = min(one[1], 2.0)
            quota.give_back(ticket, back, now)
            one[1] -= back
        elif what == "charge":
            quota.charge(amount, now)
            spent.append([now, float(amount)])
            charged = True
        assert quota.used >= sum(cost for at, cost in spent if at > now - 60) - 1e-9
        assert len(quota._groups) <= 62
    if not charged:
        for first, _ in spent:
            assert sum(cost for at, cost in spent if first <= at < first + 60) <= 10 + 1e-6


@settings(max_examples=often(100), deadline=None)
@given(moves, st.integers(0, 10))
def test_when_is_when_it_goes(steps: list[tuple[float, str, int]], cost: int) -> None:
    quota, now = Quota(10, 60.0), 1000.0
    for pause, _, amount in steps:
        now += pause
        quota.try_take(amount, now)
    at = quota.when(cost, now)
    assert now <= at <= now + 60
    if at > now:
        assert quota.try_take(cost, at - 0.01) is None
    assert quota.try_take(cost, at) is not None


def test_the_day_after_everything_is_there_again() -> None:
    quota = Quota(100, 86400.0)
    for number in range(100):
        assert quota.try_take(1, float(number)) is not None
    assert quota.try_take(1, 100.0) is None
    assert quota.when(1, 100.0) == 86400.0 + 99
    assert quota.try_take(1, 86400.0 + 98) is None  # what went within a sixtieth of a day is remembered together
    assert quota.try_take(100, 86400.0 + 99) is not None


def test_what_is_a_period_ago_is_forgotten_to_the_unit() -> None:
    quota = Quota(10, 60.0)
    for number in range(5):
        quota.charge(number, number * 20.0)
    assert quota.try_take(0, 80.0) is not None
    assert quota.used == 2 + 3 + 4 and [group.amount for group in quota._groups] == [2, 3, 4]
    assert (quota.when(1, 80.0), quota.when(2, 80.0), quota.when(6, 80.0)) == (80, 100, 120)


def test_tenths_add_up() -> None:
    quota = Quota(1.0, 60.0)
    assert [quota.try_take(0.1, 0.0) is not None for _ in range(11)] == [True] * 10 + [False]


def test_what_costs_nothing_beforehand_needs_something_left() -> None:
    quota = Quota(10, 60.0)
    assert quota.try_take(0, 0.0) is not None
    quota.charge(10, 0.0)
    assert quota.try_take(0, 1.0) is None and quota.when(0, 1.0) == 60.0


def test_what_is_more_than_the_whole_never_goes() -> None:
    assert Quota(10, 60.0).when(11, 0.0) == math.inf and Quota(10, 60.0).try_take(11, 0.0) is None


def test_a_debt_that_will_not_be_over_in_a_period_is_told_as_never() -> None:
    quota = Quota(10, 60.0)
    quota.charge(50, 0.0)
    assert quota.when(1, 0.0) == 60.0


def test_an_old_ticket_has_nothing_to_give_back() -> None:
    quota = Quota(10, 60.0)
    old = quota.try_take(10, 0.0)
    assert old is not None
    assert quota.try_take(10, 60.0) is not None
    quota.give_back(old, 10, 61.0)
    assert quota.used == 10
    quota.reset()
    assert quota.used == 0 and quota.at_rest(61.0)


@pytest.mark.parametrize("settings", [(0, 60), (-1, 60), (1, 0), (math.inf, 60), (1, math.nan)])
def test_settings_are_checked(settings: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"^(rate|per) must"):
        Quota(*settings)


def test_at_rest_once_nothing_of_the_period_is_left() -> None:
    quota = Quota(10, 60.0)
    assert quota.at_rest(0.0)
    quota.charge(1, 0.0)
    assert not quota.at_rest(59.9)
    assert quota.at_rest(60.0)


def test_a_sixtieth_of_the_period_later_is_remembered_for_itself() -> None:
    quota = Quota(10, 60.0)
    assert quota.used == 0.0
    quota.charge(1, 0.0)
    quota.charge(1, 1.0)
    assert quota.try_take(9, 60.0) is not None


def test_no_more_is_given_back_than_a_ticket_was_taken_for() -> None:
    quota = Quota(10, 60.0)
    ticket = quota.charge(5, 0.0)
    quota.give_back(ticket, 1, 1.0)
    assert (ticket.amount, quota.used) == (4, 4)
    quota.give_back(ticket, 10, 1.0)
    assert (ticket.amount, quota.used) == (0, 0)
