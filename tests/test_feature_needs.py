"""What a feature needs: circuits that open, other features that fail; and what that makes of the service."""

from __future__ import annotations

from typing import Any

import pytest

from resilient import Bulkhead, Cache, CircuitBreaker, CircuitOpen, Dependency, Failover, Fallback, Feature, Level, Resilience
from resilient.context import RECORD
from resilient.core.degradation import DegradationRecord
from resilient.events import FeatureChanged, FeatureDegraded, ServiceChanged
from resilient.testing import FakeClock, RecordingListener

from .feature_worlds import Uses, in_each_world

FULL, REDUCED, STATIC, OFF = Level


@pytest.fixture
def resilience(clock: FakeClock, listener: RecordingListener) -> Resilience:
    return Resilience(clock=clock, listeners=[listener])


def changes(listener: RecordingListener) -> list[tuple[str, ...]]:
    return [(event.feature, event.old, event.new, event.cause) for event in listener.of(FeatureChanged)]


async def first() -> str:
    return "first"


async def second() -> str:
    return "second"


def breaker() -> CircuitBreaker:
    return CircuitBreaker(random=lambda: 0.5)


# -- circuits -------------------------------------------------------------------------------------------------------


@in_each_world
def test_an_open_circuit_sets_the_level_at_once_and_the_function_is_not_called(
    world: str, resilience: Resilience, listener: RecordingListener, clock: FakeClock
) -> None:
    record = DegradationRecord()
    search = resilience.dependency("search", breaker())
    feature = resilience.feature("suggestions", needs=[search], fallback=[])
    use = Uses(world, feature)
    assert use() == "own"
    search.breaker.trip()
    assert changes(listener) == [("suggestions", "full", "static", "dependency:search")], "nobody has used it, or looked"
    token = RECORD.set(record)
    try:
        assert use() == []
    finally:
        RECORD.reset(token)
    assert use.calls == 1
    (told,) = listener.of(FeatureDegraded)
    assert (told.level, told.cause, told.dependency) == ("static", "dependency:search", "search")
    assert [(one.level, one.cause, one.dependency) for one in record.entries] == [("static", "dependency:search", "search")]


@in_each_world
def test_a_circuit_that_is_due_lets_uses_through_and_closed_the_level_follows(
    world: str, resilience: Resilience, listener: RecordingListener, clock: FakeClock
) -> None:
    search = resilience.dependency("search", breaker())
    feature = resilience.feature("suggestions", needs=[search], fallback=[])

    @feature
    def use() -> str:
        return search.call_sync(lambda: "own")

    search.breaker.trip()
    assert use() == []
    clock.advance(1.5)
    for _ in range(3):
        assert use() == "own", "each of them is a trial"
    assert search.state == "closed"
    assert feature.level is STATIC, "it has been well for a moment only"
    assert use() == "own", "but users have it back"
    clock.advance(9.9)
    assert feature.level is STATIC
    clock.advance(0.1)
    assert feature.level is FULL
    assert changes(listener) == [
        ("suggestions", "full", "static", "dependency:search"),
        ("suggestions", "static", "full", "recovered"),
    ]


def test_a_circuit_that_was_open_before(resilience: Resilience) -> None:
    search = resilience.dependency("search", breaker())
    search.breaker.trip()
    feature = resilience.feature("suggestions", needs=[search], fallback=[])
    assert feature.level is STATIC
    use = Uses("sync", feature)
    assert use() == []
    assert use.calls == 0


def test_a_circuit_forced_open_stays_so(resilience: Resilience, clock: FakeClock) -> None:
    search = resilience.dependency("search", breaker())
    use = Uses("sync", resilience.feature("suggestions", needs=[search], fallback=[]))
    search.breaker.open()
    clock.advance(3600)
    assert use() == []
    assert use.calls == 0
    search.breaker.close()
    assert use() == "own"


def test_without_a_fallback_the_function_finds_out(resilience: Resilience) -> None:
    search = resilience.dependency("search", breaker())
    feature = resilience.feature("suggestions", needs=[search])
    use = Uses("sync", feature, CircuitOpen("x", retry_after=3.0))
    search.breaker.trip()
    assert feature.level is OFF
    with pytest.raises(CircuitOpen):
        use()
    assert use.calls == 1


@pytest.mark.parametrize(
    "policies",
    [
        (Fallback([]), CircuitBreaker()),
        (Cache(), CircuitBreaker()),
        (Failover(first, second),),
        (CircuitBreaker(enforce=False),),
        (CircuitBreaker(disabled=True),),
        (CircuitBreaker(key=lambda: "k"),),
        (Bulkhead(),),
    ],
    ids=["fallback", "cache", "failover", "shadow", "disabled", "keyed", "none"],
)
def test_a_circuit_that_stands_in_nobodys_way_changes_nothing(policies: Any, resilience: Resilience) -> None:
    search = resilience.dependency("search", *policies)
    feature = resilience.feature("suggestions", needs=[search], fallback=[])
    opened = search.breaker
    if opened is not None:
        (opened.circuit("k") if "key=" in repr(opened) else opened).trip()
    use = Uses("sync", feature)
    assert use() == "own"
    assert feature.level is FULL
    assert (search.failing, search.refuses) == (False, False)


def test_a_plain_pybreaker_counts_too(resilience: Resilience) -> None:
    import pybreaker

    theirs = pybreaker.CircuitBreaker(fail_max=1)
    search = resilience.dependency("search", theirs)
    feature = resilience.feature("suggestions", needs=[search], fallback=[])
    assert feature.level is FULL
    theirs.open()
    assert feature.level is STATIC
    use = Uses("sync", feature)
    assert use() == []
    assert use.calls == 0


def test_a_dependency_from_elsewhere_is_seen_when_a_use_fails(resilience: Resilience, clock: FakeClock) -> None:
    """Its events go to listeners of its own."""
    search = Dependency("search", breaker(), clock=clock)
    feature = resilience.feature("suggestions", needs=[search], fallback=[])
    use = Uses("sync", feature)
    search.breaker.trip()
    use.answer = CircuitOpen("x")
    assert use() == []
    assert use() == []
    assert use.calls == 1


# -- oscillation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("period", [0.05, 0.3, 1.0, 3.0, 9.0])
def test_a_circuit_that_opens_and_closes_does_not_flap_the_feature(
    period: float, resilience: Resilience, listener: RecordingListener, clock: FakeClock
) -> None:
    search = resilience.dependency("search", breaker())
    feature = resilience.feature("suggestions", needs=[search], fallback=[])
    use = Uses("sync", feature)
    for _ in range(int(60 / period)):
        search.breaker.trip()
        clock.advance(period / 2)
        use()
        search.breaker.close()
        closed_at = clock.now()
        clock.advance(period / 2)
        use()
    assert changes(listener) == [("suggestions", "full", "static", "dependency:search")]
    while feature.level is not FULL:
        clock.advance(0.1)
        use()
    assert 10 - 1e-6 <= clock.now() - closed_at <= 10.2
    assert len(changes(listener)) == 2


# -- other features -------------------------------------------------------------------------------------------------


@in_each_world
def test_a_feature_that_is_off_takes_those_along_that_need_it(world: str, resilience: Resilience, listener: RecordingListener) -> None:
    prices = resilience.feature("prices")
    offers = resilience.feature("offers", needs=[prices], fallback=[])
    banner = resilience.feature("banner", needs=[offers], fallback=None)
    assert offers.needs == ("prices",)
    use = Uses(world, offers)
    prices.set_level("off", by="ann")
    assert (prices.level, offers.level, banner.level) == (OFF, STATIC, REDUCED)
    assert changes(listener) == [
        ("prices", "full", "off", "operator"),
        ("offers", "full", "static", "feature:prices"),
        ("banner", "full", "reduced", "feature:offers"),
    ]
    assert use() == []
    assert use.calls == 0
    assert [event.cause for event in listener.of(FeatureDegraded)] == ["feature:prices"]
    prices.clear()
    assert use() == "own"
    assert (offers.level, banner.level) == (FULL, FULL), "at once, as the order for prices"


def test_a_feature_that_fails_lets_those_that_need_it_find_out(resilience: Resilience, clock: FakeClock) -> None:
    prices = resilience.feature("prices")
    offers = resilience.feature("offers", needs=[prices], fallback=[])
    failing = Uses("sync", prices, CircuitOpen("x"))
    use = Uses("sync", offers)
    with pytest.raises(CircuitOpen):
        failing()
    assert offers.level is STATIC
    assert use() == "own", "the next use of prices may be well"
    clock.advance(10)
    assert (prices.level, offers.level) == (FULL, FULL)


def test_a_tenant_without_it_is_without_what_needs_it(resilience: Resilience) -> None:
    whose = ["acme"]
    prices = resilience.feature("prices", tenant=lambda: whose[0])
    offers = resilience.feature("offers", needs=[prices], fallback=[])
    use = Uses("sync", offers)
    prices.set_level("off", tenant="acme")
    assert use() == []
    whose[0] = "other"
    assert use() == "own"


# -- the service ----------------------------------------------------------------------------------------------------


def test_the_level_of_the_service_is_that_of_its_worst_critical_feature(
    resilience: Resilience, listener: RecordingListener, clock: FakeClock
) -> None:
    search = resilience.dependency("search", breaker())
    resilience.feature("extra", fallback=[]).set_level("off")
    page = resilience.feature("page", critical=True, needs=[search], fallback="plain")
    resilience.feature("checkout", critical=True)
    assert resilience.level == "healthy"
    search.breaker.trip()
    assert [(event.old, event.new) for event in listener.of(ServiceChanged)] == [("healthy", "degraded")]
    page.set_level("off", by="ann")
    assert resilience.level == "critical"
    page.clear()
    search.breaker.close()
    clock.advance(10)
    assert resilience.level == "healthy"
    assert [event.new for event in listener.of(ServiceChanged)] == ["degraded", "critical", "degraded", "healthy"]
    page.set_level("off")
    resilience.reset()
    assert resilience.level == "healthy"


def test_features_are_a_mapping_that_does_not_change_under_who_reads_it(resilience: Resilience) -> None:
    first = resilience.feature("first")
    seen = resilience.features
    for name in seen:
        resilience.feature(f"{name}-too")
    assert list(seen) == ["first"]
    assert resilience.features["first"] is first
    with pytest.raises(ValueError, match="first"):
        resilience.feature("first")


def test_what_is_needed_for_attribution_alone_may_be_anything_with_a_name(resilience: Resilience) -> None:
    class Ledger:
        name = "ledger"

    feature = Feature(resilience, "a", needs=iter([Ledger()]), fallback=None)
    assert feature.needs == ("ledger",)
    assert Uses("sync", feature, CircuitOpen("x"))() is None
