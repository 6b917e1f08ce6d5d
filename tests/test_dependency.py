"""Dependency: a named pipeline, in a Resilience or without one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anyio
import pybreaker
import pytest

from resilient import (
    Bulkhead,
    BulkheadFull,
    CircuitBreaker,
    CircuitOpen,
    DeadlineExceeded,
    Dependency,
    Fallback,
    Outcome,
    Pipeline,
    Resilience,
    Retry,
    Timeout,
    standard,
)
from resilient.dependency import Origin
from resilient.policies.foreign import ForeignBreaker
from resilient.testing import FakeClock, RecordingListener


def kinds(dependency: Dependency) -> list[str]:
    return [type(policy).__name__ for policy in dependency.policies]


def test_without_policies_it_gets_the_standard_ones() -> None:
    assert kinds(Dependency("shop")) == [type(policy).__name__ for policy in standard()]
    assert kinds(Dependency("shop", Bulkhead())) == ["Bulkhead"]


def test_its_parts_can_be_looked_at() -> None:
    bulkhead, breaker, retry = Bulkhead(), CircuitBreaker(), Retry()
    dependency = Dependency("shop", retry, bulkhead, breaker, required=True, origin="https://shop.example/v1")
    assert (dependency.bulkhead, dependency.breaker, dependency.budget) == (bulkhead, breaker, retry.budget)
    assert dependency.required and str(dependency.origin) == "https://shop.example/v1"
    assert dependency.state == "closed"
    breaker.open()
    assert dependency.state == "open" and repr(dependency) == "<Dependency shop open>"
    bare = Dependency("bare", Timeout())
    assert (bare.bulkhead, bare.breaker, bare.budget, bare.state, bare.origin, bare.required) == (None, None, None, "closed", None, False)


def test_a_plain_breaker_stands_where_a_breaker_does() -> None:
    theirs = pybreaker.CircuitBreaker()
    dependency = Dependency("shop", theirs)
    assert isinstance(dependency.breaker, ForeignBreaker)
    theirs.open()
    assert dependency.state == "open"


@pytest.mark.anyio
async def test_it_works_outside_a_resilience(anyio_backend: Any) -> None:
    dependency = Dependency("shop", CircuitBreaker(2))

    @dependency
    async def fetch(item: int, *, fail: bool = False) -> int:
        if fail:
            raise KeyError(item)
        return item

    @dependency
    def load(item: int) -> int:
        return -item

    assert await fetch(1) == 1 and load(2) == -2
    assert await dependency.call(fetch.__wrapped__, 3) == 3  # type: ignore[attr-defined]
    assert dependency.call_sync(load.__wrapped__, 4) == -4  # type: ignore[attr-defined]
    for _ in range(2):
        with pytest.raises(KeyError):
            await fetch(5, fail=True)
    with pytest.raises(CircuitOpen) as caught:
        load(6)
    assert caught.value.dependency == "shop" and str(caught.value).startswith("shop: circuit open")


def test_an_argument_may_have_any_name() -> None:
    def function(fn: int, self: int, name: int) -> int:
        return fn + self + name

    assert Dependency("shop").call_sync(function, fn=1, self=2, name=3) == 6


def test_the_timeout_is_the_total(clock: FakeClock) -> None:
    dependency = Dependency("shop", timeout=2, clock=clock)
    (timeout,) = (policy for policy in dependency.policies if isinstance(policy, Timeout))
    assert (timeout.total, timeout.attempt) == (2, 2)
    assert kinds(Dependency("shop", Bulkhead(), timeout=2)) == ["Timeout", "Bulkhead"]
    (timeout,) = (policy for policy in Dependency("shop", timeout=60).policies if isinstance(policy, Timeout))
    assert (timeout.total, timeout.attempt) == (60, 10)
    for policies in ((Timeout(),), (Pipeline(Timeout()),)):
        with pytest.raises(TypeError, match="^timeout: the policies given hold a Timeout already"):
            Dependency("shop", *policies, timeout=2)


def test_the_fallback_is_outermost() -> None:
    for fallback in ([], Fallback([])):
        assert kinds(Dependency("shop", fallback=fallback))[0] == "Fallback"
    assert Dependency("shop", Bulkhead(), fallback=None).call_sync({}.__getitem__, "missing") is None
    with pytest.raises(KeyError):
        Dependency("shop", Bulkhead()).call_sync({}.__getitem__, "missing")


def test_a_classifier_says_what_answers_mean() -> None:
    dependency = Dependency("shop", CircuitBreaker(1), classify=lambda result, error: Outcome.FAILURE if result == "sorry" else None)
    assert dependency.call_sync(str, "sorry") == "sorry"
    assert dependency.state == "open"


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"name": ""}, "name"),
        ({"name": "two words"}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "bell\x07"}, "name"),
        ({"name": "half\ud800"}, "name"),
        ({"name": 5}, "name"),
        ({"required": 1}, "required"),
        ({"origin": "shop.example"}, "origin"),
        ({"origin": "ftp://shop.example"}, "origin"),
        ({"origin": "https://shop.example?x=1"}, "origin"),
        ({"origin": "https://user@shop.example"}, "origin"),
        ({"origin": "https://shop.example:99999"}, "origin"),
        ({"origin": 5}, "origin"),
        ({"timeout": 0}, "timeout"),
        ({"classify": "status"}, "classify"),
        ({"clock": 5}, "clock"),
    ],
)
def test_a_bad_setting_is_named(settings: dict[str, Any], name: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{name}"):
        Dependency(**{"name": "shop", **settings})


@pytest.mark.parametrize(
    ("origin", "path", "covered"),
    [
        ("https://shop.example", "/anything", True),
        ("https://shop.example/", "/", True),
        ("https://shop.example/v1", "/v1", True),
        ("https://shop.example/v1", "/v1/items", True),
        ("https://shop.example/v1/", "/v1/items", True),
        ("https://shop.example/v1", "/v10", False),
        ("https://shop.example/v1", "/", False),
    ],
)
def test_what_an_origin_covers(origin: str, path: str, covered: bool) -> None:
    assert Origin(origin).covers(path) is covered


@pytest.mark.parametrize(
    ("url", "shown", "key"),
    [
        ("HTTPS://Shop.Example:443/v1/", "https://shop.example/v1", ("https", "shop.example", 443)),
        ("http://127.0.0.1:9001", "http://127.0.0.1:9001", ("http", "127.0.0.1", 9001)),
        ("http://[::1]:8080", "http://[::1]:8080", ("http", "::1", 8080)),
        ("http://[::1]", "http://[::1]", ("http", "::1", 80)),
    ],
)
def test_how_an_origin_is_read_and_shown(url: str, shown: str, key: tuple[str, str, int]) -> None:
    origin = Origin(url)
    assert (str(origin), origin.key) == (shown, key)


def test_a_dependency_that_hangs_harms_no_other(clock: FakeClock) -> None:
    resilience = Resilience(clock=clock)
    hanging = resilience.dependency("hanging", Bulkhead(max_concurrent=1, queue=0))
    healthy = resilience.dependency("healthy", Bulkhead(max_concurrent=1, queue=0))

    def nested() -> int:
        with pytest.raises(BulkheadFull):
            hanging.call_sync(int)
        return healthy.call_sync(int, "5")

    assert hanging.call_sync(nested) == 5


def test_events_carry_its_name(clock: FakeClock, listener: RecordingListener) -> None:
    dependency = Dependency("shop", Timeout(total=1), CircuitBreaker(1), fallback="instead", clock=clock)
    dependency.outbox.add(listener)
    assert dependency.call_sync({}.__getitem__, "missing") == "instead"
    assert dependency.call_sync(int) == "instead"  # type: ignore[comparison-overlap]
    assert {event.dependency for event in listener.events} == {"shop"}
    assert len(listener.events) == 4


@pytest.mark.anyio
async def test_nested_dependencies_share_the_deadline(anyio_backend: Any, clock: FakeClock) -> None:
    outer, inner = Dependency("outer", timeout=2, clock=clock), Dependency("inner", timeout=30, clock=clock)
    seen: list[DeadlineExceeded] = []

    async def work() -> None:
        try:
            await inner.call(anyio.sleep_forever)
        except DeadlineExceeded as error:
            seen.append(error)
            raise

    begun = clock.now()
    with pytest.raises(DeadlineExceeded):
        await outer.call(work)
    assert clock.now() - begun == pytest.approx(2)
    assert [error.reason for error in seen] in (["caller"], [])  # whichever of the two scopes is quicker, and neither hangs


def test_a_route_is_anything_with_the_parts_of_a_url() -> None:
    resilience = Resilience()
    made = resilience.dependency_for(SimpleNamespace(scheme="http", host="shop.example", port=None, path="/"))
    assert made.name == "http://shop.example:80" and resilience.dependencies == {made.name: made}
