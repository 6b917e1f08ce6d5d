"""Several fallbacks in order."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from resilient import BulkheadFull, CircuitOpen, Level, Resilience, chain
from resilient.context import COVER
from resilient.events import FallbackFailed, FeatureDegraded
from resilient.feature import Chain
from resilient.testing import FakeClock, RecordingListener

from .feature_worlds import Uses, in_each_world


@pytest.fixture
def resilience(clock: FakeClock, listener: RecordingListener) -> Resilience:
    return Resilience(clock=clock, listeners=[listener])


def told(listener: RecordingListener) -> list[tuple[str, str]]:
    return [(event.level, event.cause) for event in listener.of(FeatureDegraded)]


def failed(listener: RecordingListener) -> list[tuple[int, str, str]]:
    return [(event.step, event.level, event.cause) for event in listener.of(FallbackFailed)]


class Step:
    """A fallback that is a function; it does what it is told to."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.calls = 0

    def __call__(self, *args: Any) -> Any:
        self.calls += 1
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@in_each_world
def test_each_step_is_asked_only_when_those_before_it_have_failed(world: str, resilience: Resilience, listener: RecordingListener) -> None:
    stored, replica = Step("stored"), Step("of the replica")
    feature = resilience.feature("reviews", fallback=chain(stored, replica, ["none"]))
    use = Uses(world, feature, CircuitOpen("x"))
    assert use("7") == "stored"
    stored.answer = BulkheadFull("y", dependency="store")
    assert use("7") == "of the replica"
    replica.answer = KeyError("a bug")
    assert use("7") == ["none"]
    assert told(listener) == [("reduced", "circuit_open"), ("reduced", "circuit_open"), ("static", "circuit_open")]
    assert failed(listener) == [(0, "reduced", "bulkhead_full"), (0, "reduced", "bulkhead_full"), (1, "reduced", "KeyError")]
    assert [event.dependency for event in listener.of(FallbackFailed)] == ["store", "store", ""]
    assert feature.errors == 1, "the bug"
    assert (stored.calls, replica.calls) == (3, 2)


@in_each_world
def test_what_the_last_one_raises_reaches_the_caller(world: str, resilience: Resilience, listener: RecordingListener) -> None:
    feature = resilience.feature("reviews", fallback=chain(Step(ValueError("first")), Step(KeyError("last"))))
    with pytest.raises(KeyError, match="last"):
        Uses(world, feature, CircuitOpen("x"))()
    assert told(listener) == [("off", "circuit_open")]
    assert failed(listener) == [(0, "reduced", "ValueError")]


@in_each_world
def test_who_orders_static_gets_nothing_that_has_to_be_computed(world: str, resilience: Resilience) -> None:
    stored = Step("stored")
    feature = resilience.feature("reviews", fallback=chain(stored, ["none"]))
    use = Uses(world, feature)
    feature.set_level("reduced")
    assert use() == "stored"
    feature.set_level("static")
    assert use() == ["none"]
    feature.set_level("off")
    assert use() == ["none"]
    assert stored.calls == 1
    computed = resilience.feature("computed", fallback=chain(Step(ValueError("x")), Step("all there is")))
    computed.set_level("static")
    assert Uses(world, computed)() == "all there is"


@pytest.mark.anyio
async def test_async_steps_are_awaited_and_all_but_the_last_are_covered(resilience: Resilience, anyio_backend: Any) -> None:
    covers = []

    async def first() -> str:
        await anyio.lowlevel.checkpoint()
        covers.append(COVER.get() is not None)
        raise CircuitOpen("y")

    async def last() -> str:
        await anyio.lowlevel.checkpoint()
        covers.append(COVER.get() is not None)
        return "last"

    @resilience.feature("reviews", fallback=chain(first, last))
    async def reviews() -> str:
        raise CircuitOpen("x")

    assert await reviews() == "last"
    assert covers == [True, False]


@pytest.mark.anyio
async def test_a_cancellation_is_no_failure_of_a_step(resilience: Resilience, anyio_backend: Any, listener: RecordingListener) -> None:
    async def stored() -> None:
        await anyio.sleep(100)

    @resilience.feature("reviews", fallback=chain(stored, "none"))
    async def reviews() -> Any:
        raise CircuitOpen("x")

    with anyio.move_on_after(1) as scope:
        await reviews()
    assert scope.cancelled_caught
    assert listener.events == []


def test_chains_join_up_and_say_what_they_are() -> None:
    both = chain(chain(list, 1), chain("a"))
    assert isinstance(both, Chain)
    assert [step.level for step in both.steps] == [Level.STATIC] * 3
    assert repr(both) == "chain(<class 'list'>, 1, 'a')"
    with pytest.raises(TypeError, match="fallback"):
        chain()


def test_every_step_is_checked_before_the_outage(resilience: Resilience) -> None:
    async def asynchronous() -> None: ...

    def use() -> None: ...

    with pytest.raises(TypeError, match="async"):
        resilience.feature("a", fallback=chain([], asynchronous))(use)
