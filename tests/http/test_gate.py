"""The queue in front of httpx 0.28's pool: so many places as it has connections, first come, first served."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import httpx2
import pytest

import resilient.httpx
import resilient.httpx2
from resilient import Bulkhead, Deadline, Resilience, Retry, Timeout
from resilient.context import deadline_scope
from resilient.core.backoff import Constant
from resilient.events import CallRejected
from resilient.http.gate import Gate
from resilient.runtime import AsyncRuntime
from resilient.testing import HANG, FakeClock, FaultyTransport, RecordingListener

from .bodies import scripted
from .conftest import Declare

pytestmark = pytest.mark.anyio

Transport = resilient.httpx.AsyncResilientTransport


def in_use(transport: Any) -> tuple[int, int]:
    slots = transport._gate.slots
    return slots.in_use, slots.queued


async def test_pool_timeout_is_the_librarys(clock: FakeClock, declare: Declare, listener: RecordingListener) -> None:
    dependency = declare(Timeout(total=30), Retry(), Bulkhead())
    transport = Transport(dependency, FaultyTransport([scripted(httpx, b"x", 9)]), max_connections=1)
    async with httpx.AsyncClient(transport=transport, timeout=httpx.Timeout(10, pool=2)) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(client.get, "http://dep/")
            await anyio.sleep(1)
            began = clock.now()
            with pytest.raises(httpx.PoolTimeout, match="no connection became free within 2 s") as raised:
                await client.get("http://dep/")
            assert clock.now() - began == pytest.approx(2)
            assert raised.value.request.url == "http://dep/"
            assert in_use(transport) == (1, 0)
    assert [(event.policy, event.reason) for event in listener.of(CallRejected)] == [("pool", "waited")]
    assert dependency.stats.snapshot().counts["ignored"] == 1
    assert in_use(transport) == (0, 0)


async def test_deadline_in_the_queue_is_ours(clock: FakeClock, declare: Declare) -> None:
    transport = Transport(declare(timeout=1), FaultyTransport([HANG]), max_connections=1)
    async with httpx.AsyncClient(transport=transport) as client:
        async with anyio.create_task_group() as group:

            async def hang() -> None:
                with pytest.raises(resilient.httpx.DeadlineExceeded, match="no answer"):
                    await client.post("http://dep/")

            group.start_soon(hang)
            await anyio.sleep(0.01)
            with deadline_scope(Deadline(clock.now() + 0.5, clock)):
                with pytest.raises(resilient.httpx.DeadlineExceeded, match="waiting for a connection") as raised:
                    await client.post("http://dep/")
            assert raised.value.reason == "caller"
    assert in_use(transport) == (0, 0)


async def test_first_come_first_served(clock: FakeClock, declare: Declare) -> None:
    served = []

    async def answer(request: httpx.Request) -> httpx.Response:
        served.append(request.url.path)
        await anyio.sleep(1)
        return httpx.Response(200)

    transport = Transport(declare(), FaultyTransport([answer]), max_connections=1)
    async with httpx.AsyncClient(transport=transport, timeout=60) as client, anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(client.get, f"http://dep/{number}")
            await anyio.sleep(0.01)
        assert in_use(transport) == (1, 4)
    assert served == [f"/{number}" for number in range(5)]


async def test_place_that_is_left_by_a_finalizer_inside_the_gates_own_lock(clock: FakeClock, declare: Declare) -> None:
    """Whoever is interrupted goes on as if nothing had been, and lets in whoever waits when he lets go of the lock."""
    gate = Gate(1)
    call: Any = SimpleNamespace(
        runtime=AsyncRuntime(clock), queue_timeout=None, attempt_deadline=float("inf"), queueing=lambda now, begins: None
    )
    places = [await gate.enter(call)]
    async with anyio.create_task_group() as group:

        async def wait() -> None:
            places.append(await gate.enter(call))

        group.start_soon(wait)
        await anyio.sleep(1)
        assert (gate.slots.in_use, gate.slots.queued) == (1, 1)

        def collected_under_the_lock() -> None:
            with gate._lock:
                places[0].leave()
                assert (gate.slots.in_use, gate.slots.queued) == (1, 1), "nothing changes under somebody's hands"

        thread = threading.Thread(target=collected_under_the_lock, daemon=True)
        thread.start()
        thread.join(5)
        assert not thread.is_alive(), "it waits for a lock that it holds itself"
        assert (gate.slots.in_use, gate.slots.queued) == (1, 0)
    assert len(places) == 2
    places[1].leave()
    assert gate.slots.in_use == 0


async def test_place_that_nobody_has_any_more_is_left() -> None:
    gate = Gate(2)
    call: Any = SimpleNamespace(runtime=AsyncRuntime())
    place = await gate.enter(call)
    other = await gate.enter(call)
    other.leave()
    del other
    assert gate.slots.in_use == 1
    del place
    gc.collect()
    assert gate.slots.in_use == 0


async def test_one_gate_for_all_dependencies_of_a_transport(clock: FakeClock) -> None:
    resilience = Resilience(clock=clock)
    most = running = 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await anyio.sleep(1)
        running -= 1
        return httpx.Response(200)

    transport = Transport(resilience, FaultyTransport([answer]), max_connections=3)
    async with httpx.AsyncClient(transport=transport, timeout=60) as client, anyio.create_task_group() as group:
        for number in range(12):
            group.start_soon(client.get, f"http://host{number % 4}/")
    assert most == 3


async def test_place_is_given_back_after_the_close_and_the_permit_before_it(clock: FakeClock, declare: Declare) -> None:
    seen: list[tuple[str, int, int]] = []

    class Watched(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            yield b"x"

        async def aclose(self) -> None:
            note("closing")
            await anyio.sleep(1)
            note("closed")

    def note(moment: str) -> None:
        assert dependency.bulkhead is not None
        seen.append((moment, dependency.bulkhead.in_use, in_use(transport)[0]))

    dependency = declare()
    transport = Transport(dependency, FaultyTransport([lambda request: httpx.Response(200, stream=Watched())]), max_connections=5)
    async with httpx.AsyncClient(transport=transport) as client:
        await client.get("http://dep/")
        note("after")
    assert seen == [("closing", 0, 1), ("closed", 0, 1), ("after", 0, 0)]


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_ground_06_closing_goes_on_when_its_caller_is_cancelled(clock: FakeClock, declare: Declare) -> None:
    """In a task of its own, which no native cancellation reaches: only then is the connection really free."""

    class Slow(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            yield b"x"

        async def aclose(self) -> None:
            await anyio.sleep(1)
            closed.append(clock.now())

    closed: list[float] = []
    dependency = declare()
    transport = Transport(dependency, FaultyTransport([lambda request: httpx.Response(200, stream=Slow())]), max_connections=1)
    transport._isolated = True
    async with httpx.AsyncClient(transport=transport) as client:
        response = await client.send(client.build_request("GET", "http://dep/"), stream=True)
        began = clock.now()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(response.aclose(), 0.5)
        assert dependency.bulkhead is not None
        assert (dependency.bulkhead.in_use, in_use(transport)[0], closed) == (0, 1, [])
        await anyio.sleep(0.6)
        assert (in_use(transport)[0], closed) == (0, [pytest.approx(began + 1)])


async def test_place_is_given_back_once(clock: FakeClock, declare: Declare) -> None:
    """However often the stream is closed: here by a policy, and again by the client."""

    class Closing:
        async def run(self, call: Any, inner: Any) -> Any:
            response = await inner(call)
            await response.stream.aclose()
            return response

    inner = FaultyTransport([scripted(httpx, b"x")])
    transport = Transport(declare(Closing()), inner, max_connections=5)
    held = Transport(declare(), inner, max_connections=5)
    held._gate = transport._gate
    async with httpx.AsyncClient(transport=transport) as client, httpx.AsyncClient(transport=held) as other:
        async with other.stream("GET", "http://dep/"):
            for _ in range(3):
                await client.get("http://dep/")
                assert in_use(transport) == (1, 0)


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_exchange_that_its_caller_left_is_cancelled(clock: FakeClock, declare: Declare) -> None:
    transport = Transport(declare(timeout=1), FaultyTransport([HANG]), max_connections=1)
    transport._isolated = True
    async with httpx.AsyncClient(transport=transport) as client:
        for _ in range(2):
            with pytest.raises(resilient.httpx.DeadlineExceeded, match="no answer"):
                await client.post("http://dep/")
            await anyio.sleep(0.1)
            assert in_use(transport) == (0, 0)


@pytest.mark.parametrize("fault", [httpx.ReadError("x"), httpx.ReadTimeout("x"), ValueError("x")], ids=repr)
async def test_no_error_keeps_a_place(clock: FakeClock, declare: Declare, fault: Exception) -> None:
    transport = Transport(declare(), FaultyTransport([fault]), max_connections=1)
    async with httpx.AsyncClient(transport=transport) as client:
        for _ in range(3):
            with pytest.raises(type(fault)):
                await client.post("http://dep/")
            assert in_use(transport) == (0, 0)


async def test_retries_hold_no_place_between_attempts(clock: FakeClock, declare: Declare) -> None:
    transport = Transport(
        declare(Retry(random=lambda: 1.0)),
        FaultyTransport([scripted(httpx, b"x", status=503), httpx.ReadError("x"), 200]),
        max_connections=1,
    )
    free = []
    async with httpx.AsyncClient(transport=transport) as client, anyio.create_task_group() as group:

        async def watch() -> None:
            for _ in range(4):
                await anyio.sleep(0.1)
                free.append(in_use(transport)[0] == 0)

        group.start_soon(watch)
        assert (await client.get("http://dep/")).status_code == 200
    assert free == [True] * 4


@pytest.mark.parametrize("limit", ["pool timeout", "deadline"])
async def test_retry_that_gets_no_connection_gives_the_last_real_answer(clock: FakeClock, declare: Declare, limit: str) -> None:
    """The queue for a connection is ours: what it refuses is no reason to throw a real answer away."""

    async def answer(request: httpx.Request) -> httpx.Response:
        await anyio.sleep(1)
        return scripted(httpx, b"busy", status=503)(request) if request.url.path == "/first" else httpx.Response(200)

    total, pool = (3.5, None) if limit == "deadline" else (30, 2)
    dependency = declare(Timeout(total=total), Retry(backoff=Constant(0.1, jitter="none")))
    transport = Transport(dependency, FaultyTransport([answer]), max_connections=1)
    async with httpx.AsyncClient(transport=transport, timeout=httpx.Timeout(30, pool=pool)) as client:
        async with anyio.create_task_group() as group:

            async def first() -> None:
                response = await client.get("http://dep/first")
                assert (response.status_code, response.content) == (503, b"busy")

            group.start_soon(first)
            await anyio.sleep(0.5)
            for number in range(10):  # they stand in the queue before the retry does
                group.start_soon(ignoring, client, f"http://dep/{number}")


async def ignoring(client: Any, url: str) -> None:
    with contextlib.suppress(httpx.TransportError):
        await client.get(url)


async def test_malformed_timeouts_keep_no_place(clock: FakeClock, declare: Declare) -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        request.extensions["timeout"].get("read")
        return httpx.Response(200)

    transport = Transport(declare(), FaultyTransport([answer]), max_connections=1)
    async with httpx.AsyncClient(transport=transport) as client:
        for _ in range(2):
            with pytest.raises(TypeError):
                await client.get("http://dep/", extensions={"timeout": {"read": "soon"}})
            assert in_use(transport) == (0, 0)


def test_where_there_is_a_gate_and_how_large() -> None:
    def size(transport: Any) -> int | None:
        return None if transport._gate is None else transport._gate.slots.limit

    dependency = Timeout(total=1)
    assert size(Transport(dependency, verify=False)) == 100
    assert size(Transport(dependency, verify=False, limits=httpx.Limits(max_connections=7))) == 7
    assert size(Transport(dependency, verify=False, limits=httpx.Limits(max_connections=7), http2=True)) == 700
    assert size(Transport(dependency, verify=False, limits=httpx.Limits(max_connections=None))) is None
    assert size(Transport(dependency, FaultyTransport())) is None
    assert size(Transport(dependency, FaultyTransport(), max_connections=4)) == 4
    assert size(Transport(dependency, httpx.AsyncHTTPTransport(verify=False, limits=httpx.Limits(max_connections=6)))) == 6
    assert size(Transport(dependency, httpx.AsyncHTTPTransport(verify=False, limits=httpx.Limits(max_connections=None)))) is None
    assert size(Transport(dependency, httpx.AsyncHTTPTransport(verify=False, http2=True), max_connections=4)) == 4
    assert size(resilient.httpx2.AsyncResilientTransport(dependency, verify=False, limits=httpx2.Limits(max_connections=7))) is None
    assert size(resilient.httpx.ResilientTransport(dependency, verify=False)) == 100


@pytest.mark.parametrize("number", [0, -1, 1.5, "7", True])
def test_size_that_is_none(library: Any, number: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="max_connections"):
        library.ours.AsyncResilientTransport(Timeout(total=1), FaultyTransport(), max_connections=number)
