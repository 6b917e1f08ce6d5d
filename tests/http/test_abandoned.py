"""Responses that are dropped without being closed: permits, connection and gate place come back, and it is told."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import anyio
import httpx
import pytest
import trio

import resilient.httpx
from resilient import Bulkhead, Dependency, Timeout
from resilient.events import ResponseAbandoned
from resilient.testing import FakeClock, FaultyTransport, RecordingListener

from .bodies import scripted
from .conftest import Declare
from .servers import Server, answer, answering

# trio says so of each generator that was dropped together with its response: that is what these tests do.
GENERATOR = "ignore:Async generator:ResourceWarning"
pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings(GENERATOR)]


def open_one(client: Any) -> Any:
    return client.send(client.build_request("GET", "http://dep/"), stream=True)


async def settled(condition: Any) -> None:
    """Let the event loop run until `condition()`: what a finalizer left to it is done soon, not at once.

    A response and its stream refer to each other in both libraries, so it is the garbage collector who finds them.
    """
    with anyio.fail_after(5):
        while True:
            gc.collect()
            await anyio.sleep(0.01)
            if condition():
                return


@pytest.mark.parametrize("read", [False, True], ids=["unread", "half read"])
async def test_ground_04_dropped_response_is_taken_back(
    library: Any, clock: FakeClock, declare: Declare, listener: RecordingListener, read: bool
) -> None:
    dependency = declare(Bulkhead(max_concurrent=1, max_wait=0.1))
    respond = scripted(library, b"x", b"y", 3600)
    transport = library.ours.AsyncResilientTransport(dependency, FaultyTransport([respond]), max_connections=1)
    async with library.AsyncClient(transport=transport) as client:
        for round_ in (1, 2):  # with one slot and one connection the second round shows that both are free again
            response = await open_one(client)
            if read:
                async for _ in response.stream:  # httpx2's own iterators would close the response by themselves
                    break
            assert dependency.bulkhead.in_use == 1
            del response
            await settled(lambda: respond.body.closed)  # type: ignore[attr-defined]
            assert dependency.bulkhead.in_use == 0
            assert len(listener.of(ResponseAbandoned)) == round_
    assert listener.of(ResponseAbandoned)[0].dependency == "dep"


async def test_ground_04_dropped_after_its_body_broke(
    library: Any, clock: FakeClock, declare: Declare, listener: RecordingListener
) -> None:
    """The permits are back by then, but the gate's place is not."""
    dependency = declare(Timeout(idle=5))
    respond = scripted(library, b"x", 3600)
    transport = library.ours.AsyncResilientTransport(dependency, FaultyTransport([respond]), max_connections=1)
    async with library.AsyncClient(transport=transport, timeout=library.Timeout(None, pool=1)) as client:
        for round_ in (1, 2):
            response = await open_one(client)
            with pytest.raises(library.ours.DeadlineExceeded):
                # httpx2 closes a response whose iteration failed, so there its stream is read.
                async for _ in response.stream:
                    pass
            assert dependency.bulkhead is None
            del response
            await settled(lambda: respond.body.closed)  # type: ignore[attr-defined]
            assert len(listener.of(ResponseAbandoned)) == round_


async def test_closing_in_time_is_no_abandonment(library: Any, clock: FakeClock, declare: Declare, listener: RecordingListener) -> None:
    dependency = declare()
    async with library.AsyncClient(
        transport=library.ours.AsyncResilientTransport(dependency, FaultyTransport([scripted(library, b"x")]))
    ) as client:
        response = await open_one(client)
        await response.aclose()
        del response
        gc.collect()
        await anyio.sleep(1)
    assert listener.of(ResponseAbandoned) == []


async def test_ground_04_connection_is_closed_on_a_real_server(library: Any, declare: Declare, listener: RecordingListener) -> None:
    dependency = declare(timeout=5)
    with Server(answering(answer(200, b"x" * 200_000))) as server:
        transport = library.ours.AsyncResilientTransport(dependency, limits=library.Limits(max_connections=1), verify=False)
        async with library.AsyncClient(transport=transport) as client:
            for _ in range(3):
                response = await client.send(client.build_request("GET", server.url), stream=True)
                assert response.status_code == 200
                del response
                await settled(lambda: dependency.bulkhead.in_use == 0)
            assert len((await client.get(server.url)).content) == 200_000
    assert len(listener.of(ResponseAbandoned)) == 3
    assert dependency.bulkhead.in_use == 0


def test_ground_04_sync_response_is_settled_by_the_next_call(
    library: Any, clock: FakeClock, declare: Declare, listener: RecordingListener
) -> None:
    dependency = declare(Bulkhead(max_concurrent=1, max_wait=0))
    respond = scripted(library, b"x", clock=clock)
    transport = library.ours.ResilientTransport(dependency, FaultyTransport([respond]), max_connections=1)
    with library.Client(transport=transport) as client:
        for round_ in (1, 2):
            response = open_one(client)
            body = respond.body  # type: ignore[attr-defined]
            del response
            gc.collect()
            assert dependency.bulkhead.in_use == 1, "a finalizer takes no lock: it only leaves word"
            client.get("http://dep/")
            assert body.closed == 1
            assert dependency.bulkhead.in_use == 0
            assert len(listener.of(ResponseAbandoned)) == round_


def test_ground_04_broken_close_is_not_the_next_callers_trouble(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare()

    class Broken(library.SyncByteStream):  # type: ignore[misc, name-defined]
        def __iter__(self) -> Any:
            yield b""

        def close(self) -> None:
            raise OSError("already gone")

    inner = FaultyTransport([lambda request: library.Response(200, stream=Broken()), 200])
    with library.Client(transport=library.ours.ResilientTransport(dependency, inner)) as client:
        response = open_one(client)
        del response
        gc.collect()
        assert client.get("http://dep/").status_code == 200
    assert dependency.bulkhead.in_use == 0


async def test_ground_04_broken_close_disturbs_nobody(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare()
    closed = []

    class Broken(library.AsyncByteStream):  # type: ignore[misc, name-defined]
        async def __aiter__(self) -> Any:
            yield b""

        async def aclose(self) -> None:
            closed.append(True)
            raise OSError("already gone")

    inner = FaultyTransport([lambda request: library.Response(200, stream=Broken()), 200])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, inner)) as client:
        response = await open_one(client)
        del response
        await settled(lambda: closed)
        assert (await client.get("http://dep/")).status_code == 200
    assert dependency.bulkhead.in_use == 0


@pytest.mark.parametrize("run", [asyncio.run, trio.run], ids=["asyncio", "trio"])
def test_ground_04_dropped_when_its_event_loop_is_gone(library: Any, run: Any) -> None:
    listener = RecordingListener()
    dependency = Dependency("dep", Bulkhead(max_concurrent=1))
    dependency.outbox.add(listener)
    transport = library.ours.AsyncResilientTransport(dependency, FaultyTransport([scripted(library, b"x")]))
    client = library.AsyncClient(transport=transport)

    async def leave_open() -> Any:
        return await open_one(client)

    async def use() -> int:
        return (await client.get("http://dep/")).status_code  # type: ignore[no-any-return]

    async def main(part: Any) -> Any:
        return await part()

    response = run(main, leave_open) if run is trio.run else run(main(leave_open))
    del response
    gc.collect()
    assert dependency.bulkhead.in_use == 1
    assert (run(main, use) if run is trio.run else run(main(use))) == 200
    assert dependency.bulkhead.in_use == 0
    assert len(listener.of(ResponseAbandoned)) == 1


async def test_abandoned_while_the_loop_runs_in_another_thread(library: Any, declare: Declare, listener: RecordingListener) -> None:
    """The last reference may be dropped on any thread; the loop of the response is told."""
    dependency = declare()
    respond = scripted(library, b"x")
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, FaultyTransport([respond]))) as client:
        held = [await open_one(client)]
        await anyio.to_thread.run_sync(held.clear)
        await settled(lambda: respond.body.closed)  # type: ignore[attr-defined]
    assert dependency.bulkhead.in_use == 0
    assert len(listener.of(ResponseAbandoned)) == 1


def test_reclaiming_from_many_threads_at_once() -> None:
    """Two calls that begin at the same time share what finalizers have left."""
    # As many slots as may be held before the collector first looks: newer Pythons let more garbage gather.
    dependency = Dependency("dep", Timeout(), Bulkhead(max_concurrent=1000))
    inner = FaultyTransport([scripted(httpx, b"x")])
    errors: list[BaseException] = []
    client = httpx.Client(transport=resilient.httpx.ResilientTransport(dependency, inner))

    def use() -> None:
        try:
            for _ in range(200):
                open_one(client)  # dropped at once
        except Exception as error:  # noqa: BLE001 - it is looked at below
            errors.append(error)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    gc.collect()
    client.get("http://dep/")
    assert errors == []
    assert dependency.bulkhead.in_use == 0
