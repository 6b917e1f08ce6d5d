"""What an adaptive limit measures of an HTTP call: the way to its head, not what its reader does with the body."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from resilient import AdaptiveConcurrency, Dependency, Timeout, standard
from resilient.testing import FakeClock


def upstream(library: Any, head: float, body: float) -> Any:
    """An inner transport whose head takes so many seconds, and whose body as many more."""

    class Body(library.AsyncByteStream):  # type: ignore[misc]
        async def __aiter__(self) -> Any:
            yield b"be"
            await anyio.sleep(body)
            yield b"gun"

    class Upstream(library.AsyncBaseTransport):  # type: ignore[misc]
        async def handle_async_request(self, request: Any) -> Any:
            await anyio.sleep(head)
            return library.Response(200, stream=Body())

    return Upstream()


async def get(library: Any, dependency: Dependency, inner: Any, rounds: int) -> None:
    transport = library.ours.AsyncResilientTransport(dependency, inner)
    async with library.AsyncClient(transport=transport, timeout=60) as client:
        for _ in range(rounds):
            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(client.get, "http://shop/")


@pytest.mark.anyio
@pytest.mark.parametrize("timed", [True, False])
async def test_a_long_body_is_no_load_and_a_late_head_is(anyio_backend: Any, clock: FakeClock, library: Any, timed: bool) -> None:
    adaptive = AdaptiveConcurrency(max_concurrent=20)
    policies = standard(timeout=Timeout(total=30), bulkhead=adaptive) if timed else (adaptive,)
    dependency = Dependency("shop", *policies, clock=clock)
    await get(library, dependency, upstream(library, 0.05, 0.0), 5)
    await get(library, dependency, upstream(library, 0.05, 5.0), 5)
    assert (adaptive.limit, adaptive.in_use) == (20, 0)
    await get(library, dependency, upstream(library, 0.5, 0.0), 5)
    assert adaptive.limit < 20 and adaptive.in_use == 0
