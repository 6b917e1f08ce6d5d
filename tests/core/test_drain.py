"""The timetable of a drain."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from resilient.core.drain import DrainOrder

TIMES = st.floats(0, 1e6)


@st.composite
def orders(draw: st.DrawFn) -> DrainOrder:
    began, delay, budget = draw(TIMES), draw(TIMES), draw(TIMES)
    return DrainOrder(began, began + delay, began + delay + budget, draw(st.sampled_from(["", "ann"])), "", draw(st.booleans()))


def test_when_it_closes_and_when_it_is_over() -> None:
    order = DrainOrder(10.0, 15.0, 35.0)
    assert [order.closed(now) for now in (10.0, 14.9, 15.0, 40.0)] == [False, False, True, True]
    assert [order.over(now) for now in (15.0, 34.9, 35.0)] == [False, False, True]


@given(orders(), orders(), TIMES)
def test_two_orders_are_the_sooner_one_and_the_first_to_speak_is_who_gave_it(first: DrainOrder, second: DrainOrder, now: float) -> None:
    both = first.joined(second)
    assert both.began == first.began
    assert both.closed(now) == (first.closed(now) or second.closed(now))
    assert both.over(now) == (first.over(now) or second.over(now))
    assert both.by == (first.by or second.by)
    assert both.final == (first.final or second.final)
    assert both.joined(second) == both
