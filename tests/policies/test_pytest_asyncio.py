"""The async policies under pytest-asyncio, on the virtual loop of its loop-factory hook, and under anyio's plugin on trio.

The rest of the suite brings its own runner; this is what a user's own tests look like.
"""

from __future__ import annotations

import asyncio
import time

import anyio
import pytest
import trio

from resilient import Bulkhead, CircuitBreaker, CircuitOpen, DeadlineExceeded, Fallback, Pipeline, Resilience, Retry, Timeout, standard
from resilient.clock import Clock
from resilient.core.backoff import Constant
from resilient.testing import FakeClock


def virtual_clock() -> FakeClock:
    """The clock of the running loop."""
    return asyncio.get_running_loop().clock  # type: ignore[attr-defined, no-any-return]


async def hang() -> None:
    await anyio.sleep_forever()


async def story(clock: Clock) -> None:
    """An outage of an hour: noticed, answered from the fallback, survived."""
    resilience = Resilience(clock=clock)
    shop = resilience.dependency("shop", *standard(timeout=2, fallback=Fallback("instead")))
    down = True

    async def ask() -> str:
        if down:
            await anyio.sleep_forever()
        return "ok"

    begun = clock.now()
    while clock.now() < begun + 3600:
        asked = clock.now()
        assert await shop.call(ask) == "instead"
        assert clock.now() - asked <= 2 + 1e-6
        await anyio.sleep(5)
    assert shop.state != "closed"
    down = False
    await anyio.sleep(4)
    assert [await shop.call(ask) for _ in range(3)] == ["ok"] * 3
    assert shop.state == "closed"


@pytest.mark.asyncio
async def test_an_hour_of_outage_passes_in_no_time() -> None:
    started = time.monotonic()
    await story(virtual_clock())
    assert time.monotonic() - started < 10


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
async def test_the_same_on_trio_under_anyios_plugin(anyio_backend: object, clock: FakeClock) -> None:
    assert trio.lowlevel.in_trio_run()
    started = time.monotonic()
    await story(clock)
    assert time.monotonic() - started < 10


@pytest.mark.asyncio
async def test_a_deadline() -> None:
    clock = virtual_clock()
    begun = clock.now()
    with pytest.raises(DeadlineExceeded):
        await Pipeline(Timeout(total=30), clock=clock).call(hang)
    assert clock.now() - begun == pytest.approx(30)


@pytest.mark.asyncio
async def test_retries_and_a_breaker() -> None:
    clock = virtual_clock()
    pipeline = Pipeline(Retry(on=KeyError, backoff=Constant(60, jitter="none")), CircuitBreaker(3, 600), clock=clock)

    async def broken() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        await pipeline.call(broken)
    with pytest.raises(CircuitOpen):
        await pipeline.call(broken)


@pytest.mark.asyncio
async def test_a_queue() -> None:
    clock = virtual_clock()
    pipeline = Pipeline(Bulkhead(max_concurrent=2), clock=clock)
    begun = clock.now()
    async with asyncio.TaskGroup() as group:
        for _ in range(6):
            group.create_task(pipeline.call(asyncio.sleep, 1))
    assert clock.now() - begun == pytest.approx(3)


@pytest.mark.asyncio
async def test_the_users_own_timeouts_run_on_it_too() -> None:
    clock = virtual_clock()
    begun = clock.now()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await Pipeline(Timeout(total=30), clock=clock).call(hang)
    with anyio.move_on_after(5) as scope:
        await Pipeline(Timeout(total=30), clock=clock).call(hang)
    assert scope.cancelled_caught and clock.now() - begun == pytest.approx(10)
