"""A dependency with some policies of its own, which shares the others."""

from __future__ import annotations

import math
from typing import Any

import pytest

from resilient import Bulkhead, Chaos, CircuitBreaker, Dependency, Fallback, Outcome, Resilience, Retry, RetryBudget, Timeout, standard
from resilient.events import CircuitChanged, RetryDecided
from resilient.outbox import Outbox
from resilient.testing import FakeClock, RecordingListener


def fail() -> None:
    raise ConnectionError


def test_what_differs_and_what_is_shared() -> None:
    shop = Dependency("shop")
    slots = Bulkhead(max_concurrent=2)
    quick = shop.variant("shop-quick", slots)
    assert (quick.name, quick.bulkhead) == ("shop-quick", slots)
    assert quick.breaker is shop.breaker and quick.budget is shop.budget
    assert [one is other for one, other in zip(quick.policies, shop.policies, strict=True)] == [True, True, False, True]


def test_a_retry_shares_the_budget_unless_it_has_its_own() -> None:
    shop = Dependency("shop")
    own = RetryBudget()
    assert shop.variant("a", Retry(attempts=5)).budget is shop.budget
    assert shop.variant("b", Retry(budget=own)).budget is own
    bare = Dependency("bare", Bulkhead())
    assert bare.variant("c", Retry()).budget is not None and bare.budget is None


def test_a_total_of_its_own_and_else_the_same_timeout() -> None:
    shop = Dependency("shop", Timeout(total=30, attempt=8, idle=3, body="total"))
    (timeout,) = shop.variant("slow", timeout=5).policies
    assert timeout == Timeout(total=5, attempt=5, idle=3, body="total", min_useful=0.01)
    (bare,) = Dependency("bare", Bulkhead()).variant("timed", timeout=0.05).policies[:1]
    assert bare == Timeout(total=0.05)
    assert shop.variant("endless", timeout=math.inf).policies[0].total == math.inf  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="^timeout: the policies given hold a Timeout already"):
        shop.variant("x", Timeout(), timeout=5)
    with pytest.raises(ValueError, match="^timeout"):
        shop.variant("x", timeout=0)
    with pytest.raises(TypeError, match="^policies"):
        shop.variant("x", 5)


def test_a_fallback_and_a_judge_of_its_own(clock: FakeClock) -> None:
    shop = Dependency("shop", *standard(), fallback="static", classify=lambda result, error: Outcome.FAILURE, clock=clock)
    assert shop.variant("a").call_sync(str) == "static"
    assert shop.variant("b", fallback="mine").call_sync(str) == "mine"
    assert shop.variant("c", fallback=Fallback("given")).call_sync(str) == "given"
    assert shop.variant("d", fallback=None).call_sync(str) is None
    assert shop.variant("e", classify=lambda result, error: Outcome.SUCCESS).call_sync(str) == ""


def test_a_circuit_that_is_shared_is_one(clock: FakeClock, listener: RecordingListener) -> None:
    shop = Dependency("shop", CircuitBreaker(2), clock=clock, outbox=Outbox([listener]))
    other = shop.variant("other")
    for dependency in (shop, other):
        with pytest.raises(ConnectionError):
            dependency.call_sync(fail)
    assert shop.state == other.state == "open"
    assert [event.dependency for event in listener.of(CircuitChanged)] == ["shop"]
    assert other.stats.snapshot().counts["failure"] == 1 == shop.stats.snapshot().counts["failure"]


def test_a_circuit_of_its_own_is_another(clock: FakeClock, listener: RecordingListener) -> None:
    shop = Dependency("shop", CircuitBreaker(1), clock=clock, outbox=Outbox([listener]))
    other = shop.variant("other", CircuitBreaker(1))
    for dependency in (other.variant("third"), shop):
        with pytest.raises(ConnectionError):
            dependency.call_sync(fail)
    assert [event.dependency for event in listener.of(CircuitChanged)] == ["other", "shop"]


def test_what_is_shared_is_measured_once(clock: FakeClock) -> None:
    resilience = Resilience(clock=clock)
    shop = resilience.dependency("shop")
    shop.variant("all-shared")
    shop.variant("own", CircuitBreaker(), Bulkhead())
    page = resilience.metrics.render()[0].decode()

    def told_of(family: str) -> set[str]:
        return {line.split('dependency="')[1].split('"')[0] for line in page.splitlines() if line.startswith(family)}

    assert told_of("resilient_breaker_state") == told_of("resilient_bulkhead_limit") == {"shop", "own"}
    assert told_of("resilient_budget") == {"shop"}
    assert told_of("resilient_calls_total") == {"shop", "own", "all-shared"}


def test_one_that_is_never_retried(clock: FakeClock, listener: RecordingListener) -> None:
    """For a function: what `retry=False` is to a request."""
    shop = Dependency("shop", *standard(retry=Retry(on=ConnectionError)), clock=clock, outbox=Outbox([listener]))
    with pytest.raises(ConnectionError):
        shop.variant("once", Retry(attempts=1)).call_sync(fail)
    assert [event.result for event in listener.of(RetryDecided)] == ["unrepeatable"]


def test_settings_of_the_service_hold_for_it(clock: FakeClock) -> None:
    resilience = Resilience(clock=clock, chaos=True, enabled=False)
    shop = resilience.dependency("shop", required=True, classify=None)
    quick = shop.variant("quick", Chaos(rate=1, fault=OSError))
    assert (quick.clock, quick.outbox, quick.enabled, quick.chaos, quick.required) == (clock, resilience.outbox, False, True, True)
    resilience.enabled = True
    with pytest.raises(OSError, match="injected"):
        quick.call_sync(str)
    resilience.chaos = False
    assert quick.call_sync(str) == ""
    again: Any = quick.variant("again")
    assert resilience.dependencies.keys() == {"shop", "quick", "again"} and again.budget is shop.budget


def test_a_name_is_taken_once(clock: FakeClock) -> None:
    resilience = Resilience(clock=clock)
    shop = resilience.dependency("shop")
    with pytest.raises(ValueError, match="^name: there is a dependency 'shop' already"):
        shop.variant("shop")
    with pytest.raises(ValueError, match="^name"):
        shop.variant("two words")
