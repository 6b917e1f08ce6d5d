"""A stall reaches what is made in a call's place: a target's attempt, the attempts of a hedge. The rule: test_stall."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from resilient import (
    AllTargetsFailed,
    Bulkhead,
    CircuitBreaker,
    DeadlineExceeded,
    Failover,
    Fallback,
    Hedge,
    Pipeline,
    Resilience,
    Retry,
    RetryBudget,
    Target,
    Timeout,
)
from resilient.core.backoff import Constant
from resilient.events import CircuitChanged, HedgeDecided
from resilient.testing import FakeClock

from .driver import Ended, World, only_awaited, only_in_threads, takes

LIMITS = Timeout(total=30)
HANGS = takes(1000)


def breaker(**settings: Any) -> CircuitBreaker:
    return CircuitBreaker(random=lambda: 0.5, **settings)


def waited(ends: list[Ended], every: float = 0.1) -> list[float]:
    return [round(end.at - number * every, 2) for number, end in enumerate(ends)]


def learnt(world: World, *policies: Any, took: float = 0.02, **settings: Any) -> Pipeline:
    """A pipeline that knows how long successes take."""
    pipeline = world.pipeline(*policies, **settings)
    world.together(pipeline, *[(number * 0.01, takes(took)) for number in range(25)])
    world.listener.clear()
    return pipeline


def hanging(count: int = 20, item: Any = HANGS) -> list[tuple[float, Any]]:
    return [(number * 0.1, item) for number in range(count)]


# -- targets ----------------------------------------------------------------------------------------------------------


class Targets:
    """Two targets, of which the first hangs once it was told to."""

    def __init__(self, *first: Any) -> None:
        self.hangs = False
        self.failover = Failover(Target("first", *first, function=self.first), Target("second", function=self.second))

    async def first(self, script: Any) -> str:
        await anyio.sleep(1000 if self.hangs else 0.02)
        return "first"

    async def second(self, script: Any) -> str:
        return "second"


async def one_by_one(pipeline: Pipeline, clock: FakeClock, calls: int = 20) -> list[tuple[float, Any]]:
    """Calls that arrive ten a second: seconds that each took, and its end."""
    ends: dict[int, tuple[float, Any]] = {}

    async def arrive(number: int) -> None:
        began = clock.now()
        try:
            end: Any = await pipeline.call(Targets.first, None)
        except Exception as error:  # noqa: BLE001  # looked at below
            end = error
        ends[number] = round(clock.now() - began, 2), end

    async with anyio.create_task_group() as group:
        for number in range(calls):
            group.start_soon(arrive, number)
            await anyio.sleep(0.1)
    return [ends[number] for number in range(calls)]


@pytest.mark.anyio
@pytest.mark.parametrize("hedged", [False, True])
async def test_a_target_that_hangs_is_left_for_the_next_one(clock: FakeClock, hedged: bool) -> None:
    circuit = breaker()
    targets = Targets(circuit, *([Hedge(delay=0.5)] if hedged else []))
    pipeline = Pipeline(Fallback("instead"), LIMITS, targets.failover, clock=clock)
    assert {end for _, end in await one_by_one(pipeline, clock, 25)} == {"first"}
    targets.hangs = True
    ends = await one_by_one(pipeline, clock)
    assert circuit.reason == "stall"
    assert {end for _, end in ends} == {"second"}
    assert max(seconds for seconds, _ in ends) < 1.6
    assert not circuit.busy


@pytest.mark.anyio
async def test_the_only_target_that_hangs_leaves_the_answer_to_the_fallback(clock: FakeClock) -> None:
    targets = Targets(breaker())
    failover = Failover(targets.failover.targets[0])
    pipeline = Pipeline(Fallback("instead", on=AllTargetsFailed), LIMITS, failover, clock=clock)
    await one_by_one(pipeline, clock, 25)
    targets.hangs = True
    ends = await one_by_one(pipeline, clock)
    assert {end for _, end in ends} == {"instead"}
    assert max(seconds for seconds, _ in ends) < 1.6


@pytest.mark.anyio
async def test_a_target_runs_on_where_nobody_answers_for_its_calls(clock: FakeClock) -> None:
    targets = Targets(breaker())
    pipeline = Pipeline(LIMITS, targets.failover, clock=clock)
    await one_by_one(pipeline, clock, 25)
    targets.hangs = True
    ends = await one_by_one(pipeline, clock)
    assert max(seconds for seconds, _ in ends) == 10.0  # an attempt's
    assert {end for _, end in ends} == {"second"}


@pytest.mark.anyio
async def test_a_feature_answers_for_its_targets_calls(clock: FakeClock) -> None:
    targets = Targets(breaker())
    resilience = Resilience(clock=clock)
    search = resilience.dependency("search", LIMITS, targets.failover)
    pipeline = Pipeline(clock=clock)

    @resilience.feature("search", needs=[search], fallback="nothing")
    async def use(script: Any) -> str:
        return await search.call(targets.first, None)

    pipeline = Pipeline(Covered(use), clock=clock)
    await one_by_one(pipeline, clock, 25)
    targets.hangs = True
    ends = await one_by_one(pipeline, clock)
    assert max(seconds for seconds, _ in ends) < 1.6


class Covered:
    """A policy that asks a feature instead."""

    def __init__(self, use: Any) -> None:
        self.use = use

    async def run(self, call: Any, inner: Any) -> Any:
        return await self.use(None)


@pytest.mark.anyio
async def test_a_circuit_around_all_targets_reaches_the_one_that_is_asked(clock: FakeClock) -> None:
    circuit = breaker()
    targets = Targets(Timeout(total=20))
    pipeline = Pipeline(Fallback("instead"), LIMITS, Retry(), circuit, targets.failover, clock=clock)
    await one_by_one(pipeline, clock, 25)
    targets.hangs = True
    ends = await one_by_one(pipeline, clock)
    assert circuit.reason == "stall"
    assert {end for _, end in ends} == {"second", "instead"}  # rejected, the later ones
    assert max(seconds for seconds, _ in ends) < 1.6


@pytest.mark.anyio
async def test_the_stream_of_a_target_that_has_begun_does_not_hang(clock: FakeClock) -> None:
    """Streams of nine seconds, each begun at once, where answers of a tenth of a second are usual."""
    circuit = breaker()
    failover = Failover(Target("first", circuit))
    pipeline = Pipeline(Fallback("instead"), LIMITS, failover, clock=clock)
    long = False

    @pipeline
    async def tell() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(9 if long else 0.1)
        yield 2

    async def read() -> None:
        assert [item async for item in tell()] == [1, 2]

    for _ in range(25):
        await read()
    long = True
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(read)
            await anyio.sleep(0.2)
    assert circuit.current_state == "closed" and circuit.reason == ""


# -- hedges inside of the circuit -------------------------------------------------------------------------------------


def hedged(world: World, *around: Any, inside: tuple[Any, ...] = (), hedge: Hedge | None = None) -> tuple[CircuitBreaker, Pipeline]:
    circuit = breaker()
    return circuit, learnt(world, *around, circuit, hedge or Hedge(delay=0.5), *inside)


@pytest.mark.parametrize("retry", [False, True])
def test_hedged_calls_that_hang_are_answered(world: World, retry: bool) -> None:
    """In threads too: the caller's waits for those of its race, and that wait can be ended."""
    circuit, pipeline = hedged(world, Fallback("instead"), LIMITS, *([Retry()] if retry else []))
    ends = world.together(pipeline, *hanging())
    assert [event.reason for event in world.listener.of(CircuitChanged) if event.new == "open"] == ["stall"]
    assert {end.value for end in ends} == {"instead"}
    assert max(waited(ends)) <= 1.51
    assert waited(ends)[5:15] == [pytest.approx(1.0, abs=0.02)] * 10  # in flight when it tripped, and cut in their turn
    assert not circuit.busy
    assert circuit._core.flights == {}


def test_no_hedge_is_sent_for_a_call_that_was_cut(world: World) -> None:
    """Those cut before the hedge was due have asked once, and the first attempt's end is not followed by another."""
    _, pipeline = hedged(world, Fallback("instead"), LIMITS, hedge=Hedge(delay=1.25, after_failure=True))
    world.together(pipeline, *hanging())
    assert [event.result for event in world.listener.of(HedgeDecided)] == ["cancelled"] * 3  # of the oldest


def test_hedged_calls_that_nobody_answers_for_run_on(world: World) -> None:
    _, pipeline = hedged(world, Timeout(total=5))
    ends = world.together(pipeline, *hanging(17, takes(4)))
    assert [event.reason for event in world.listener.of(CircuitChanged) if event.new == "open"] == ["stall"]
    assert [end.value for end in ends[:14]] == ["ok"] * 14
    assert waited(ends)[:14] == [4.0] * 14


@pytest.mark.parametrize("outside", [True, False])
def test_what_hedged_calls_held_is_given_back_once(world: World, outside: bool) -> None:
    slots, counted = Bulkhead(max_concurrent=100), Counter()
    around, inside = ((slots, counted), ()) if outside else ((), (slots, counted))
    _, pipeline = hedged(world, Fallback("instead"), LIMITS, *around, inside=inside)
    world.together(pipeline, *hanging(20, takes(20)))
    assert slots.in_use == 0
    assert set(counted.given.values()) == {1}
    assert len(counted.given) == counted.taken > 20
    assert pipeline.settle_errors == 0


class Counter:
    """A policy that counts how often each thing that it gave out comes back."""

    def __init__(self) -> None:
        self.taken = 0
        self.given: dict[int, int] = {}

    def run(self, call: Any, inner: Any) -> Any:
        self.taken += 1
        call.held.append((self, self.taken))
        return inner(call)

    def settle(self, token: int, *ended: Any) -> None:
        self.given[token] = self.given.get(token, 0) + 1


def test_the_error_of_a_hedged_call_that_was_cut(world: World) -> None:
    seen: list[Exception] = []
    _, pipeline = hedged(world, Fallback(seen.append, on=DeadlineExceeded), Noting(seen), LIMITS)
    world.together(pipeline, *hanging(15), (1.5, HANGS))
    cut = [error for error in seen if isinstance(error, DeadlineExceeded)]
    assert {(error.policy, error.reason) for error in cut} == {("breaker", "stall")}
    assert len(cut) == 15


class Noting:
    def __init__(self, seen: list[Exception]) -> None:
        self.seen = seen

    async def run(self, call: Any, inner: Any) -> Any:
        try:
            return await inner(call)
        except Exception as error:
            self.seen.append(error)
            raise


@only_awaited
def test_a_hedged_call_through_targets_is_answered(world: World) -> None:
    circuit = breaker()
    target = Target("only", Timeout(total=20), Hedge(delay=0.5))
    pipeline = learnt(world, Fallback("instead"), LIMITS, circuit, Failover(target))
    ends = world.together(pipeline, *hanging())
    assert circuit.reason == "stall"
    assert {end.value for end in ends} == {"instead"}
    assert max(waited(ends)) <= 1.51


def test_hedges_that_answer_do_not_hang(world: World) -> None:
    """The first attempt hangs, the second one answers: that is what hedges are for."""
    circuit, pipeline = hedged(world, Fallback("instead"), LIMITS, hedge=Hedge(delay=0.5, budget=RetryBudget(reserve=30.0)))
    ends = world.together(pipeline, *[(number * 0.1, HANGS, takes(0.1)) for number in range(40)])
    assert {end.value for end in ends} == {"ok"}
    assert circuit.current_state == "closed"


@only_in_threads
def test_a_feature_answers_for_a_hedged_call_of_a_thread(world: World) -> None:
    resilience = Resilience(clock=world.clock)
    circuit = breaker()
    search = resilience.dependency("search", LIMITS, circuit, Hedge(delay=0.5))
    use = resilience.feature("search", needs=[search], fallback="nothing")(search.call_sync)
    pipeline = learnt(world, Asking(use))
    ends = world.together(pipeline, *hanging())
    assert circuit.reason == "stall"
    assert {end.value for end in ends} == {"nothing"}
    assert max(waited(ends)) <= 1.51


class Asking:
    def __init__(self, use: Any) -> None:
        self.use = use

    async def run(self, call: Any, inner: Any) -> Any:
        return self.use(call.fn, *call.args)


def test_a_hedged_call_of_another_thread_is_let_go_in_real_time() -> None:
    circuit = CircuitBreaker(stall_after=0.1, stall_factor=1)
    pipeline = Pipeline(Fallback("instead"), LIMITS, circuit, Hedge(delay=0.02))
    for _ in range(25):
        pipeline.call_sync(int)
    over = threading.Event()
    ends: list[Any] = []
    threads = [threading.Thread(target=lambda: ends.append(pipeline.call_sync(over.wait, 30))) for _ in range(8)]
    for thread in threads:
        thread.start()
    over.wait(0.3)  # until they have waited long enough
    assert pipeline.call_sync(int) == "instead"
    for thread in threads:
        thread.join(5)
    assert ends == ["instead"] * 8
    over.set()
    assert not circuit.busy


def test_a_retry_of_what_was_cut_runs_to_its_own_end(world: World) -> None:
    again = Retry(on=DeadlineExceeded, attempts=2, budget=RetryBudget(reserve=30.0), backoff=Constant(0.0, jitter="none"))
    pipeline = learnt(world, Fallback("instead"), LIMITS, breaker(), again, Hedge(delay=2))
    ends = world.together(pipeline, *[(number * 0.1, HANGS, takes(0.5, "again")) for number in range(15)], (1.5, "late"))
    assert [event.reason for event in world.listener.of(CircuitChanged) if event.new == "open"] == ["stall"]
    assert [end.value for end in ends] == ["again"] * 15 + ["instead"]
