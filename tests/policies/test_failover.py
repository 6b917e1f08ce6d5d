"""Failover: which target is asked, when it is left for the next one, how time is shared, and who is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient import (
    AllTargetsFailed,
    Bulkhead,
    Chaos,
    CircuitBreaker,
    CircuitOpen,
    DeadlineExceeded,
    Dependency,
    Failover,
    Fallback,
    Outcome,
    Pipeline,
    Resilience,
    Retry,
    Target,
    Timeout,
    standard,
)
from resilient.core.backoff import Constant
from resilient.core.failover import share_of, worst
from resilient.events import CallRejected, CircuitChanged, FailedOver
from resilient.policies.mistakes import ConfigurationWarning
from resilient.testing import FakeClock, RecordingListener

from .driver import Script, World, only_awaited, takes


def left(world: World) -> list[tuple[str, str, str]]:
    return [(event.target, event.to, event.cause) for event in world.listener.of(FailedOver)]


class Targets:
    """Functions that behave as scripts say, by name; what is asked is what `World` calls its dependencies with."""

    def __init__(self, world: World, **scripts: Any) -> None:
        self.world = world
        self.scripts = {name: script if isinstance(script, Script) else Script(script) for name, script in scripts.items()}

    def of(self, name: str, *policies: Any) -> Target:
        script, play = self.scripts[name], self.world._play  # type: ignore[attr-defined]
        return Target(name, *policies, function=lambda asked: play(script))

    def failover(self, **settings: Any) -> Failover:
        return Failover(*[self.of(name) for name in self.scripts], **settings)

    @property
    def asked(self) -> dict[str, int]:
        return {name: len(script.asked) for name, script in self.scripts.items()}


# -- which ------------------------------------------------------------------------------------------------------------


def test_the_first_target_answers_and_no_other_is_asked(world: World) -> None:
    targets = Targets(world, a="from a", b="from b")
    assert world.call(world.pipeline(targets.failover())) == "from a"
    assert (targets.asked, left(world)) == ({"a": 1, "b": 0}, [])


def test_one_that_fails_is_left_for_the_next(world: World) -> None:
    targets = Targets(world, a=ConnectionError, b=ValueError, c="from c")
    assert world.call(world.pipeline(targets.failover())) == "from c"
    assert left(world) == [("a", "b", "ConnectionError"), ("b", "c", "ValueError")]


def test_one_with_an_open_circuit_is_skipped(world: World) -> None:
    targets = Targets(world, a=ConnectionError, b="from b")
    circuit = CircuitBreaker(3, 60)
    pipeline = world.pipeline(Failover(targets.of("a", circuit), targets.of("b")), name="shop")
    assert world.times(10, pipeline) == ["from b"] * 10
    assert targets.asked == {"a": 3, "b": 10}
    changed = world.listener.of(CircuitChanged)
    assert [(event.dependency, event.new) for event in changed] == [("shop/a", "open")]
    assert {event.dependency for event in world.listener.of(CallRejected)} == {"shop/a"}
    assert left(world)[-1] == ("a", "b", "circuit_open")
    world.sleep(61)
    world.call(pipeline)
    assert targets.asked["a"] == 4, "a trial"


def test_each_has_its_own_breaker_and_numbers(world: World) -> None:
    targets = Targets(world, a=ConnectionError, b=takes(0.2, "from b"))
    failover = targets.failover()
    pipeline = world.pipeline(failover, name="shop")
    world.times(2, pipeline)
    a, b = failover.pipelines
    assert (a.name, b.name) == ("shop/a", "shop/b")
    assert a.breaker is not b.breaker and (a.state, b.state) == ("closed", "closed")
    assert (a.breaker.fail_counter, b.breaker.fail_counter) == (2, 0)  # type: ignore[union-attr]
    assert [one.stats.snapshot().counts["failure"] for one in (a, b)] == [2, 0]
    assert b.stats.snapshot().counts["success"] == 2
    assert b.stats.snapshot().seconds == pytest.approx(0.4)
    assert pipeline.stats.snapshot().counts == {"success": 2, "failure": 0, "ignored": 0}, "a call that was answered is a success"
    assert (a.bulkhead, a.budget) == (None, None)
    pipeline.reset()
    assert a.stats.snapshot().counts["failure"] == 0


def test_arguments_in_place_of_functions(world: World) -> None:
    asked: list[Any] = []

    def region(script: Script, *, region: str = "none", size: int = 1) -> str:
        asked.append((region, size))
        if region == "eu":
            raise ConnectionError
        return region

    async def awaited(script: Script, **arguments: Any) -> str:
        return region(script, **arguments)

    failover = Failover(Target("eu", arguments={"region": "eu"}), Target("us", arguments={"region": "us", "size": 2}))
    pipeline = world.pipeline(failover)
    if world.interrupts:
        ends = []

        async def main() -> None:
            ends.append(await pipeline.call(awaited, Script(), region="asia", size=3))

        world._run(world.clock, main)  # type: ignore[attr-defined]
        assert ends == ["us"]
    else:
        assert pipeline.call_sync(region, Script(), region="asia", size=3) == "us"
    assert asked == [("eu", 3), ("us", 2)]


def test_functions_by_themselves(world: World) -> None:
    failover = Failover(
        *[target.function for target in (Targets(world, a=ConnectionError).of("a"), Targets(world, b="from b").of("b"))][:1]
    )
    assert failover.targets[0].name == "<lambda>"

    def primary() -> str: ...
    def replica() -> str: ...

    assert [target.name for target in Failover(primary, replica).targets] == ["primary", "replica"]


# -- the end of it ----------------------------------------------------------------------------------------------------


def test_none_left(world: World) -> None:
    targets = Targets(world, a=ConnectionError("a"), b=ValueError("b"))
    error = world.fails(world.pipeline(targets.failover(), name="shop"))
    assert isinstance(error, AllTargetsFailed)
    assert [repr(cause) for cause in error.causes] == ["ConnectionError('a')", "ValueError('b')"]
    assert error.__cause__ is error.causes[-1]
    assert (error.dependency, error.policy, error.reason, error.retry_after) == ("shop", "failover", "exhausted", None)
    assert str(error) == "shop: no target answered: a, b"
    assert left(world)[-1] == ("b", "", "ValueError")


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ((("https://a", "https://b"),), "targets: put a star in front of a tuple of targets, as in Failover(*targets)"),
        ((["https://a"],), "targets: put a star in front of a list of targets, as in Failover(*targets)"),
        ((None,), "targets: expected a Target, a URL or a function, got None"),
        ((Target,), "targets: expected a Target, a URL or a function, got <class 'resilient.policies.target.Target'>"),
        ((CircuitBreaker(),), "targets: put policies into a target, as in Target('eu', *policies), got CircuitBreaker()"),
        ((Dependency("eu"),), "targets: put policies into a target, as in Target('eu', *policies), got <Dependency eu closed>"),
    ],
)
def test_what_is_no_target(targets: Any, message: str) -> None:
    with pytest.raises(TypeError) as raised:
        Failover(*targets)
    assert str(raised.value) == message


@pytest.mark.parametrize("policies", [((CircuitBreaker(),),), (5,), (CircuitBreaker,)])
def test_policies_of_a_target_that_are_none(policies: Any) -> None:
    with pytest.raises(TypeError, match="^policies: "):
        Target("eu", *policies)


def test_all_circuits_open_says_when_to_come_back_and_blames_nobody(world: World) -> None:
    circuits = [CircuitBreaker(1, seconds) for seconds in (60, 20)]
    targets = Targets(world, a="ok", b="ok")
    outer = CircuitBreaker(1)
    pipeline = world.pipeline(outer, Failover(*[targets.of(name, circuit) for name, circuit in zip("ab", circuits, strict=True)]))
    for circuit in circuits:
        circuit.trip()
    error = world.fails(pipeline)
    assert isinstance(error, AllTargetsFailed)
    assert [type(cause) for cause in error.causes] == [CircuitOpen, CircuitOpen]
    assert error.retry_after is not None and error.retry_after <= 25
    assert outer.current_state == "closed"
    assert pipeline.stats.snapshot().counts == {"success": 0, "failure": 0, "ignored": 1}
    assert targets.asked == {"a": 0, "b": 0}


def test_all_failed_is_a_failure_of_the_dependency(world: World) -> None:
    outer = CircuitBreaker(1)
    pipeline = world.pipeline(outer, Targets(world, a=ConnectionError, b=ValueError).failover())
    world.fails(pipeline)
    assert outer.current_state == "open"
    assert pipeline.stats.snapshot().counts["failure"] == 1


def test_a_fallback_serves_after_the_last_target(world: World) -> None:
    assert world.call(world.pipeline(Fallback("static"), Targets(world, a=ConnectionError).failover())) == "static"


def test_a_retry_around_it_asks_them_all_again(world: World) -> None:
    targets = Targets(world, a=ConnectionError, b=Script(ConnectionError, "from b"))
    retry = Retry(on=AllTargetsFailed, backoff=Constant(1))
    assert world.call(world.pipeline(retry, targets.failover())) == "from b"
    assert targets.asked == {"a": 2, "b": 2}


def test_a_failed_result_moves_on_too(world: World) -> None:
    def classify(result: Any, error: BaseException | None) -> Outcome | None:
        return {"busy": Outcome.THROTTLED, "bad": Outcome.FAILURE}.get(result) if isinstance(result, str) else None

    targets = Targets(world, a="busy", b="bad", c="good")
    assert world.call(world.pipeline(targets.failover(), classify=classify)) == "good"
    error = world.fails(world.pipeline(Targets(world, a="bad").failover(), classify=classify))
    assert isinstance(error, AllTargetsFailed) and len(error.causes) == 1


# -- time -------------------------------------------------------------------------------------------------------------


@only_awaited
def test_a_target_leaves_time_for_those_that_could_follow(world: World) -> None:
    targets = Targets(world, a=takes(60), b=takes(60), c=takes(0.5, "from c"))
    (ended,) = world.together(world.pipeline(Timeout(total=6), targets.failover()), (0, "unused"))
    assert ended.value == "from c"
    assert ended.at == pytest.approx(2 + 2 + 0.5), "a third of six seconds, and half of the four that were left"
    assert left(world) == [("a", "b", "deadline"), ("b", "c", "deadline")]


@only_awaited
def test_the_attempt_timeout_holds_where_it_is_shorter(world: World) -> None:
    targets = Targets(world, a=takes(60), b=takes(4, "from b"))
    (ended,) = world.together(world.pipeline(Timeout(total=30, attempt=3), targets.failover()), (0, "unused"))
    assert (ended.value, ended.at) == ("from b", pytest.approx(7)), "the last one has all that is left"


@only_awaited
def test_one_that_is_skipped_anyway_is_left_no_time(world: World) -> None:
    circuit = CircuitBreaker()
    circuit.open()
    targets = Targets(world, a=takes(5, "from a"), b="from b")
    pipeline = world.pipeline(Timeout(total=6), Failover(targets.of("a"), targets.of("b", circuit)))
    assert world.call(pipeline) == "from a"


@only_awaited
def test_once_the_time_is_over_the_last_failure_is_the_callers(world: World) -> None:
    targets = Targets(world, a=takes(60), b=takes(60))
    (ended,) = world.together(world.pipeline(Timeout(total=4), targets.failover(), name="shop"), (0, "unused"))
    assert isinstance(ended.error, DeadlineExceeded) and ended.at == pytest.approx(4)
    assert (ended.error.reason, ended.error.dependency) == ("total", "shop/b")


@only_awaited
def test_a_cancelled_caller_leaves_nothing_behind(world: World) -> None:
    bulkhead, circuit = Bulkhead(), CircuitBreaker(1)
    targets = Targets(world, a=ConnectionError, b=takes(60))
    pipeline = world.pipeline(Failover(targets.of("a", bulkhead), targets.of("b", circuit, bulkhead)))

    async def main() -> None:
        with anyio.move_on_after(1) as scope:
            await pipeline.call(world._play, Script())  # type: ignore[attr-defined]
        assert scope.cancelled_caught

    world._run(world.clock, main)  # type: ignore[attr-defined]
    assert (bulkhead.in_use, circuit.current_state, circuit.fail_counter) == (0, "closed", 0)


@given(st.floats(0, 1000), st.integers(0, 10))
def test_shares_are_fair_and_fit(remaining: float, others: int) -> None:
    share = share_of(remaining, others)
    assert 0 <= share * (others + 1) <= remaining * 1.000001


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([Outcome.IGNORED, Outcome.IGNORED], Outcome.IGNORED),
        ([Outcome.IGNORED, Outcome.THROTTLED], Outcome.THROTTLED),
        ([Outcome.FAILURE, Outcome.OUTAGE, Outcome.IGNORED], Outcome.OUTAGE),
        ([Outcome.THROTTLED, Outcome.FAILURE], Outcome.FAILURE),
    ],
)
def test_what_the_end_of_them_all_says(outcomes: list[Outcome], expected: Outcome) -> None:
    assert worst(outcomes) is expected


# -- generators -------------------------------------------------------------------------------------------------------


def test_generators() -> None:
    pipeline = Pipeline(Failover(Target("a"), Target("b", function=second)))
    assert list(pipeline(first)(3)) == [3, 4]


def first(start: int) -> Iterator[int]:
    raise ConnectionError
    yield start


def second(start: int) -> Iterator[int]:
    yield from (start, start + 1)


@pytest.mark.anyio
async def test_async_generators(anyio_backend: Any, clock: FakeClock) -> None:
    async def primary(start: int) -> AsyncIterator[int]:
        raise ConnectionError
        yield start

    async def replica(start: int) -> AsyncIterator[int]:
        for item in second(start):
            await anyio.sleep(0.1)
            yield item

    pipeline = Pipeline(Failover(Target("a"), Target("b", function=replica)), clock=clock)
    assert [item async for item in pipeline(primary)(3)] == [3, 4]


# -- put together -----------------------------------------------------------------------------------------------------


def test_targets_are_dependencies_to_operators() -> None:
    resilience, listener = Resilience(), RecordingListener()
    resilience.add_listener(listener)

    def fails() -> str:
        raise ConnectionError

    llm = resilience.dependency("llm", *standard(failover=Failover(Target("a", CircuitBreaker(1)), Target("b", function=lambda: "b"))))
    assert llm.call_sync(fails) == "b"
    assert list(resilience.dependencies) == ["llm/a", "llm/b", "llm"]
    page = resilience.metrics.render("")[0].decode()
    assert 'resilient_breaker_state{dependency="llm/a",state="open"} 1.0' in page
    assert 'resilient_calls_total{dependency="llm/b",outcome="success"} 1.0' in page
    assert 'resilient_failovers_total{cause="ConnectionError",dependency="llm",target="a"} 1.0' in page
    resilience.reset()
    assert resilience.dependencies["llm/a"].state == "closed"


def test_standard_has_no_breaker_for_all_of_them() -> None:
    names = [type(policy).__name__ for policy in standard(failover=Failover("https://a.example"))]
    assert names == ["Timeout", "Retry", "Failover", "AdaptiveConcurrency"]
    names = [type(policy).__name__ for policy in standard(failover=Failover("https://a.example"), breaker=CircuitBreaker())]
    assert names[-1] == "CircuitBreaker"
    with pytest.warns(ConfigurationWarning, match="takes all targets for one"):
        Pipeline(Failover("https://a.example"), CircuitBreaker())
    Pipeline(CircuitBreaker(), Failover("https://a.example"))


@pytest.mark.parametrize(
    ("make", "error", "named"),
    [
        (Failover, ValueError, "targets"),
        (lambda: Failover(3), TypeError, "targets"),
        (lambda: Failover(int), TypeError, "targets"),
        (lambda: Failover("https://a.example", "https://a.example"), ValueError, "targets"),
        (lambda: Failover("a.example"), ValueError, "url"),
        (lambda: Failover("https://a.example", repeat=None), TypeError, "repeat"),
        (lambda: Target(3), TypeError, "name"),
        (lambda: Target(""), ValueError, "name"),
        (lambda: Target("a b"), ValueError, "name"),
        (lambda: Target("a", "b"), TypeError, "policies"),
        (lambda: Target("a", url=3), TypeError, "url"),
        (lambda: Target("a", url="ftp://a.example"), ValueError, "url"),
        (lambda: Target("a", url="https://user:word@a.example"), ValueError, "url"),
        (lambda: Target("a", url="https://a.example/?b=c"), ValueError, "url"),
        (lambda: Target("a", url="https://a.example:port"), ValueError, "url"),
        (lambda: Target("a", headers=["x"]), TypeError, "headers"),
        (lambda: Target("a", headers={"x": 3}), TypeError, "headers"),
        (lambda: Target("a", json=3), TypeError, "json"),
        (lambda: Target("a", trusted="yes"), TypeError, "trusted"),
        (lambda: Target("a", function=3), TypeError, "function"),
        (lambda: Target("a", arguments=[3]), TypeError, "arguments"),
        (lambda: standard(failover="https://a.example"), TypeError, "failover"),
    ],
)
def test_settings(make: Callable[[], Any], error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named):
        made = make()
        Pipeline(Failover(made))


def test_a_target_for_requests_takes_no_function_call(world: World) -> None:
    for target in (Target("eu", url="https://eu.example"), Target("eu", headers={"a": "b"}), Target("eu", json={"a": 1})):
        pipeline = world.pipeline(Failover(target, Target("other")))
        error = world.fails(pipeline)
        assert isinstance(error, TypeError) and "rewrites HTTP requests" in str(error)
        assert pipeline.stats.snapshot().counts["ignored"] == 1
    assert repr(Target("eu")) == "<Target eu>"


# -- other policies below ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allowed", [True, False])
def test_chaos_below_acts_where_it_is_allowed(world: World, allowed: bool) -> None:
    """On each target, awaiting what has to be awaited; a target has no word of its own on whether it may."""
    targets, chaos = Targets(world, a="a", b="b"), Chaos(rate=1, fault=ConnectionError, latency=0.5)
    pipeline = world.pipeline(targets.failover(), chaos)
    pipeline.chaos = allowed
    if not allowed:
        assert world.call(pipeline) == "a" and chaos.injected == 0
        return
    error = world.fails(pipeline)
    assert isinstance(error, AllTargetsFailed) and [type(one) for one in error.causes] == [ConnectionError] * 2
    assert chaos.injected == 2 and targets.asked == {"a": 0, "b": 0} and world.now == pytest.approx(1.0)
    chaos.enabled = False
    pipeline.reset()
    assert world.call(pipeline) == "a"


def test_a_watching_timeout_of_a_target_reports_and_cuts_nothing(world: World) -> None:
    targets = Targets(world, a=takes(3, "a"))
    pipeline = world.pipeline(Failover(targets.of("a", Timeout(total=9, attempt=1, enforce=False))))
    assert world.call(pipeline) == "a"
