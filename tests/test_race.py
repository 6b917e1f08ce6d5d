"""Calls that run beside each other: who is cancelled how, what reaches whom, and what is left over. Their rules: Hedge."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import math
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio

from resilient import Bulkhead, CircuitBreaker, Hedge, Pipeline, Timeout, current_deadline
from resilient.clock import SystemClock
from resilient.race import ThreadRace
from resilient.race.tasks import _LOSERS
from resilient.runtime import drive
from resilient.testing import FakeClock
from resilient.threads import Threads

NAME: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")
asyncio_only = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)


def hedged(clock: Any, *inside: Any, **settings: Any) -> tuple[Pipeline, Bulkhead]:
    bulkhead = Bulkhead()
    return Pipeline(Hedge(**{"delay": 0.1, **settings}), bulkhead, *inside, clock=clock), bulkhead


class Turns:
    """Each attempt does what its turn says."""

    def __init__(self, *turns: Any) -> None:
        self.turns = list(turns)
        self.taken = 0

    async def __call__(self) -> Any:
        turn = self.turns[min(self.taken, len(self.turns) - 1)]
        self.taken += 1
        return await turn()


async def forever() -> None:
    await anyio.sleep_forever()


async def quick() -> str:
    return "quick"


class GroupError(ExceptionGroup):
    """A group that the program itself raises."""


async def fails() -> None:
    await anyio.sleep(0.15)
    raise KeyError("mine")


async def group_fails() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(fails)
        group.start_soon(forever)


@pytest.mark.anyio
async def test_ground_23_exceptiongroup_never_escapes_hedging(anyio_backend: Any, clock: FakeClock) -> None:
    pipeline, bulkhead = hedged(clock)
    with pytest.raises(KeyError, match="mine") as raised:
        await pipeline.call(fails)
    assert raised.value.__cause__ is None and raised.value.__context__ is None
    with pytest.raises(ExceptionGroup) as group:
        await pipeline.call(group_fails)  # the program's own is handed on as it is
    assert [type(error) for error in group.value.exceptions] == [KeyError]
    assert bulkhead.in_use == 0


@pytest.mark.anyio
async def test_ground_23_with_task_groups_and_scopes_around_and_inside(anyio_backend: Any, clock: FakeClock) -> None:
    pipeline, bulkhead = hedged(clock)
    answers = []

    async def inside() -> str:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 0.3 if turns.taken == 1 else 0.05)
        with anyio.move_on_after(0.01):
            await anyio.sleep(5)
        return "answer"

    turns = Turns(inside)

    async def one() -> None:
        with anyio.fail_after(1):
            answers.append(await pipeline.call(turns))

    async with anyio.create_task_group() as group:
        group.start_soon(one)
    assert answers == ["answer"] and clock.now() == pytest.approx(1000.16)
    await anyio.sleep(1)
    assert bulkhead.in_use == 0


@pytest.mark.anyio
async def test_the_callers_context_is_seen_and_left_alone(anyio_backend: Any, clock: FakeClock) -> None:
    pipeline = Pipeline(Timeout(total=5), Hedge(delay=0.1), clock=clock)
    seen = []

    async def look() -> str:
        deadline = current_deadline()
        assert deadline is not None
        seen.append((NAME.get(), round(deadline.remaining, 3)))
        NAME.set("attempt")
        await anyio.sleep(0.2)
        return NAME.get()

    NAME.set("caller")
    assert await pipeline.call(look) == "attempt"
    assert (NAME.get(), current_deadline()) == ("caller", None)
    assert seen == [("caller", 5.0), ("caller", 4.9)]


@pytest.mark.anyio
async def test_a_loser_that_will_not_be_cancelled_is_waited_for_by_nobody(anyio_backend: Any, clock: FakeClock) -> None:
    async def stubborn() -> str:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(5)
        return "late"

    pipeline, bulkhead = hedged(clock)
    assert await pipeline.call(Turns(stubborn, quick)) == "quick"
    assert (clock.now(), bulkhead.in_use) == (pytest.approx(1000.1), 1)
    await anyio.sleep(6)
    assert bulkhead.in_use == 0
    assert pipeline.stats.snapshot().counts == {"success": 1, "failure": 0, "ignored": 0}


@pytest.mark.anyio
async def test_a_loser_that_fails_while_it_is_cancelled_is_nobodys_business(anyio_backend: Any, clock: FakeClock) -> None:
    told: list[Any] = []
    if anyio_backend[0] == "asyncio":
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))

    async def breaks() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("in its clean-up")

    circuit = CircuitBreaker(1)
    pipeline, bulkhead = hedged(clock, circuit)
    assert await pipeline.call(Turns(breaks, quick)) == "quick"
    await anyio.sleep(0.01)
    gc.collect()
    assert (told, bulkhead.in_use, circuit.current_state) == ([], 0, "closed")


@pytest.mark.anyio
async def test_a_trial_that_lost_gives_its_place_back(anyio_backend: Any, clock: FakeClock) -> None:
    circuit = CircuitBreaker(1, success_threshold=6)
    circuit.half_open()
    pipeline, _ = hedged(clock, circuit)
    for _ in range(5):
        assert await pipeline.call(Turns(forever, quick)) == "quick"
        await anyio.sleep(0.01)
        assert circuit._core.trials_out == 0


@pytest.mark.anyio
async def test_a_loser_that_cannot_be_closed(anyio_backend: Any, clock: FakeClock) -> None:
    pipeline, bulkhead = hedged(clock)
    turn = iter(range(2))

    @pipeline
    async def items() -> AsyncIterator[str]:
        mine = next(turn)
        try:
            if mine == 0:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.3)
            yield f"item {mine}"
        finally:
            if mine == 0:
                raise ValueError("in its clean-up")

    assert [item async for item in items()] == ["item 1"]
    await anyio.sleep(1)
    assert bulkhead.in_use == 0


class Suspension:
    """An await that nobody ever resumes."""

    def __await__(self) -> Iterator[None]:
        yield


def test_a_loser_whose_loop_is_gone_gives_back_what_it_holds() -> None:
    """Its coroutine is closed where nothing can be awaited any more."""
    pipeline = Pipeline(bulkhead := Bulkhead())
    waiting: list[Any] = []

    class Later:
        """Threads that never get to it."""

        def start(self, job: Any) -> bool:
            return True

    async def inner(call: Any) -> None:
        await bulkhead.run(call, suspended)

    async def suspended(call: Any) -> None:
        await Suspension()

    race = ThreadRace(pipeline.sync_runtime, Later(), waiting.append)  # type: ignore[arg-type]
    entrant = race.enter(pipeline.begin(int, (), {}, sync=True), inner)
    assert entrant is not None
    coroutine = entrant.run(inner)
    coroutine.send(None)
    assert bulkhead.in_use == 1
    race.close()
    coroutine.close()
    assert bulkhead.in_use == 0


@pytest.mark.anyio
async def test_a_generators_loser_is_closed(anyio_backend: Any, clock: FakeClock) -> None:
    pipeline, bulkhead = hedged(clock)
    closed = []
    turn = 0

    @pipeline
    async def items() -> AsyncIterator[str]:
        nonlocal turn
        turn += 1
        mine = turn
        try:
            if mine == 1:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.3)  # it comes to its first item, too late
            yield f"first of {mine}"
            yield "second"
        finally:
            closed.append(mine)

    assert [item async for item in items()] == ["first of 2", "second"]
    await anyio.sleep(1)
    assert (closed, bulkhead.in_use) == ([2, 1], 0)


# -- the caller leaves ------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_callers_cancellation_reaches_all(anyio_backend: Any, clock: FakeClock) -> None:
    reached = []

    async def attempt() -> None:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            reached.append(clock.now())
            raise

    pipeline, bulkhead = hedged(clock, max_hedges=3)
    with anyio.move_on_after(0.25) as scope:
        await pipeline.call(attempt)
    assert scope.cancelled_caught
    assert reached == [pytest.approx(1000.25)] * 3
    assert bulkhead.in_use == 0
    assert pipeline.stats.snapshot().counts == {"success": 0, "failure": 0, "ignored": 1}


@pytest.mark.anyio
@asyncio_only
@pytest.mark.parametrize("how", ["wait_for", "timeout", "cancel"])
async def test_the_native_kinds_too(anyio_backend: Any, clock: FakeClock, how: str) -> None:
    pipeline, bulkhead = hedged(clock)
    turns = Turns(forever)
    if how == "wait_for":
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pipeline.call(turns), 0.25)
    elif how == "timeout":
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.25):
                await pipeline.call(turns)
    else:
        task = asyncio.ensure_future(pipeline.call(turns))
        await asyncio.sleep(0.25)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (turns.taken, bulkhead.in_use) == (2, 0)
    current = asyncio.current_task()
    assert current is not None and current.cancelling() == 0


@pytest.mark.anyio
@asyncio_only
async def test_a_second_native_cancellation_lets_the_caller_go(anyio_backend: Any, clock: FakeClock) -> None:
    async def stubborn() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(5)

    pipeline, bulkhead = hedged(clock)
    task = asyncio.ensure_future(pipeline.call(stubborn))
    await asyncio.sleep(0.2)
    task.cancel()
    await asyncio.sleep(0.2)
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])
    assert (task.cancelled(), clock.now(), bulkhead.in_use) == (True, pytest.approx(1000.4), 2)
    await asyncio.sleep(5)
    assert bulkhead.in_use == 0


@pytest.mark.anyio
@asyncio_only
async def test_an_attempt_that_somebody_else_cancels_is_a_cancelled_call(anyio_backend: Any, clock: FakeClock) -> None:
    """As without a hedge: the function may cancel its own task, or a server may cancel all there are."""

    async def itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    pipeline, bulkhead = hedged(clock)
    call = asyncio.ensure_future(pipeline.call(itself))
    await asyncio.wait([call])
    assert call.cancelled() and bulkhead.in_use == 0

    before = asyncio.all_tasks()
    call = asyncio.ensure_future(pipeline.call(forever))
    while not (attempts := asyncio.all_tasks() - before - {call}):
        await asyncio.sleep(0)
    for attempt in attempts:
        attempt.cancel()  # before it has even begun
    await asyncio.wait([call])
    assert call.cancelled() and bulkhead.in_use == 0


class Interrupted(SystemClock):
    """Somebody presses Ctrl-C while a synchronous caller waits."""

    @staticmethod
    def wait(event: threading.Event, seconds: float | None) -> bool:
        raise KeyboardInterrupt


def test_an_interrupted_thread_leaves_at_once() -> None:
    pipeline, bulkhead = hedged(Interrupted())
    let_go = threading.Event()
    with pytest.raises(KeyboardInterrupt):
        pipeline.call_sync(let_go.wait, 10)
    assert bulkhead.in_use == 1, "the attempt still runs"
    let_go.set()
    for _ in range(5000):
        if not bulkhead.in_use:
            return
        threading.Event().wait(0.001)
    raise AssertionError("the attempt holds its slot for ever")


# -- the end of everything --------------------------------------------------------------------------------------------


class End(BaseException):
    """Neither an Exception nor a cancellation."""


@pytest.mark.parametrize("backend", ["asyncio", "trio", "threads"])
@pytest.mark.parametrize("error", [SystemExit, End, KeyboardInterrupt])
def test_what_is_no_exception_ends_the_race_and_reaches_the_caller(backend: str, error: type[BaseException]) -> None:
    pipeline = Pipeline(Hedge(delay=0.001), bulkhead := Bulkhead())
    released = threading.Event()
    turn = iter(range(2))

    async def attempt() -> None:
        if next(turn) == 0:
            await anyio.sleep_forever()
        raise error

    def blocking() -> None:
        if next(turn) == 0:
            released.wait(10)
        raise error

    async def main() -> None:
        with pytest.raises(error):
            await pipeline.call(attempt)

    if backend == "threads":
        with pytest.raises(error):
            pipeline.call_sync(blocking)
        released.set()
    else:
        anyio.run(main, backend=backend)
        assert bulkhead.in_use == 0


def test_a_call_that_is_ended_before_it_waits_does_not_wait() -> None:
    """From another thread it may come between two looks at the clock: the wait that follows must not miss it."""
    pipeline = Pipeline()
    race = ThreadRace(pipeline.sync_runtime, Threads(), drive)
    race.cancel()
    ended: list[Any] = []
    waiting = threading.Thread(target=lambda: ended.append(drive(race.next(math.inf))), daemon=True)
    waiting.start()
    waiting.join(5)
    assert ended == [None]
    again = threading.Thread(target=lambda: ended.append(drive(race.next(math.inf))), daemon=True)
    again.start()
    again.join(0.05)
    assert again.is_alive(), "it is told once"
    race.cancel()
    again.join(5)
    assert ended == [None, None]


def test_no_loser_keeps_a_loop() -> None:
    pipeline = Pipeline(Hedge(delay=0.001), bulkhead := Bulkhead())

    async def stubborn() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.05)

    async def main() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        assert await pipeline.call(Turns(stubborn, quick)) == "quick"

    loops: list[weakref.ref[Any]] = []
    asyncio.run(main())
    assert bulkhead.in_use == 0, "asyncio.run cancels what is left, and that gives back what it holds"
    trio.run(lambda: pipeline.call(Turns(stubborn, quick)))
    assert bulkhead.in_use == 0

    gc.collect()
    assert len(_LOSERS) == 0
    assert [ref() for ref in loops] == [None]


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Mine(KeyError):
    """An error that can be referred to weakly."""


@pytest.mark.parametrize("case", ["first fails", "both fail", "a failure loses", "a failed answer loses"])
def test_pitfall_10_nothing_pins_an_error_or_the_callers_locals(case: str, no_collector: None) -> None:
    clock = FakeClock()
    seen: list[weakref.ref[Any]] = []

    class Large:
        """A local of the caller's, or an answer."""

    async def breaks() -> Any:
        await anyio.sleep(0.05 if case == "first fails" else 0.2)
        if case == "a failed answer loses":
            seen.append(weakref.ref(answer := Large()))
            return answer
        seen.append(weakref.ref(error := Mine()))
        try:
            raise error
        finally:
            del error

    async def later() -> str:
        await anyio.sleep(0.3)
        return "good"

    def classify(result: Any, error: BaseException | None) -> Any:
        from resilient import Outcome

        return Outcome.FAILURE if isinstance(result, Large) else None

    pipeline = Pipeline(Hedge(delay=0.1), clock=clock, classify=classify)

    async def caller() -> None:
        large = Large()
        seen.append(weakref.ref(large))
        with contextlib.suppress(Mine):
            await pipeline.call(Turns(breaks, later if "loses" in case else breaks))

    async def main() -> None:
        await caller()
        await asyncio.sleep(1)
        assert [ref() for ref in seen] == [None] * len(seen), [gc.get_referrers(ref()) for ref in seen if ref()]

    with asyncio.Runner(loop_factory=clock.loop) as runner:
        runner.run(main())
    assert len(seen) >= 2
