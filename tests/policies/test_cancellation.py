"""A caller that goes away: nothing is counted, nothing is kept, and its own cancellation reaches it untouched."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pybreaker
import pytest

from resilient import Bulkhead, CircuitBreaker, Fallback, Pipeline, Retry, Timeout, standard
from resilient.core.backoff import Constant
from resilient.testing import FakeClock

pytestmark = pytest.mark.anyio


async def forever() -> None:
    await anyio.sleep_forever()


async def ok() -> str:
    return "ok"


def breakers() -> list[Any]:
    return [
        pytest.param(lambda: CircuitBreaker(fail_max=1, success_threshold=1), id="ours"),
        pytest.param(lambda: pybreaker.CircuitBreaker(fail_max=1), id="vanilla"),
    ]


@pytest.mark.parametrize("make", breakers())
async def test_ground_26_cancellation_neutral_and_never_replaced(anyio_backend: Any, clock: FakeClock, make: Any) -> None:
    breaker = make()
    pipeline = Pipeline(breaker, clock=clock)
    seen: list[BaseException] = []

    async def caller() -> None:
        try:
            await pipeline.call(forever)
        except BaseException as error:
            seen.append(error)
            raise

    for _ in range(5):
        with anyio.move_on_after(1) as scope:
            await caller()
        assert scope.cancelled_caught
    assert {type(error) for error in seen} == {anyio.get_cancelled_exc_class()}
    assert breaker.current_state == "closed" and breaker.fail_counter == 0
    assert pipeline.stats.snapshot().counts == {"success": 0, "failure": 0, "ignored": 5}


@pytest.mark.parametrize("make", breakers())
async def test_ground_32_a_cancelled_trial_gives_its_place_back(anyio_backend: Any, clock: FakeClock, make: Any) -> None:
    breaker = make()
    pipeline = Pipeline(breaker, clock=clock)
    breaker.half_open()
    for _ in range(5):
        with anyio.move_on_after(1):
            await pipeline.call(forever)
        assert breaker.current_state == "half-open"
    assert await pipeline.call(ok) == "ok"
    assert breaker.current_state == "closed"


async def test_ground_26_the_native_kind_too(anyio_backend: Any, clock: FakeClock) -> None:
    """asyncio's own timeout, `wait_for` and `cancel` around a call: what arrives is what was sent."""
    if anyio_backend[0] != "asyncio":
        with anyio.CancelScope() as scope:
            scope.cancel()
            await Pipeline(CircuitBreaker(1), clock=clock).call(forever)
        assert scope.cancelled_caught
        return
    breaker = CircuitBreaker(fail_max=1)
    pipeline = Pipeline(*standard(breaker=breaker), clock=clock)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await pipeline.call(forever)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pipeline.call(forever), 1)
    task = asyncio.create_task(pipeline.call(forever))
    await asyncio.sleep(1)
    task.cancel("by hand")
    with pytest.raises(asyncio.CancelledError, match="by hand"):
        await task
    assert breaker.current_state == "closed" and breaker.fail_counter == 0


async def test_pitfall_12_the_users_cancelled_error_is_not_replaced(anyio_backend: Any, clock: FakeClock) -> None:
    """Not by a fallback, a retry or a deadline of ours either."""
    retry = Retry(on=Exception, backoff=Constant(0, jitter="none"))
    pipeline = Pipeline(Fallback("instead", on=Exception), Timeout(total=60), retry, CircuitBreaker(1), clock=clock)
    with anyio.move_on_after(1) as scope:
        await pipeline.call(forever)
    assert scope.cancelled_caught


@pytest.mark.parametrize("phase", ["running", "queued", "between attempts"])
async def test_pitfall_04_whoever_is_cancelled_keeps_no_slot(anyio_backend: Any, clock: FakeClock, phase: str) -> None:
    bulkhead = Bulkhead(max_concurrent=2)
    pipeline = Pipeline(Retry(on=ValueError, backoff=Constant(5, jitter="none")), bulkhead, clock=clock)
    release = anyio.Event()

    async def fails() -> None:
        raise ValueError

    async with anyio.create_task_group() as group:
        if phase == "queued":
            group.start_soon(pipeline.call, release.wait)
            group.start_soon(pipeline.call, release.wait)
            await anyio.sleep(0.1)
        for _ in range(10):
            with anyio.move_on_after(1) as scope:
                await pipeline.call(fails if phase == "between attempts" else forever)
            assert scope.cancelled_caught
            assert bulkhead.queued == 0 and bulkhead.in_use == (2 if phase == "queued" else 0)
        release.set()
    assert bulkhead.in_use == 0
    assert await pipeline.call(ok) == "ok"


async def test_pitfall_04_a_grant_that_comes_with_a_cancellation_is_passed_on(anyio_backend: Any, clock: FakeClock) -> None:
    bulkhead = Bulkhead(max_concurrent=1)
    pipeline = Pipeline(bulkhead, clock=clock)
    release, served = anyio.Event(), anyio.Event()

    async def serve() -> None:
        served.set()

    async with anyio.create_task_group() as group:
        group.start_soon(pipeline.call, release.wait)
        await anyio.sleep(0.1)
        doomed = anyio.CancelScope()

        async def wait_and_be_cancelled() -> None:
            with doomed:
                await pipeline.call(forever)

        group.start_soon(wait_and_be_cancelled)
        await anyio.sleep(0.1)
        group.start_soon(pipeline.call, serve)
        await anyio.sleep(0.1)
        assert bulkhead.queued == 2
        # In one step of the event loop: the slot is granted to the first waiter, and that one is cancelled.
        release.set()
        doomed.cancel()
        with anyio.fail_after(5):
            await served.wait()
    assert (bulkhead.in_use, bulkhead.queued) == (0, 0)


async def test_pitfall_04_a_burst_of_cancellations_shrinks_nothing(anyio_backend: Any, clock: FakeClock) -> None:
    bulkhead = Bulkhead(max_concurrent=3)
    pipeline = Pipeline(bulkhead, clock=clock)
    running = most = 0

    async def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await anyio.sleep(0.01)
        finally:
            running -= 1

    async def impatient(patience: float) -> None:
        with anyio.move_on_after(patience):
            await pipeline.call(work)

    async with anyio.create_task_group() as group:
        for number in range(300):
            group.start_soon(impatient, 0.001 * (number % 40))
    assert (bulkhead.in_use, bulkhead.queued, running) == (0, 0, 0)
    assert most == 3
    most = 0
    async with anyio.create_task_group() as group:
        for _ in range(30):
            group.start_soon(pipeline.call, work)
    assert most == 3


async def test_an_expired_deadline_of_ours_is_not_taken_for_the_callers(anyio_backend: Any, clock: FakeClock) -> None:
    """Both end in the same moment: exactly one of them reaches the caller, and the scope outside is not disturbed."""
    pipeline = Pipeline(Timeout(total=1), clock=clock)
    for _ in range(50):
        ends = []
        with anyio.move_on_after(1) as scope:
            try:
                await pipeline.call(forever)
            except TimeoutError:
                ends.append("ours")
        ends += ["theirs"] * scope.cancelled_caught
        assert len(ends) == 1
        await anyio.sleep(0)  # no cancellation is left behind
