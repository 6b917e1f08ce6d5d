"""Orders: whose uses they are about, how many of them, for how long."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.core.degradation import Level
from resilient.core.orders import MOST_ORDERS, Order, Orders, Verdict, drawn, worst

OFF, STATIC, REDUCED = Level.OFF, Level.STATIC, Level.REDUCED


def test_one_for_everybody_and_one_for_each_tenant() -> None:
    orders = Orders()
    general, acme = Order(level=STATIC, by="ann"), Order(level=OFF, tenant="acme")
    assert orders.put(general) is None
    assert orders.put(acme) is None
    assert orders.about("acme", 0) == [general, acme]
    assert orders.about("other", 0) == orders.about(None, 0) == [general]
    assert orders.general(0) == [general]
    assert orders.put(Order(level=OFF)) is general, "another takes its place"
    assert len(orders) == 2


def test_an_order_for_some_is_not_general() -> None:
    orders = Orders()
    orders.put(Order(level=OFF, share=0.5))
    assert orders.general(0) == []
    assert len(orders.about(None, 0)) == 1


def test_lifting_is_by_trigger_and_tenant() -> None:
    orders = Orders()
    mine, acme, mode = Order(level=OFF), Order(level=OFF, tenant="acme"), Order(level=OFF, cause="read_only")
    for order in (mine, acme, mode):
        orders.put(order)
    assert orders.lift("operator", "nobody") == []
    assert orders.lift("operator", "acme") == [acme]
    assert orders.lift("operator") == [mine]
    assert orders.all(0) == [mode]
    orders.put(mine)
    orders.put(acme)
    assert orders.lift("operator", everyone=True) == [mine, acme]
    assert orders.all(0) == [mode]


def test_an_order_ends_by_itself() -> None:
    orders = Orders()
    brief, lasting = Order(level=OFF, until=10.0), Order(level=STATIC, tenant="acme")
    orders.put(brief)
    orders.put(lasting)
    assert orders.expire(9.9) == []
    assert orders.general(9.9) == [brief]
    assert orders.general(10) == orders.about(None, 10) == []
    assert orders.all(10) == [lasting]
    assert orders.next_end == 10
    assert orders.expire(10) == [brief]
    assert orders.next_end == math.inf
    assert orders.expire(1e12) == []


def test_when_the_last_one_is_over_there_is_no_next_end() -> None:
    orders = Orders()
    brief = Order(level=OFF, until=10.0)
    orders.put(brief)
    assert orders.expire(11) == [brief]
    assert orders.next_end == math.inf
    assert orders.expire(1e12) == []


def test_there_are_only_so_many() -> None:
    orders = Orders()
    for number in range(MOST_ORDERS):
        orders.put(Order(level=OFF, tenant=str(number)))
    with pytest.raises(OverflowError, match="1000"):
        orders.put(Order(level=OFF))
    orders.put(Order(level=STATIC, tenant="7"))
    assert len(orders) == MOST_ORDERS


def test_the_worst_verdict_is_the_most_severe_and_of_several_the_first() -> None:
    first, second = Verdict(STATIC, "operator"), Verdict(STATIC, "load")
    assert worst([]) is None
    assert worst([Verdict(REDUCED, "x"), first, second]) is first
    assert worst([first, Verdict(OFF, "y")]) == Verdict(OFF, "y")


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_draw_is_always_the_same(name: str, key: str) -> None:
    number = drawn(name, key)
    assert 0 <= number < 1
    assert number == drawn(name, key)


def test_a_key_that_no_encoding_knows_is_drawn_for_too() -> None:
    """Bytes that were no UTF-8 come out of headers and file names as lone surrogates."""
    assert 0 <= drawn("reviews", "caf\udce9") == drawn("reviews", "caf\udce9") < 1


def test_draws_are_spread_evenly_and_not_alike_for_two_features() -> None:
    keys = [f"user {number}" for number in range(10_000)]
    for share in (0.01, 0.3, 0.9):
        chosen = sum(drawn("reviews", key) < share for key in keys)
        assert abs(chosen - share * 10_000) < 200
    both = sum(drawn("reviews", key) < 0.3 and drawn("prices", key) < 0.3 for key in keys)
    assert abs(both - 0.09 * 10_000) < 150


@given(st.text(max_size=10), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_keeps_those_that_a_smaller_one_had(key: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert not drawn("reviews", key) < small or drawn("reviews", key) < large
