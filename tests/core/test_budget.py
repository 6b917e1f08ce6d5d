from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient.core.budget import Budget, Grant

from ..thorough import often

WINDOW = 10.0


@dataclass
class History:
    """What was asked of a budget, and what it said: times of calls, of retries granted and of retries refused."""

    calls: list[float] = field(default_factory=list)
    granted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    order: list[tuple[float, str]] = field(default_factory=list)

    def run(self, budget: Budget, events: list[tuple[int, int, int]], refunds: Iterator[int] | None = None) -> History:
        # In sixteenths of a second, so that the differences of times are exact.
        now = 1000.0
        out: list[tuple[float, Grant]] = []
        for (pause, calls, retries), refunded in zip(events, refunds or itertools.repeat(0), strict=False):
            now += pause / 16
            for _ in range(min(refunded, len(out))):
                # What was paid back was never made: neither the newest nor the oldest of them.
                at, grant = out.pop(len(out) // 2)
                self.granted.remove(at)
                budget.refund(grant, now)
            for _ in range(calls):
                budget.deposit()
                self.calls.append(now)
                self.order.append((now, "call"))
            for _ in range(retries):
                grant = budget.withdraw(now)
                said = "refused" if grant is None else "granted"
                if grant is not None:
                    out.append((now, grant))
                getattr(self, said).append(now)
                self.order.append((now, said))
        return self

    def excess(self, ratio: float, start: float, end: float) -> float:
        """Retries less `ratio` times the calls in [start, end)."""
        return sum(start <= at < end for at in self.granted) - ratio * sum(start <= at < end for at in self.calls)


# Long idle times, bursts, and pauses that land on the edges of grains and windows.
pauses = st.integers(0, 40) | st.sampled_from([0, 16, 159, 160, 161, 176, 320, 10_000])
histories = st.lists(st.tuples(pauses, st.integers(0, 25), st.integers(0, 40)), max_size=25)
ratios = st.sampled_from([0.0, 0.1, 0.2, 1 / 3, 1.0])


@pytest.mark.slow
@settings(max_examples=often(150), deadline=None)
@given(histories, ratios, st.sampled_from([0.1, 0.5, 3.0, 3.05]), st.data())
def test_the_bound_holds_over_any_window(events: list[tuple[int, int, int]], ratio: float, reserve: float, data: st.DataObject) -> None:
    history = History().run(Budget(ratio=ratio, reserve=reserve), events)
    bound = reserve * WINDOW + 1e-6
    # The worst windows begin with a retry or end with one.
    for at in set(history.granted):
        assert history.excess(ratio, at, at + WINDOW) <= bound
        assert history.excess(ratio, at - WINDOW + 1 / 16, at + 1 / 16) <= bound
    start = data.draw(st.floats(980, 1000 + sum(pause for pause, _, _ in events) / 16))
    assert history.excess(ratio, start, start + WINDOW) <= bound


@pytest.mark.slow
@settings(max_examples=often(100), deadline=None)
@given(histories, ratios)
def test_nothing_is_refused_without_need(events: list[tuple[int, int, int]], ratio: float) -> None:
    """A refusal means that some interval that ends now, no longer than 1.1 windows, has used up calls and reserve."""
    reserve = 0.5
    order = History().run(Budget(ratio=ratio, reserve=reserve), events).order
    for index, (now, said) in enumerate(order):
        if said != "refused":
            continue
        worst = excess = 0.0
        for at, past in reversed(order[:index]):
            if now - at > 1.1 * WINDOW:
                break
            excess += {"call": -ratio, "granted": 1.0, "refused": 0.0}[past]
            worst = max(worst, excess)
        assert worst + 1 > reserve * WINDOW


@pytest.mark.slow
@settings(max_examples=often(100), deadline=None)
@given(histories, st.sampled_from([1, 2.5, 5, 12]), ratios)
def test_no_more_is_saved_than_allowed(events: list[tuple[int, int, int]], saved: float, ratio: float) -> None:
    reserve = 1.0
    history = History().run(Budget(ratio=ratio, reserve=reserve, saved=saved), events)
    for start in sorted(set(history.granted)):
        for end in {at for at in history.granted if at >= start}:
            assert history.excess(ratio, start, end + 1 / 16) <= saved + reserve * (end - start) + 1e-6


@settings(max_examples=often(50), deadline=None)
@given(histories, ratios)
def test_what_the_window_can_bear_is_the_tighter_bound_by_default(events: list[tuple[int, int, int]], ratio: float) -> None:
    bounded = History().run(Budget(ratio=ratio, reserve=3.0, saved=30), events)
    unbounded = History().run(Budget(ratio=ratio, reserve=3.0, saved=1e9), events)
    assert bounded == unbounded


refunds = st.lists(st.integers(0, 20), min_size=25, max_size=25)


@pytest.mark.slow
@settings(max_examples=often(200), deadline=None)
@given(histories, refunds, ratios, st.sampled_from([0.1, 0.5, 3.0]), st.sampled_from([1, 2.5, 12, 30]))
def test_both_bounds_hold_for_what_was_made_where_some_was_paid_back(
    events: list[tuple[int, int, int]], refunds: list[int], ratio: float, reserve: float, saved: float
) -> None:
    history = History().run(Budget(ratio=ratio, reserve=reserve, saved=saved), events, iter(refunds))
    for at in set(history.granted):
        assert history.excess(ratio, at, at + WINDOW) <= reserve * WINDOW + 1e-6
        assert history.excess(ratio, at - WINDOW + 1 / 16, at + 1 / 16) <= reserve * WINDOW + 1e-6
        for end in {later for later in history.granted if later >= at}:
            assert history.excess(ratio, at, end + 1 / 16) <= saved + reserve * (end - at) + 1e-6


def test_what_is_paid_back_at_once_was_never_asked_for() -> None:
    budget = Budget()
    for _ in range(100):
        grant = budget.withdraw(100.0)
        assert grant is not None
        budget.refund(grant, 100.0)
    assert (budget.owed, budget._grains, budget._drawn) == ([], [], 0.0)


def test_what_is_forgiven_is_not_paid_back_again() -> None:
    budget = Budget()
    grant = budget.withdraw(100.0)
    assert grant is not None
    assert sum(bool(budget.withdraw(112.0)) for _ in range(40)) == 30
    budget.refund(grant, 112.0)
    assert not budget.withdraw(112.0)


def test_what_time_or_calls_have_made_up_for_is_not_paid_back_again() -> None:
    for ratio, pause, calls in ((0.0, 1.0, 0), (0.5, 0.0, 2)):
        budget = Budget(ratio=ratio, reserve=1.0, saved=2)
        grant = budget.withdraw(100.0)
        for _ in range(calls):
            budget.deposit()
        assert budget.withdraw(100.0 + pause) and budget.withdraw(100.0 + pause)
        assert grant is not None
        budget.refund(grant, 100.0 + pause)
        assert not budget.withdraw(100.0 + pause)


def test_what_is_paid_back_comes_off_the_oldest_debt() -> None:
    """The one that stays is forgiven with its own window, not with that of the one that was not made."""
    budget = Budget(ratio=0.0, reserve=0.1, window=20, saved=2)
    older, newer = budget.withdraw(100.0), budget.withdraw(118.0)
    assert older and newer
    budget.refund(newer, 118.0)
    assert budget._grains == [59]


def test_thirty_retries_without_calls_and_then_no_more_for_a_window() -> None:
    budget = Budget()
    assert [bool(budget.withdraw(100.0)) for _ in range(40)] == [True] * 30 + [False] * 10
    assert not budget.withdraw(109.99)
    assert [bool(budget.withdraw(111.0)) for _ in range(40)] == [True] * 30 + [False] * 10


def test_a_fifth_of_the_calls_beyond_the_reserve() -> None:
    budget = Budget()
    granted = 0
    for _ in range(1000):
        budget.deposit()
        granted += bool(budget.withdraw(100.0))
    # The first call of all repaid nothing: nothing was owed.
    assert granted == 30 + int(0.2 * 999)


def test_calls_that_were_never_retried_save_nothing() -> None:
    budget = Budget()
    for _ in range(10_000):
        budget.deposit()
    assert sum(bool(budget.withdraw(100.0)) for _ in range(100)) == 30


@pytest.mark.parametrize("rate", [1, 12, 100])
def test_amplification_of_a_dead_dependency(rate: int) -> None:
    """Every attempt fails and asks for two retries: over any 10 s at most 1 + 0.2 + 3 / rate attempts a call."""
    history = History().run(Budget(), [(16 // min(rate, 4), max(1, rate // 4), 2 * max(1, rate // 4))] * (55 * min(rate, 4)))
    for start in range(1000, 1045):
        calls = sum(start <= at < start + 10 for at in history.calls)
        retries = sum(start <= at < start + 10 for at in history.granted)
        assert (calls + retries) / calls <= 1 + 0.2 + 3 / (calls / 10) + 1e-9
    # And it is used: a reserve of 30 that comes back after 11 s, 5 times in 55 s.
    assert len(history.granted) >= min(2 * len(history.calls), 0.2 * (len(history.calls) - rate) + 5 * 30)


def test_remaining_ratio() -> None:
    budget = Budget()
    assert budget.remaining_ratio(0.0) == 1.0
    for _ in range(15):
        budget.withdraw(0.0)
    assert budget.remaining_ratio(0.0) == pytest.approx(0.5)
    for _ in range(25):
        budget.deposit()
    assert budget.remaining_ratio(1.0) == pytest.approx(2 / 3)
    for _ in range(30):
        budget.withdraw(1.0)
    assert budget.remaining_ratio(1.0) == pytest.approx(0.0, abs=1e-9)
    assert budget.remaining_ratio(12.0) == 1.0


def test_a_small_bucket_fills_with_the_reserve() -> None:
    budget = Budget(reserve=2.0, saved=4)
    assert sum(bool(budget.withdraw(0.0)) for _ in range(10)) == 4
    assert budget.remaining_ratio(0.0) == 0.0
    assert sum(bool(budget.withdraw(1.5)) for _ in range(10)) == 3
    for _ in range(10):
        budget.deposit()
    assert sum(bool(budget.withdraw(1.5)) for _ in range(10)) == 2


def test_a_clock_that_goes_back_stands_still() -> None:
    budget = Budget()
    assert sum(bool(budget.withdraw(100.0)) for _ in range(100)) == 30
    assert not budget.withdraw(50.0)
    assert not budget.withdraw(100.0)
    assert budget.remaining_ratio(20.0) == 0.0
    assert budget.withdraw(111.0)


def test_memory_is_bounded() -> None:
    budget = Budget(reserve=100.0, saved=1000)
    for step in range(10_000):
        budget.deposit()
        budget.withdraw(step / 100)
    assert len(budget.owed) == len(budget._grains) <= 12


def test_a_dependency_without_retries_leaves_no_trace() -> None:
    budget = Budget()
    for _ in range(1000):
        budget.deposit()
    assert (budget.owed, budget._drawn) == ([], 0.0)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"ratio": -0.1}, "ratio"),
        ({"ratio": 1.5}, "ratio"),
        ({"reserve": 0}, "reserve"),
        ({"reserve": 0.05}, "reserve"),
        ({"window": 0}, "window"),
        ({"saved": 0}, "saved"),
        ({"saved": 0.5}, "saved"),
    ],
)
def test_a_bad_setting_is_named(values: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        Budget(**values)


def test_the_defaults() -> None:
    budget = Budget()
    assert (budget.ratio, budget.reserve, budget.window, budget.saved) == (0.2, 3.0, 10.0, 30)


def test_calls_after_a_retry_was_repaid_save_nothing() -> None:
    budget = Budget(saved=1000)
    assert budget.withdraw(100.0)
    for _ in range(1000):
        budget.deposit()
    assert budget.owed == []
    assert sum(budget.withdraw(100.0) is not None for _ in range(100)) == 30


def test_calls_fill_the_bucket_to_the_brim() -> None:
    budget = Budget(saved=4)
    assert budget.withdraw(100.0)
    for _ in range(5):
        budget.deposit()
    assert sum(budget.withdraw(100.0) is not None for _ in range(10)) == 4


def test_what_is_left_is_told_by_the_tighter_bound() -> None:
    budget = Budget(reserve=10.0, saved=4)
    budget.withdraw(0.0)
    assert budget.remaining_ratio(0.0) == 0.75


def test_what_never_grants_a_retry_is_told() -> None:
    message = "reserve must be at least 1 / window = 0.25 (less never grants a retry), not 0.1"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Budget(reserve=0.1, window=4.0)


def test_five_calls_repay_a_retry() -> None:
    budget = Budget()
    assert budget.withdraw(100.0)
    for left in (True, True, True, True, False):
        budget.deposit()
        assert bool(budget.owed) is left
