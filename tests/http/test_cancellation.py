"""A request is cancelled at each of its awaits in turn: no place, no permit and no open stream is left behind."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilient import Bulkhead, Retry, Timeout
from resilient.clock import SYSTEM_CLOCK
from resilient.dependency import Dependency

pytestmark = pytest.mark.anyio

MOST = 50
"""More awaits than one request makes."""


class Hesitant:
    """An inner transport that gives way at every turn, and counts the streams that are open."""

    def __init__(self, library: Any, statuses: tuple[int, ...]) -> None:
        self.library = library
        self.statuses = statuses
        self.sent = 0
        self.open = 0

    async def handle_async_request(self, request: Any) -> Any:
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        status = self.statuses[min(self.sent, len(self.statuses) - 1)]
        self.sent += 1
        self.open += 1
        return self.library.Response(status, stream=self._stream())

    def _stream(self) -> Any:
        outer = self

        class Stream(self.library.AsyncByteStream):  # type: ignore[misc, name-defined]
            closed = False

            async def __aiter__(self) -> Any:
                for _ in range(3):
                    await anyio.lowlevel.checkpoint()
                    yield b"x"

            async def aclose(self) -> None:
                if not self.closed:
                    self.closed = True
                    outer.open -= 1
                    await anyio.lowlevel.checkpoint()

        return Stream()

    async def aclose(self) -> None:
        """Nothing is open."""


@pytest.fixture(params=["as it is", "isolated"])
def isolated(request: pytest.FixtureRequest, library: Any, anyio_backend: Any) -> bool:
    """Whether requests run in a task of their own, as they do in front of httpx 0.28's own pool."""
    if request.param == "isolated" and (library.module.__name__ == "httpx2" or anyio_backend == "trio"):
        pytest.skip("only httpx on asyncio needs it")
    return request.param == "isolated"


def build(library: Any, isolated: bool, statuses: tuple[int, ...]) -> tuple[Hesitant, Any, Dependency]:
    inner = Hesitant(library, statuses)
    dependency = Dependency("dep", Timeout(total=60), Retry(random=lambda: 0.0), Bulkhead(max_concurrent=1), clock=SYSTEM_CLOCK)
    transport = library.ours.AsyncResilientTransport(dependency, inner, max_connections=1)
    transport._isolated = isolated
    return inner, transport, dependency


async def check(library: Any, inner: Hesitant, transport: Any, dependency: Dependency) -> None:
    """What was left to a task of its own is over soon; then all is free, and the next request works."""
    assert dependency.bulkhead is not None
    assert dependency.bulkhead.in_use == dependency.bulkhead.queued == 0
    with anyio.fail_after(5):
        while inner.open or (transport._gate is not None and transport._gate.slots.in_use):
            await anyio.lowlevel.checkpoint()
        inner.statuses = (200,)
        async with library.AsyncClient(transport=transport) as client:
            assert (await client.get("http://dep/")).content == b"xxx"
    assert inner.open == 0


SCRIPTS = [(200,), (503, 503, 200)]


async def get_within(scope: anyio.CancelScope, client: Any, statuses: list[int]) -> None:
    with scope:
        statuses.append((await client.get("http://dep/")).status_code)


@pytest.mark.parametrize("statuses", SCRIPTS, ids=str)
async def test_scope_cancelled_at_each_await(library: Any, isolated: bool, statuses: tuple[int, ...]) -> None:
    finished: list[int] = []
    for steps in range(MOST):
        inner, transport, dependency = build(library, isolated, statuses)
        scope = anyio.CancelScope()
        async with anyio.create_task_group() as group:
            group.start_soon(get_within, scope, library.AsyncClient(transport=transport), finished)
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            scope.cancel()
        await check(library, inner, transport, dependency)
    assert finished, "the last ones came to their end, so that every await was met"


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.parametrize("statuses", SCRIPTS, ids=str)
@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
async def test_task_cancelled_at_each_await(library: Any, isolated: bool, statuses: tuple[int, ...], times: int) -> None:
    finished = False
    for steps in range(MOST):
        inner, transport, dependency = build(library, isolated, statuses)
        task = asyncio.ensure_future(library.AsyncClient(transport=transport).get("http://dep/"))
        for _ in range(steps):
            await asyncio.sleep(0)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        (ended,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError | library.Response)
        finished = finished or isinstance(ended, library.Response)
        if times == 1 or isolated:
            await check(library, inner, transport, dependency)
        else:
            # A second cancellation may hit the closing of a stream itself; what we hold is free all the same.
            free(transport, dependency)
    assert finished


def free(transport: Any, dependency: Dependency) -> None:
    assert dependency.bulkhead is not None
    assert dependency.bulkhead.in_use == 0
    assert transport._gate is None or transport._gate.slots.in_use == 0


async def get_for_a_while(transport: Any, library: Any, steps: int) -> bool:
    task = asyncio.ensure_future(library.AsyncClient(transport=transport).get("http://dep/"))
    for _ in range(steps):
        await asyncio.sleep(0)
    return task.done()


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_event_loop_that_ends_in_the_middle(library: Any, isolated: bool) -> None:
    """Shutting down cancels every task, those of our own included, and those that have not even begun."""
    for steps in range(MOST):
        _, transport, dependency = build(library, isolated, (503, 200))
        await anyio.to_thread.run_sync(asyncio.run, get_for_a_while(transport, library, steps))
        free(transport, dependency)


async def test_waiters_of_the_gate_cancelled_at_each_await(library: Any, isolated: bool) -> None:
    for steps in range(8):
        inner, transport, _ = build(library, isolated, (200,))
        transport._route = route_to(Dependency("free", Timeout(total=60), clock=SYSTEM_CLOCK))
        client = library.AsyncClient(transport=transport)
        scope = anyio.CancelScope()
        async with client.stream("GET", "http://dep/") as response, anyio.create_task_group() as group:
            group.start_soon(get_within, scope, client, [])
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            await response.aclose()  # grants the place in the very moment of the cancellation
            scope.cancel()
        gate = transport._gate
        with anyio.fail_after(5):
            while inner.open or (gate is not None and gate.slots.in_use):
                await anyio.lowlevel.checkpoint()
        assert gate is None or gate.slots.queued == 0


def route_to(dependency: Dependency) -> Any:
    return lambda url: dependency
