"""Threads and an event loop share the same policies: no count is lost, no permit leaks. Real time, real threads."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import trio

from resilient import (
    AllTargetsFailed,
    Bulkhead,
    BulkheadFull,
    CircuitBreaker,
    CircuitOpen,
    Dependency,
    Failover,
    Hedge,
    Pipeline,
    RateLimit,
    Retry,
    RetryBudget,
    Target,
    Timeout,
)
from resilient.core.backoff import Constant
from resilient.events import Event

THREADS = 8
CALLS = 400
REFUSED = (ValueError, AllTargetsFailed, BulkheadFull, CircuitOpen)


class Tally:
    """Counts ends, and how many run at a time."""

    def __init__(self) -> None:
        self.ends: Counter[str] = Counter()
        self.running = self.most = 0
        self._lock = threading.Lock()

    def work(self, seed: int) -> str:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            if seed % 5 == 0:
                raise ValueError(seed)
            return "ok"
        finally:
            with self._lock:
                self.running -= 1

    async def async_work(self, seed: int) -> str:
        await anyio.sleep(0)
        return self.work(seed)

    def count(self, end: str) -> None:
        with self._lock:
            self.ends[end] += 1


def in_threads(*jobs: Callable[[], Any]) -> None:
    """Run all at once; raise what any of them raised."""
    errors: list[BaseException] = []
    ready = threading.Barrier(len(jobs))

    def run(job: Callable[[], Any]) -> None:
        try:
            ready.wait()
            job()
        except BaseException as error:  # noqa: BLE001  # raised below, by the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


def callers(pipeline: Pipeline, tally: Tally, backend: str) -> list[Callable[[], None]]:
    def blocking(thread: int) -> None:
        rng = random.Random(thread)
        for _ in range(CALLS):
            try:
                tally.count(pipeline.call_sync(tally.work, rng.randrange(1000)))
            except REFUSED as error:
                tally.count(type(error).__name__)

    async def awaiting(task: int) -> None:
        rng = random.Random(task)
        for _ in range(CALLS // 4):
            try:
                if rng.random() < 0.1:
                    with anyio.move_on_after(rng.random() * 0.001) as scope:
                        tally.count(await pipeline.call(tally.async_work, rng.randrange(1000)))
                    if scope.cancelled_caught:
                        tally.count("cancelled")
                else:
                    tally.count(await pipeline.call(tally.async_work, rng.randrange(1000)))
            except REFUSED as error:
                tally.count(type(error).__name__)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for task in range(16):
                group.start_soon(awaiting, 100 + task)

    loop = (lambda: asyncio.run(main())) if backend == "asyncio" else (lambda: trio.run(main))
    return [*(lambda thread=thread: blocking(thread) for thread in range(THREADS)), loop]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_eight_threads_and_a_loop_share_a_bulkhead(backend: str) -> None:
    bulkhead, tally = Bulkhead(max_concurrent=3, queue=50, max_wait=10, standing_after=60), Tally()
    pipeline = Pipeline(bulkhead)
    in_threads(*callers(pipeline, tally, backend))
    assert (bulkhead.in_use, bulkhead.queued, tally.running) == (0, 0, 0)
    assert tally.most <= 3
    assert sum(tally.ends.values()) == THREADS * CALLS + 16 * (CALLS // 4)
    assert sum(pipeline.stats.snapshot().counts.values()) >= sum(tally.ends.values())
    counts = pipeline.stats.snapshot().counts
    # Nobody was refused: nine threads and 16 tasks never queue 50.
    assert tally.ends["BulkheadFull"] == 0
    assert counts["failure"] >= tally.ends["ValueError"] > 0


def test_no_failure_is_lost_by_a_shared_breaker() -> None:
    breaker = CircuitBreaker(fail_max=10**9)
    pipeline = Pipeline(breaker)

    def fail() -> None:
        for _ in range(CALLS):
            with pytest.raises(KeyError):
                pipeline.call_sync({}.__getitem__, "missing")

    in_threads(*[fail] * THREADS)
    assert breaker.fail_counter == THREADS * CALLS
    assert pipeline.stats.snapshot().counts["failure"] == THREADS * CALLS


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_breaker_that_trips_all_the_time_never_wedges(backend: str) -> None:
    breaker = CircuitBreaker(break_time=0.001, max_break=0.001, minimum_calls=5, failure_rate=0.2)
    changes: list[tuple[str, str]] = []

    class Ear:
        def on_event(self, event: Event) -> None:
            if hasattr(event, "new"):
                changes.append((event.old, event.new))

    pipeline, tally = Pipeline(breaker), Tally()
    pipeline.outbox.add(Ear())
    in_threads(*callers(pipeline, tally, backend))
    assert sum(tally.ends.values()) == THREADS * CALLS + 16 * (CALLS // 4)
    assert tally.running == 0
    assert ("closed", "open") in changes and ("open", "half-open") in changes
    # And afterwards a healthy dependency is found to be so.
    pipeline.reset()
    assert pipeline.call_sync(tally.work, 1) == "ok"
    assert breaker.current_state == "closed"


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("keyed", [False, True])
def test_eight_threads_and_a_loop_share_a_whole_dependency(backend: str, keyed: bool) -> None:
    """Every call is counted once by everybody who counts, and nobody is in flight or holds a slot at the end."""
    key: dict[str, Any] = {"key": lambda seed: seed % 3} if keyed else {}
    breaker = CircuitBreaker(window=600, outage_failures=10**6, stall_after=0, stall_factor=10**6, **key)
    bulkhead = Bulkhead(max_concurrent=5, queue=100, max_wait=30, standing_after=60)
    dependency = Dependency("d", Timeout(total=60), Retry(on=KeyError), bulkhead, breaker)
    tally = Tally()
    in_threads(*callers(dependency, tally, backend))
    calls = THREADS * CALLS + 16 * (CALLS // 4)
    counts = dependency.stats.snapshot().counts
    assert sum(tally.ends.values()) == sum(counts.values()) == calls
    assert (counts["success"], counts["failure"]) == (tally.ends["ok"], tally.ends["ValueError"])
    circuits = list(breaker.circuits.values()) if keyed else [breaker]
    totals = [circuit._core.totals(dependency.clock.now()) for circuit in circuits]
    assert [sum(column) for column in zip(*totals, strict=True)] == [counts["success"] + counts["failure"], counts["failure"], 0]
    assert (bulkhead.in_use, bulkhead.queued, tally.running) == (0, 0, 0)
    assert not any(circuit.busy for circuit in circuits)
    assert dependency.settle_errors == 0


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_eight_threads_and_a_loop_share_targets_and_a_race(backend: str) -> None:
    """Every call is counted once, and whoever was left, beaten or cancelled has given back what it held."""
    slots = [Bulkhead(max_concurrent=5, queue=1000, max_wait=30, standing_after=60) for _ in range(2)]
    hedge = Hedge(delay=0.0002, budget=RetryBudget(ratio=1, reserve=100, saved=1000))
    limit, targets = RateLimit(1_000_000), Failover(Target("a", slots[0]), Target("b", slots[1]))
    dependency = Dependency("d", Timeout(total=60), limit, hedge, targets)
    tally = Tally()
    in_threads(*callers(dependency, tally, backend))
    calls = THREADS * CALLS + 16 * (CALLS // 4)
    counts = dependency.stats.snapshot().counts
    assert sum(tally.ends.values()) == sum(counts.values()) == calls
    assert (counts["success"], counts["failure"]) == (tally.ends["ok"], tally.ends["AllTargetsFailed"])
    assert counts["failure"] > 0
    for _ in range(5000):  # losers in threads run to their end, and nobody waits for them
        if not any(one.in_use for one in slots):
            break
        threading.Event().wait(0.001)
    assert [(one.in_use, one.queued) for one in slots] == [(0, 0), (0, 0)]
    first, second = (target.stats.snapshot().counts for target in targets.pipelines)
    assert first["success"] > 0 < second["failure"], "calls went on to the second one"
    assert (tally.running, dependency.settle_errors) == (0, 0)


def test_half_open_admits_no_more_than_its_trials_from_any_number_of_threads() -> None:
    breaker = CircuitBreaker(trials=3)
    pipeline = Pipeline(breaker)
    breaker.half_open()
    admitted, release = [], threading.Event()

    def trial() -> None:
        admitted.append(1)
        release.wait(10)

    def call() -> None:
        try:
            pipeline.call_sync(trial)
        except CircuitOpen:
            rejected.append(1)
            if len(rejected) == 29:
                release.set()

    rejected: list[int] = []
    in_threads(*[call] * 32)
    assert (len(admitted), len(rejected)) == (3, 29)


def test_a_shared_budget_is_not_overdrawn() -> None:
    budget = RetryBudget(ratio=0, reserve=2, window=10, saved=20)
    pipeline = Pipeline(Retry(attempts=5, on=KeyError, budget=budget, backoff=Constant(0, jitter="none")))
    asked: list[int] = []

    def work() -> None:
        asked.append(1)
        raise KeyError

    def call() -> None:
        for _ in range(50):
            with pytest.raises(KeyError):
                pipeline.call_sync(work)

    in_threads(*[call] * THREADS)
    assert 20 <= len(asked) - THREADS * 50 <= 20 + 2 * 10


def test_one_dependency_from_a_thread_and_from_a_loop() -> None:
    """A waiter on the loop is woken by a thread, and the other way round."""
    dependency = Dependency("d", Bulkhead(max_concurrent=1, max_wait=10))
    turns: list[str] = []

    def blocking() -> None:
        for _ in range(50):
            dependency.call_sync(turns.append, "thread")

    async def append() -> None:
        await anyio.sleep(0)
        turns.append("loop")

    async def main() -> None:
        for _ in range(50):
            await dependency.call(append)

    in_threads(blocking, lambda: asyncio.run(main()), lambda: trio.run(main))
    assert Counter(turns) == {"thread": 50, "loop": 100}
    assert dependency.bulkhead is not None and dependency.bulkhead.in_use == 0


def test_a_waiter_whose_loop_is_gone_passes_its_slot_on() -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_wait=60)
    pipeline = Pipeline(bulkhead)
    loop = asyncio.new_event_loop()
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        leave.wait(10)

    holder = threading.Thread(target=pipeline.call_sync, args=(hold,))
    holder.start()
    entered.wait(5)
    waiting = loop.create_task(pipeline.call(asyncio.sleep, 0))
    loop.run_until_complete(asyncio.sleep(0.01))
    assert bulkhead.queued == 1
    loop.close()  # in the middle of it, as a crashed test would
    leave.set()
    holder.join(5)
    assert (bulkhead.in_use, bulkhead.queued) == (0, 0)
    assert pipeline.call_sync(int, "5") == 5
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]  # it never ends, and that is meant
    # As the garbage collector will close it in the end. The slot that it was granted was given back long ago.
    with pytest.raises(RuntimeError, match="no running event loop"):
        waiting.get_coro().close()  # type: ignore[union-attr]
    assert (bulkhead.in_use, bulkhead.queued) == (0, 0)
