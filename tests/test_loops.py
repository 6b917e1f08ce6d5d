"""Nothing keeps an event loop: what a module made once works in every run, on asyncio and trio, and no loop stays alive."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import httpx
import httpx2
import pytest
import trio

import resilient.httpx
import resilient.httpx2
from resilient import Bulkhead, CircuitBreaker, Fallback, Pipeline, Resilience, Retry, Timeout, standard
from resilient.core.backoff import Constant
from resilient.testing import FaultyTransport

resilience = Resilience()
shop = resilience.dependency("shop", *standard(timeout=5, bulkhead=Bulkhead(max_concurrent=2)), origin="http://shop.example")
CLIENTS = {
    "httpx": httpx.AsyncClient(transport=resilient.httpx.AsyncResilientTransport(resilience, FaultyTransport([200]))),
    "httpx2": httpx2.AsyncClient(transport=resilient.httpx2.AsyncResilientTransport(resilience, FaultyTransport([200]))),
}

Main = Callable[[], Awaitable[Any]]


def on_asyncio(main: Main) -> weakref.ref[Any]:
    """Run it; returns the loop it ran on, weakly."""
    loops = []

    async def outer() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await main()

    asyncio.run(outer())
    return loops[0]


def on_trio(main: Main) -> weakref.ref[Any]:
    tokens = []

    async def outer() -> None:
        tokens.append(weakref.ref(trio.lowlevel.current_trio_token()))
        await main()

    trio.run(outer)
    return tokens[0]


def assert_gone(references: list[weakref.ref[Any]]) -> None:
    gc.collect()
    assert [reference() for reference in references] == [None] * len(references)


async def work() -> str:
    await anyio.sleep(0)
    return "ok"


@pytest.mark.parametrize("library", sorted(CLIENTS))
def test_a_module_level_client_works_in_every_run(library: str) -> None:
    client = CLIENTS[library]

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(ask)

    async def ask() -> None:
        response = await client.get("http://shop.example/item")
        assert response.status_code == 200

    assert_gone([run(main) for run in (on_asyncio, on_trio, on_asyncio, on_asyncio, on_trio)])
    assert shop.bulkhead is not None and (shop.bulkhead.in_use, shop.bulkhead.queued) == (0, 0)


def test_queues_deadlines_and_retries_keep_no_loop() -> None:
    retry = Retry(attempts=2, on=KeyError, backoff=Constant(0.001))
    pipeline = Pipeline(Fallback("instead"), Timeout(total=0.05), retry, Bulkhead(max_concurrent=1), CircuitBreaker(fail_max=10**6))

    async def broken() -> None:
        raise KeyError

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for function in (work, broken, anyio.sleep_forever, work):
                group.start_soon(pipeline.call, function)

    assert_gone([run(main) for run in (on_asyncio, on_trio) * 2])


def test_features_and_generators_keep_no_loop() -> None:
    own = Resilience()
    dependency = own.dependency("own", CircuitBreaker(1))

    @dependency
    async def items() -> Any:
        for number in range(3):
            yield number
            await anyio.sleep(0)

    @own.feature("numbers", fallback=[])
    async def numbers() -> list[int]:
        return [number async for number in items()]

    async def main() -> None:
        assert await numbers() == [0, 1, 2]
        async with contextlib.aclosing(items()) as some:
            assert await anext(some) == 0

    assert_gone([run(main) for run in (on_asyncio, on_trio) * 2])


def test_an_open_circuit_outlives_the_loop_it_opened_on() -> None:
    own = Resilience()
    dependency = own.dependency("own", CircuitBreaker(1, 3600))

    async def broken() -> None:
        raise KeyError

    async def trips() -> None:
        with pytest.raises(KeyError):
            await dependency.call(broken)

    async def finds_it_open() -> None:
        with pytest.raises(Exception, match="circuit open"):
            await dependency.call(work)

    assert_gone([on_asyncio(trips), on_trio(finds_it_open), on_asyncio(finds_it_open)])
    with pytest.raises(Exception, match="circuit open"):
        dependency.call_sync(int)


def test_a_waiter_that_was_cancelled_at_the_end_of_a_run_leaves_nothing_behind() -> None:
    pipeline = Pipeline(bulkhead := Bulkhead(max_concurrent=1))

    async def main() -> None:
        tasks = [asyncio.create_task(pipeline.call(anyio.sleep_forever)) for _ in range(3)]
        await asyncio.sleep(0.01)
        assert len(tasks) == 3 and bulkhead.queued == 2

    assert_gone([on_asyncio(main), on_asyncio(main)])
    assert (bulkhead.in_use, bulkhead.queued) == (0, 0)
    assert pipeline.call_sync(int, "5") == 5
