"""What is different where nobody can be interrupted: plain functions, threads, and a thread whose event loop runs."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import trio

from resilient import (
    Bulkhead,
    BulkheadFull,
    CircuitBreaker,
    Deadline,
    DeadlineExceeded,
    Dependency,
    Pipeline,
    Retry,
    Timeout,
    current_deadline,
)
from resilient.call import Call
from resilient.context import deadline_scope
from resilient.core.backoff import Constant
from resilient.events import DeadlinePassed, RetryDecided
from resilient.protocols import Inner
from resilient.testing import FakeClock, RecordingListener


def on_a_running_loop(backend: str, act: Callable[[], Any]) -> Any:
    async def main() -> Any:
        return act()

    return asyncio.run(main()) if backend == "asyncio" else trio.run(main)


each_loop = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Never(FakeClock):
    """A clock on which nobody may block."""

    def sleep(self, seconds: float) -> None:  # type: ignore[override]
        raise AssertionError(f"slept for {seconds}")

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        raise AssertionError("waited")


@each_loop
def test_on_a_running_loop_a_full_bulkhead_rejects_at_once(backend: str) -> None:
    bulkhead = Bulkhead(max_concurrent=1)
    pipeline = Pipeline(bulkhead, clock=Never())

    def nested() -> None:
        with pytest.warns(RuntimeWarning, match="never waits"), pytest.raises(BulkheadFull) as caught:
            pipeline.call_sync(int)
        assert caught.value.reason == "full"

    on_a_running_loop(backend, lambda: pipeline.call_sync(nested))
    assert (bulkhead.in_use, bulkhead.queued) == (0, 0)


@each_loop
def test_on_a_running_loop_a_retry_is_immediate(backend: str) -> None:
    pipeline = Pipeline(Retry(on=ValueError, backoff=Constant(5, jitter="none")), clock=Never())
    asked = []

    def work() -> str:
        asked.append(1)
        if len(asked) < 3:
            raise ValueError
        return "ok"

    def use() -> str:
        with pytest.warns(RuntimeWarning, match="retries are not delayed"):
            return pipeline.call_sync(work)

    assert on_a_running_loop(backend, use) == "ok" and len(asked) == 3


@each_loop
def test_on_a_running_loop_a_retry_that_was_asked_to_wait_is_not_made(backend: str) -> None:
    class Pushback:
        def run(self, call: Call, inner: Inner) -> Any:
            call.retry_after = lambda result, error: 3.0  # type: ignore[method-assign]
            return inner(call)

    listener = RecordingListener()
    pipeline = Pipeline(Pushback(), Retry(on=ValueError), clock=Never())
    pipeline.outbox.add(listener)

    def use() -> None:
        with pytest.warns(RuntimeWarning), pytest.raises(ValueError, match="x"):
            pipeline.call_sync(int, "x")

    on_a_running_loop(backend, use)
    assert [event.result for event in listener.of(RetryDecided)] == ["pushback"]


def test_it_is_warned_of_once() -> None:
    pipeline = Pipeline(Retry(attempts=2, on=ValueError), clock=Never())

    def use() -> int:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(5):
                with pytest.raises(ValueError, match="x"):
                    pipeline.call_sync(int, "x")
        return len(caught)

    assert on_a_running_loop("asyncio", use) == 1


def test_in_a_thread_beside_a_running_loop_one_may_wait() -> None:
    clock = FakeClock()
    pipeline = Pipeline(Retry(attempts=2, on=ValueError, backoff=Constant(5, jitter="none")), clock=clock)

    async def main() -> None:
        with pytest.raises(ValueError, match="x"):
            await asyncio.to_thread(pipeline.call_sync, int, "x")

    asyncio.run(main())
    assert clock.now() == pytest.approx(1005)


def test_nothing_is_warned_of_where_nobody_has_to_wait() -> None:
    dependency = Dependency("d")
    assert on_a_running_loop("asyncio", lambda: dependency.call_sync(int, "5")) == 5


def test_a_late_value_counts_as_late_and_a_failure(clock: FakeClock, listener: RecordingListener) -> None:
    breaker = CircuitBreaker(fail_max=1)
    pipeline = Pipeline(Timeout(total=2), breaker, clock=clock)
    pipeline.outbox.add(listener)

    def slow() -> str:
        deadline = current_deadline()
        assert deadline is not None and deadline.remaining == pytest.approx(2)
        clock.advance(3)
        assert deadline.expired
        return "late"

    assert pipeline.call_sync(slow) == "late"
    assert [event.limit for event in listener.of(DeadlinePassed)] == ["late"]
    assert breaker.current_state == "open"
    assert pipeline.stats.snapshot().counts["failure"] == 1


def test_it_refuses_to_start_too_late(clock: FakeClock) -> None:
    pipeline = Pipeline(Timeout(total=2), clock=clock)
    with deadline_scope(Deadline.after(1, clock)):
        clock.advance(1.5)
        with pytest.raises(DeadlineExceeded):
            pipeline.call_sync(pytest.fail)


def test_a_policy_that_waits_for_something_else_is_told_so() -> None:
    class Sleepy:
        async def run(self, call: Call, inner: Inner) -> Any:
            await asyncio.sleep(0)
            return await inner(call)

    with pytest.raises(RuntimeError, match="a policy suspended"):
        Pipeline(Sleepy()).call_sync(int)


def test_a_thread_is_woken_by_another_one() -> None:
    """Real threads, real time: a waiter is handed the slot when it is given back, not when its wait is over."""
    bulkhead = Bulkhead(max_concurrent=1)
    pipeline = Pipeline(bulkhead)
    entered, leave, order = threading.Event(), threading.Event(), []

    def first() -> None:
        entered.set()
        leave.wait(5)
        order.append("first")

    def second() -> None:
        order.append("second")

    threads = [threading.Thread(target=pipeline.call_sync, args=(work,)) for work in (first, second)]
    threads[0].start()
    entered.wait(5)
    threads[1].start()
    while not bulkhead.queued:
        pass
    leave.set()
    for thread in threads:
        thread.join(4)  # less than the five seconds that it may wait
        assert not thread.is_alive()
    assert order == ["first", "second"]
