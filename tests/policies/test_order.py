"""Which policy takes whose place."""

from __future__ import annotations

from typing import Any

import pybreaker
import pytest

import resilient
from resilient import Bulkhead, Chaos, CircuitBreaker, Fallback, Pipeline, Retry, Timeout, standard
from resilient.policies.order import place_of, replaced
from resilient.protocols import Policy


class Mine:
    def run(self, call: Any, inner: Any) -> Any:
        return inner(call)


class MyRetry(Retry):
    pass


def kinds(policies: Any) -> list[str]:
    return [type(policy).__name__ for policy in policies]


def test_each_takes_the_place_of_its_kind() -> None:
    ours = standard()
    for index, given in enumerate((Timeout(), MyRetry(), Bulkhead(), CircuitBreaker())):
        chosen = replaced(ours, [given])
        assert chosen[index] is given and len(chosen) == 4
        assert [one for one in chosen if one is not given] == [one for one in ours if one is not ours[index]]


def test_a_plain_pybreaker_is_a_breaker() -> None:
    plain = pybreaker.CircuitBreaker()
    (foreign,) = Pipeline(plain).policies
    assert place_of(plain) == place_of(foreign) == place_of(CircuitBreaker())


def test_a_new_kind_is_put_where_it_belongs() -> None:
    assert kinds(replaced(standard(), [Chaos(rate=0, hang=True), Fallback(None)])) == [
        "Fallback",
        "Timeout",
        "Retry",
        "AdaptiveConcurrency",
        "CircuitBreaker",
        "Chaos",
    ]
    assert kinds(replaced((Timeout(), CircuitBreaker()), [Bulkhead(), Retry()])) == ["Timeout", "Retry", "Bulkhead", "CircuitBreaker"]
    assert kinds(replaced((), [Timeout()])) == ["Timeout"]


def test_a_policy_of_ones_own_stands_outermost_or_replaces_its_like() -> None:
    first, second = Mine(), Mine()
    assert kinds(replaced(standard(), [first])) == ["Mine", "Timeout", "Retry", "AdaptiveConcurrency", "CircuitBreaker"]
    assert replaced((Timeout(), first), [second])[1] is second


def test_several_of_a_kind_take_the_place_of_all_of_it() -> None:
    new = [Chaos(rate=0, hang=True), Chaos(rate=0, latency=1)]
    chosen = replaced((*standard(chaos=Chaos(rate=0, status=500)), Chaos(rate=0, status=501)), new)
    assert list(chosen[-2:]) == new and len(chosen) == 6


def test_every_policy_has_its_place() -> None:
    policies = [one for name in resilient.__all__ if isinstance(one := getattr(resilient, name), type) and issubclass(one, Policy)]
    assert Chaos in policies and len(policies) >= 6
    assert [one.__name__ for one in policies if place_of(object.__new__(one)) is None] == []


@pytest.mark.parametrize("policies", [standard(fallback=Fallback(1), chaos=Chaos(rate=0, hang=True))])
def test_standard_is_in_this_order(policies: tuple[Any, ...]) -> None:
    places = [place_of(policy) for policy in policies]
    assert None not in places and places == sorted(places)  # type: ignore[type-var]
