"""The stall rule: calls that hang are seen before any timeout fires, and cut where something can answer for them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import anyio
import pytest

from resilient import Bulkhead, CircuitBreaker, CircuitOpen, DeadlineExceeded, Fallback, Pipeline, Resilience, Retry, Timeout
from resilient.context import Cover
from resilient.core.backoff import Constant
from resilient.events import CircuitChanged, DeadlinePassed
from resilient.testing import FakeClock
from resilient.wheel import end_in

from .driver import START, Ended, World, at, only_awaited, takes

LIMITS = Timeout(total=30)
HANGS = takes(1000)


def breaker(**settings: Any) -> CircuitBreaker:
    return CircuitBreaker(random=lambda: 0.5, **settings)


def known(world: World, *policies: Any, took: float = 0.02, samples: int = 20, **settings: Any) -> Pipeline:
    """A pipeline that knows how long successes take; the last one ends now."""
    pipeline = world.pipeline(*policies, **settings)
    world.together(pipeline, *[(number * 0.01, takes(took)) for number in range(samples)])
    world.listener.clear()
    return pipeline


def hanging(count: int = 20, every: float = 0.1) -> list[tuple[float, Any]]:
    return [(number * every, HANGS) for number in range(count)]


def seconds(ends: list[Ended]) -> list[float]:
    return [round(end.at, 3) for end in ends]


def tripped(world: World) -> list[tuple[str, float]]:
    return [(event.reason, round(event.at - START, 3)) for event in world.listener.of(CircuitChanged) if event.new == "open"]


@only_awaited
def test_calls_that_hang_trip_and_are_answered(world: World) -> None:
    """Ten a second: at 1.4 s the fifth call has waited more than a second. Those behind it are cut as they come of age."""
    pipeline = known(world, Fallback("instead"), LIMITS, breaker())
    began = world.now
    ends = world.together(pipeline, *hanging(20, 0.1))
    assert [end.value for end in ends] == ["instead"] * 20
    assert tripped(world) == [("stall", round(began + 1.5, 3))]
    waited = [round(end.at - number * 0.1, 2) for number, end in enumerate(ends)]
    assert max(waited) <= 1.51
    assert waited[5:15] == [pytest.approx(1.0, abs=0.02)] * 10  # in flight when it tripped, and cut in their turn
    assert waited[15:] == [0.0] * 5  # rejected
    assert {event.limit for event in world.listener.of(DeadlinePassed)} == {"stall"}


@only_awaited
def test_calls_that_nobody_answers_for_run_on_to_their_deadline(world: World) -> None:
    pipeline = known(world, LIMITS, breaker())
    ends = world.together(pipeline, *hanging(17, 0.1))
    assert tripped(world)[0][0] == "stall"
    assert seconds(ends)[:3] == [30.0, 30.1, 30.2]
    assert isinstance(ends[0].error, DeadlineExceeded) and ends[0].error.reason == "total"
    assert isinstance(ends[16].error, CircuitOpen) and ends[16].error.reason == "stall"


def test_threads_trip_it_too_and_are_never_interrupted(world: World) -> None:
    """A dependency that answers after 5 s all of a sudden: in threads as on an event loop later calls are spared."""
    circuit = breaker()
    pipeline = known(world, circuit)
    ends = world.together(pipeline, *[(number * 0.1, takes(5)) for number in range(17)])
    assert [end.value for end in ends[:15]] == ["ok"] * 15
    assert all(isinstance(end.error, CircuitOpen) for end in ends[15:])


@only_awaited
def test_the_error_of_a_call_that_was_cut(world: World) -> None:
    seen: list[Exception] = []

    def instead() -> str:
        return "instead"

    pipeline = known(world, Fallback(instead), Recorder(seen), LIMITS, breaker())
    world.together(pipeline, *hanging(16))
    cut = [error for error in seen if isinstance(error, DeadlineExceeded)]
    assert {(error.policy, error.reason) for error in cut} == {("breaker", "stall")}
    assert len(cut) == 15 and isinstance(seen[0], CircuitOpen)


class Recorder:
    """A policy that notes what passes it."""

    def __init__(self, seen: list[Exception]) -> None:
        self.seen = seen

    async def run(self, call: Any, inner: Any) -> Any:
        try:
            return await inner(call)
        except Exception as error:
            self.seen.append(error)
            raise


@only_awaited
def test_a_call_that_was_cut_is_not_tried_again(world: World) -> None:
    """The circuit is open for longer than the delay, so its fallback answers at once."""
    pipeline = known(world, Fallback("instead"), LIMITS, Retry(on=DeadlineExceeded, backoff=Constant(0.0, jitter="none")), breaker())
    ends = world.together(pipeline, *hanging(16))
    assert [end.value for end in ends] == ["instead"] * 16
    assert max(seconds(ends)) < 2.6


@pytest.mark.anyio
async def test_an_attempt_after_the_one_that_was_to_end_is_not_told_to_have_been_cut_for_it() -> None:
    seen: list[Exception] = []
    circuit = breaker()
    again = Retry(on=KeyError, attempts=2, backoff=Constant(0.0, jitter="none"))
    pipeline = Pipeline(Fallback("instead"), Recorder(seen), circuit, again, Timeout(total=0.1))
    calls = 0

    async def work() -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            await anyio.sleep(60)
        await anyio.sleep(0)
        (call,) = circuit._core.flights
        end_in(call, 0.05)
        await anyio.sleep(0.01)
        raise KeyError

    assert await pipeline.call(work) == "instead"
    (error,) = seen
    assert isinstance(error, DeadlineExceeded) and (error.policy, error.reason) == ("timeout", "total")


# -- what does not trip ------------------------------------------------------------------------------------------------


def test_a_success_within_a_second_is_enough(world: World) -> None:
    circuit = breaker()
    pipeline = known(world, circuit)
    quick = [(number * 0.5, takes(0.02)) for number in range(20)]
    world.together(pipeline, *[(number * 0.1, takes(9)) for number in range(20)], *quick)
    assert circuit.current_state == "closed"


def test_four_calls_that_hang_are_too_few(world: World) -> None:
    circuit = breaker()
    pipeline = known(world, circuit)
    world.together(pipeline, *[(0.0, takes(9))] * 4, *[(5 + number, takes(0.01, ValueError)) for number in range(3)])
    assert circuit.current_state == "closed"


def test_nineteen_successes_are_too_few_to_know(world: World) -> None:
    circuit = breaker()
    pipeline = known(world, circuit, samples=19)
    world.together(pipeline, *[(number * 0.1, takes(9)) for number in range(20)])
    assert circuit.current_state == "closed"


@pytest.mark.parametrize(("took", "state"), [(0.3, "closed"), (0.15, "open")])
def test_hanging_is_ten_times_as_long_as_usual(world: World, took: float, state: str) -> None:
    """After 2.5 s it hangs where 0.15 s are usual, not where 0.3 s are."""
    circuit = breaker()
    pipeline = known(world, circuit, took=took)
    states: list[str] = []
    world.together(pipeline, *[(0.0, takes(4))] * 5, (2.5, takes(0)), at(2.6, lambda: states.append(circuit.current_state)))
    assert states == [state]


@pytest.mark.slow
@only_awaited
def test_a_dependency_whose_answers_take_long_never_trips_by_it(world: World) -> None:
    """A language model: 5 to 20 s an answer, two calls a second, for ten minutes, on default settings but for the time."""
    circuit = CircuitBreaker()
    pipeline = world.pipeline(Fallback("instead"), Timeout(total=60), Retry(), Bulkhead(), circuit)
    calls = [(number * 0.5, takes(5 + (number * 7919 % 1500) / 100)) for number in range(1200)]
    ends = world.together(pipeline, *calls)
    assert {end.value for end in ends} == {"ok"}
    assert world.listener.of(CircuitChanged) == []


@only_awaited
def test_pauses_in_the_traffic_of_such_a_dependency_do_not_trip_either(world: World) -> None:
    """Bursts of eight with nobody in between: for seconds there is no success, and five calls are always old."""
    circuit = CircuitBreaker()
    pipeline = world.pipeline(Timeout(total=60), circuit)
    calls = [(burst * 30 + number * 0.2, takes(5 + number * 2)) for burst in range(20) for number in range(8)]
    assert {end.value for end in world.together(pipeline, *calls)} == {"ok"}
    assert world.listener.of(CircuitChanged) == []


def test_it_can_be_switched_off(world: World) -> None:
    for circuit in (breaker(stall_calls=None), breaker(fail_max=1000), breaker(disabled=True)):
        pipeline = known(world, circuit)
        world.together(pipeline, *[(number * 0.1, takes(9)) for number in range(20)])
        assert circuit.current_state == "closed"


@only_awaited
def test_shadow_mode_reports_and_cuts_nothing(world: World) -> None:
    pipeline = known(world, Fallback("instead"), Timeout(total=5), breaker(enforce=False))
    ends = world.together(pipeline, *hanging(20))
    assert tripped(world)[0][0] == "stall"
    assert {round(end.at - number * 0.1, 2) for number, end in enumerate(ends)} == {5.0}


@only_awaited
def test_calls_from_before_the_circuit_closed_again_do_not_count(world: World) -> None:
    """Twenty run on to their deadline; the circuit is closed by hand meanwhile, and seldom used."""
    circuit = breaker()
    pipeline = known(world, Timeout(total=100), circuit)
    arrivals = [(number * 0.1, HANGS) for number in range(15)]
    later = [(5.0 + number * 3, takes(0.02)) for number in range(10)]
    world.together(pipeline, *arrivals, (2.0, takes(0)), at(4, circuit.close), *later)
    assert [reason for reason, _ in tripped(world)] == ["stall"]


# -- who looks ------------------------------------------------------------------------------------------------------


@only_awaited
def test_callers_who_queue_for_a_slot_look_too(world: World) -> None:
    """Every slot is taken by a call that hangs, so that nobody comes to the breaker any more."""
    pipeline = known(world, Fallback("instead"), LIMITS, Bulkhead(max_concurrent=8, max_wait=20), breaker())
    ends = world.together(pipeline, *hanging(24, 0.1))
    assert {end.value for end in ends} == {"instead"}
    assert max(end.at - number * 0.1 for number, end in enumerate(ends)) < 2.0


def test_listeners_do_not_keep_it_from_looking(world: World) -> None:
    circuit = breaker(listeners=[Deaf()])
    pipeline = known(world, circuit)
    world.together(pipeline, *[(number * 0.1, takes(5)) for number in range(17)])
    assert [reason for reason, _ in tripped(world)] == ["stall"]


class Deaf:
    def before_call(self, *args: Any, **kwargs: Any) -> None: ...

    success = failure = state_change = before_call


# -- features ---------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("fallback", [True, False])
async def test_a_feature_with_a_fallback_answers_for_its_calls(clock: FakeClock, fallback: bool) -> None:
    resilience = Resilience(clock=clock)
    search = resilience.dependency("search", LIMITS, breaker())
    hangs = False

    async def ask() -> str:
        await anyio.sleep(1000 if hangs else 0.02)
        return "found"

    async def use() -> str:
        return await search.call(ask)

    feature = resilience.feature("search", needs=[search], **({"fallback": "nothing"} if fallback else {}))(use)
    waited: list[float] = []

    async def timed() -> None:
        began = clock.now()
        try:
            await feature()
        except DeadlineExceeded:
            assert not fallback
        except CircuitOpen:
            assert not fallback
        waited.append(clock.now() - began)

    async with anyio.create_task_group() as group:
        for _ in range(25):
            group.start_soon(timed)
    hangs = True
    async with anyio.create_task_group() as group:
        for _ in range(16):
            group.start_soon(timed)
            await anyio.sleep(0.1)
    assert search.state == "open"
    assert (max(waited) < 2) is fallback


@pytest.mark.anyio
async def test_a_task_that_outlives_its_feature_is_not_cut(clock: FakeClock) -> None:
    """It was started inside, and nobody answers for it once the feature has."""
    resilience = Resilience(clock=clock)
    search = resilience.dependency("search", LIMITS, breaker())
    ends: list[str] = []

    async def ask(takes: float) -> str:
        await anyio.sleep(takes)
        return "found"

    async def background() -> None:
        await anyio.sleep(1)
        ends.append(await search.call(ask, 5))

    async with anyio.create_task_group() as group:

        @resilience.feature("search", needs=[search], fallback="nothing")
        async def refresh() -> str:
            group.start_soon(background)
            return "at once"

        for _ in range(20):
            await search.call(ask, 0.02)
        for _ in range(15):
            await refresh()
            await anyio.sleep(0.1)
        await anyio.sleep(2)
        with pytest.raises(CircuitOpen):
            await search.call(ask, 0.02)
    assert ends == ["found"] * 15


def test_a_cover_is_up_until_it_is_taken_down() -> None:
    assert Cover().up


# -- loops and threads ------------------------------------------------------------------------------------------------


def test_a_call_on_another_loop_is_cut_there() -> None:
    """The arrival that sees the stall is in another thread than the calls that hang. Real time."""
    circuit = CircuitBreaker(stall_after=0.2, stall_factor=1)
    pipeline = Pipeline(Fallback("instead"), LIMITS, circuit)
    for _ in range(20):
        pipeline.call_sync(int)
    hung, ends = threading.Event(), []

    async def hang() -> None:
        await asyncio.sleep(60)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(pipeline.call(hang)) for _ in range(8)]
            await asyncio.sleep(0.3)
            hung.set()
        ends.extend(task.result() for task in tasks)

    loop = threading.Thread(target=asyncio.run, args=(main(),))
    loop.start()
    assert hung.wait(10)
    assert pipeline.call_sync(int) == "instead"
    loop.join(10)
    assert not loop.is_alive()
    assert circuit.reason == "stall" and ends == ["instead"] * 8


def test_calls_of_a_loop_that_is_gone_are_left_alone() -> None:
    circuit = CircuitBreaker(stall_after=0.05, stall_factor=1)
    pipeline = Pipeline(Fallback("instead"), LIMITS, circuit)
    for _ in range(20):
        pipeline.call_sync(int)
    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(pipeline.call(asyncio.sleep, 60)) for _ in range(8)]
    loop.run_until_complete(asyncio.sleep(0.1))
    gone = {task: task.get_coro() for task in tasks}
    loop.close()
    assert pipeline.call_sync(int) == "instead"
    assert circuit.reason == "stall"
    for task, coroutine in gone.items():
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # they never end, and that is meant
        coroutine.close()  # type: ignore[union-attr]


def test_in_flight_is_nobody_once_all_have_ended(world: World) -> None:
    circuit = breaker(stall_calls=None)
    pipeline = known(world, circuit)
    world.together(pipeline, *[(number * 0.1, takes(2, ValueError if number % 3 else "ok")) for number in range(17)])
    assert not circuit.busy
