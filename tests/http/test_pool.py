"""A connection pool under cancellation: twice as many workers as connections, and hardly any of them waits for its answer.

httpx 0.28's pool dies of this within a second: each later request ends in PoolTimeout.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from typing import Any

import anyio
import pytest

from resilient import Bulkhead, Dependency, Timeout
from resilient.clock import SYSTEM_CLOCK

from .quick_server import quick_servers

pytestmark = pytest.mark.anyio

SECONDS = float(os.environ.get("POOL_SECONDS", "0.4"))
"""How long each storm blows; 4 is what the pools were measured with."""
WORKERS, CONNECTIONS = 20, 10


async def cut_by_us(client: Any, url: str, seconds: float) -> int:
    return (await client.get(url, extensions={"deadline": seconds})).status_code  # type: ignore[no-any-return]


async def cut_by_anyio(client: Any, url: str, seconds: float) -> int:
    with anyio.fail_after(seconds):
        return (await client.get(url)).status_code  # type: ignore[no-any-return]
    raise AssertionError


async def cut_by_wait_for(client: Any, url: str, seconds: float) -> int:
    return (await asyncio.wait_for(client.get(url), seconds)).status_code  # type: ignore[no-any-return]


CUTS = {"deadline": cut_by_us, "anyio": cut_by_anyio, "wait_for": cut_by_wait_for}


async def storm(client: Any, urls: list[str], cut: Any) -> Counter[str]:
    """Twenty workers with deadlines of 0.5 to 30 ms. Returns how their requests ended."""
    ends: Counter[str] = Counter()
    until = anyio.current_time() + SECONDS

    async def work(chance: random.Random) -> None:
        while anyio.current_time() < until:
            try:
                assert await cut(client, chance.choice(urls), chance.uniform(0.0005, 0.03)) == 200
                ends["ok"] += 1
            except TimeoutError:  # which our DeadlineExceeded is as well
                ends["cancelled"] += 1

    async with anyio.create_task_group() as group:
        for number in range(WORKERS):
            group.start_soon(work, random.Random(number))
    return ends


@pytest.mark.slow
@pytest.mark.parametrize("origins", [1, 4])
@pytest.mark.parametrize("by", CUTS)
async def test_ground_08_pool_is_healthy_after_a_storm_of_cancellations(library: Any, anyio_backend: Any, by: str, origins: int) -> None:
    if by == "wait_for" and anyio_backend == "trio":
        pytest.skip("asyncio alone has wait_for")
    dependency = Dependency("dep", Timeout(total=10, min_useful=0), Bulkhead(), clock=SYSTEM_CLOCK)
    with quick_servers(origins) as urls:
        transport = library.ours.AsyncResilientTransport(dependency, limits=library.Limits(max_connections=CONNECTIONS), verify=False)
        async with library.AsyncClient(transport=transport, timeout=library.Timeout(5, pool=2)) as client:
            ends = await storm(client, urls, CUTS[by])
            with anyio.fail_after(4):
                async with anyio.create_task_group() as group:
                    for number in range(WORKERS):
                        group.start_soon(client.get, urls[number % origins])
            assert dependency.bulkhead.in_use == dependency.bulkhead.queued == 0
            gate = transport._gate
            assert gate is None or gate.slots.in_use == gate.slots.queued == 0
            assert (gate is not None) == (library.module.__name__ == "httpx")
    # How many were answered is a matter of the machine's speed; a storm it was in any case.
    assert ends["cancelled"] > 5 * SECONDS
    print(f"{library.module.__name__} {anyio_backend} {by} {origins}: {ends['ok']} ok, {ends['cancelled']} cancelled")


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.parametrize("given", [False, True], ids=["built", "given"])
async def test_only_the_pool_that_breaks_has_tasks_of_its_own(library: Any, given: bool) -> None:
    """And none of them sees the native cancellation of its caller."""
    with quick_servers(1) as (url,):
        inner = library.AsyncHTTPTransport(verify=False) if given else None
        transport = library.ours.AsyncResilientTransport(Timeout(total=5), inner, **({} if given else {"verify": False}))
        tasks = []
        send = transport._inner.handle_async_request

        async def spy(request: Any) -> Any:
            tasks.append(asyncio.current_task())
            return await send(request)

        transport._inner.handle_async_request = spy
        async with library.AsyncClient(transport=transport) as client:
            assert (await client.get(url)).status_code == 200
    assert (tasks[0] is asyncio.current_task()) == (library.module.__name__ == "httpx2")
