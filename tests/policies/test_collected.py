"""What the garbage collector closes while one of our locks is held, on the very thread that holds it."""

from __future__ import annotations

import _thread
import asyncio
import gc
import inspect
import sys
import threading
import time
from collections.abc import Coroutine, Generator, Iterator
from contextlib import ExitStack, nullcontext
from typing import Any

import pybreaker
import pytest

from resilient import Bulkhead, CircuitBreaker, CircuitOpen, Pipeline, Timeout
from resilient.context import Deadline, covered, deadline_scope
from resilient.testing import FakeClock

from ..collecting import Cycle, Where, collect, entering

pytestmark = pytest.mark.usefixtures("by_hand_alone")


def acquired(lock: Any) -> Where:
    """As soon as the lock is taken."""
    return lambda frame, event, argument: event == "c_return" and argument == lock.acquire


def calling(breaker: CircuitBreaker) -> Generator[int]:
    with breaker.calling():
        yield 1


def calling_deeper(breaker: CircuitBreaker) -> Generator[int]:
    with ExitStack() as stack:
        stack.enter_context(breaker.calling())
        yield from (1, 2)


def drop(generator: Generator[Any]) -> None:
    next(generator)
    Cycle(generator)


def failing() -> None:
    raise KeyError


@pytest.mark.parametrize("dropped", [calling, calling_deeper])
@pytest.mark.parametrize(
    ("work", "where"),
    [
        (int, lambda breaker: entering("resilient.core.breaker", "record_success")),
        (int, lambda breaker: acquired(breaker._lock)),
        (failing, lambda breaker: entering("resilient.core.breaker", "record")),
        (failing, lambda breaker: entering("resilient.core.health", "_lengthen_row")),
    ],
    ids=["record_success", "acquired", "record", "inside record"],
)
def test_a_block_that_is_collected_inside_the_breakers_lock(dropped: Any, work: Any, where: Any) -> None:
    breaker = CircuitBreaker(fail_max=100)
    pipeline = Pipeline(breaker)
    drop(dropped(breaker))
    collect(lambda: pipeline.call_sync(work), where(breaker))
    assert breaker.fail_counter == (work is failing)
    with breaker.calling():
        pass  # and here what was left is settled
    counts = breaker._own().stats.snapshot().counts
    assert (counts["success"], counts["failure"], counts["ignored"]) == (1, 0, 1)


@pytest.mark.parametrize("dropped", [calling, calling_deeper])
def test_a_trial_that_is_collected_inside_the_lock_gives_its_place_to_another_call(dropped: Any, clock: FakeClock) -> None:
    breaker = CircuitBreaker(fail_max=1, reset_timeout=1, success_threshold=1)
    pipeline = Pipeline(breaker, clock=clock)
    breaker.half_open()
    drop(dropped(breaker))
    refused = collect(lambda: pipeline.call_sync(int), entering("resilient.core.breaker", "admit"))
    assert isinstance(refused, CircuitOpen), "the only trial was out when it was asked for"
    assert pipeline.call_sync(int) == 0
    assert breaker.current_state == "closed"


def test_a_block_that_is_closed_by_hand_settles_at_once() -> None:
    breaker = CircuitBreaker(fail_max=1, success_threshold=1)
    breaker.half_open()
    generator = calling(breaker)
    next(generator)
    generator.close()
    assert Pipeline(breaker).call_sync(int) == 0
    assert breaker.current_state == "closed" and not breaker._own().abandoned


def test_the_source_of_chance_is_asked_outside_the_lock() -> None:
    """It is other people's code: here it ends a block of the same breaker, and looks at its state."""
    generators: list[Generator[int]] = []
    held: list[bool] = []

    def chance() -> float:
        held.append(breaker._lock.locked())
        while generators:
            generators.pop().close()
        return 0.5

    breaker = CircuitBreaker(outage_failures=1, random=chance)
    pipeline = Pipeline(breaker)
    generators.append(calling(breaker))
    next(generators[0])
    with pytest.raises(KeyError):
        pipeline.call_sync(failing)
    breaker.trip()
    assert held and not any(held) and breaker.current_state == "open"


def test_a_generator_that_is_collected_while_a_storage_is_told_of_the_state() -> None:
    """The mirror reads the state under a lock of its own, which another transition would take."""
    storage = pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)
    breaker = CircuitBreaker(fail_max=1, success_threshold=1, state_storage=storage)
    breaker.half_open()
    drop(guarded(Pipeline(breaker)))  # a trial that went well: settled now, it would close the circuit
    pipeline = Pipeline(breaker)
    collect(breaker.trip, entering("resilient.policies.breaker", "current_state"))
    assert storage.state == breaker.current_state == "open"
    with pytest.raises(CircuitOpen):
        pipeline.call_sync(int)


# -- the same for whole pipelines ---------------------------------------------------------------------------------


def guarded(pipeline: Pipeline) -> Any:
    """A generator under the pipeline, in the middle of its items."""

    @pipeline
    def items() -> Iterator[int]:
        yield from (1, 2)

    return items()


def pending(pipeline: Pipeline) -> Coroutine[Any, Any, Any]:
    """A coroutine that waits for something which never comes: what is left of an event loop that was closed."""

    class Never:
        def __await__(self) -> Generator[None]:
            yield

    async def wait() -> None:
        await Never()

    async def caller() -> None:
        await pipeline.call(wait)

    return caller()


@pytest.mark.parametrize("dropped", [guarded, pending])
@pytest.mark.parametrize("lock", ["bulkhead", "breaker"])
def test_a_call_that_is_collected_inside_a_lock_is_settled_by_the_next_one(dropped: Any, lock: str) -> None:
    bulkhead, breaker = Bulkhead(max_concurrent=2, queue=0), CircuitBreaker(fail_max=100)
    pipeline = Pipeline(bulkhead, breaker)
    waiting = dropped(pipeline)
    if dropped is pending:
        waiting.send(None)
    else:
        next(waiting)
    Cycle(waiting)
    del waiting
    assert bulkhead.in_use == 1
    collect(lambda: pipeline.call_sync(int), acquired({"bulkhead": bulkhead._lock, "breaker": breaker._lock}[lock]))
    assert bulkhead.in_use == 1, "settled by the next call, whoever makes it"
    assert pipeline.call_sync(lambda: bulkhead.in_use) == 1
    assert bulkhead.in_use == 0
    counts = pipeline.stats.snapshot().counts
    assert (counts["success"], counts["ignored"]) == ((2, 1) if dropped is pending else (3, 0))


@pytest.mark.parametrize("dropped", [guarded, pending])
def test_what_is_collected_elsewhere_is_settled_at_once(dropped: Any) -> None:
    bulkhead = Bulkhead(max_concurrent=1)
    waiting = dropped(Pipeline(bulkhead))
    if dropped is pending:
        waiting.send(None)
    else:
        next(waiting)
    Cycle(waiting)
    del waiting
    assert bulkhead.in_use == 1
    gc.collect()
    assert bulkhead.in_use == 0


@pytest.mark.parametrize("timed", [False, True])
def test_a_task_of_a_closed_event_loop_gives_its_slot_back(timed: bool) -> None:
    bulkhead = Bulkhead(max_concurrent=1)
    pipeline = Pipeline(bulkhead, Timeout(total=60)) if timed else Pipeline(bulkhead)
    loop = asyncio.new_event_loop()
    task = loop.create_task(pipeline.call(loop.create_future))
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is what this test is about
    loop.run_until_complete(asyncio.sleep(0))
    assert bulkhead.in_use == 1
    loop.close()
    del task, loop
    gc.collect()
    assert bulkhead.in_use == 0


@pytest.mark.parametrize("around", [nullcontext, covered, lambda: deadline_scope(Deadline.after(60))], ids=["alone", "covered", "deadline"])
def test_a_call_that_is_closed_in_another_context_is_no_failure(around: Any) -> None:
    """As the collector does with what is left of a task, in the context of whatever runs at that moment."""
    bulkhead, breaker, outer = Bulkhead(max_concurrent=1), CircuitBreaker(fail_max=1), CircuitBreaker(fail_max=1)
    inner = Pipeline(bulkhead, breaker, Timeout(total=60))
    loop = asyncio.new_event_loop()

    async def work() -> None:
        if around is covered:
            await covered(inner.call(loop.create_future))
        else:
            with around():
                await inner.call(loop.create_future)

    task = loop.create_task(Pipeline(outer).call(work))
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is what this test is about
    loop.run_until_complete(asyncio.sleep(0))
    assert bulkhead.in_use == 1
    task.get_coro().close()  # type: ignore[union-attr]
    loop.close()
    inner.call_sync(int)
    assert bulkhead.in_use == 0
    assert breaker.current_state == outer.current_state == "closed"
    assert inner.stats.snapshot().counts == {"success": 1, "failure": 0, "ignored": 1}


def test_a_call_is_closed_where_nothing_else_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of a program, say, or by a thread that runs nothing of Python's."""
    broken: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", broken.append)
    bulkhead, over = Bulkhead(max_concurrent=1), threading.Event()
    waiting = pending(Pipeline(bulkhead))
    waiting.send(None)

    def look() -> None:
        while not broken and inspect.getcoroutinestate(waiting) != inspect.CORO_CLOSED:
            time.sleep(0.001)
        over.set()

    _thread.start_new_thread(waiting.close, ())
    threading.Thread(target=look, daemon=True).start()
    assert over.wait(10)
    assert not broken
    assert bulkhead.in_use == 0
