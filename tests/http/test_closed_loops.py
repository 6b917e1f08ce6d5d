"""Event loops that are closed with work left: what was dropped on them is given back, and nothing keeps them."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import anyio
import pytest

from resilient import Bulkhead
from resilient.events import ResponseAbandoned
from resilient.testing import FakeClock, FaultyTransport, RecordingListener

from .conftest import Declare

# asyncio says so of tasks that its own loop left unfinished: that is what these tests do.
pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def hanging(library: Any, seconds: float = 1e9) -> Any:
    """An answer whose stream takes its time to close."""

    class Hanging(library.AsyncByteStream):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.begun = 0
            self.cancelled = False

        async def __aiter__(self) -> Any:
            yield b"x"

        async def aclose(self) -> None:
            self.begun += 1
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                self.cancelled = True
                raise

    def respond(request: Any) -> Any:
        respond.stream = Hanging()  # type: ignore[attr-defined]
        return library.Response(200, stream=respond.stream)  # type: ignore[attr-defined]

    return respond


def open_one(client: Any) -> Any:
    return client.send(client.build_request("GET", "http://dep/"), stream=True)


def turn(loop: asyncio.AbstractEventLoop, times: int) -> None:
    """Let the loop run what is ready, so many times, and stand still again."""
    for _ in range(times):
        loop.call_soon(loop.stop)
        loop.run_forever()


@pytest.mark.parametrize("when", ["at once", "before the task began", "while it closes"])
def test_nothing_keeps_a_loop_that_was_closed_before_the_streams_were(
    library: Any, declare: Declare, listener: RecordingListener, when: str
) -> None:
    dependency = declare(Bulkhead(max_concurrent=1))
    respond = hanging(library)
    loop = asyncio.new_event_loop()
    client = library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, FaultyTransport([respond])))
    response = loop.run_until_complete(open_one(client))
    assert dependency.bulkhead.in_use == 1
    del response
    gc.collect()
    turn(loop, {"at once": 0, "before the task began": 1, "while it closes": 3}[when])
    assert respond.stream.begun == (when == "while it closes")
    stream, gone = weakref.ref(respond.stream), weakref.ref(loop)
    loop.close()
    del respond.stream, loop
    asyncio.set_event_loop(None)
    gc.collect()
    if when == "at once":
        assert dependency.bulkhead.in_use == 1, "the loop never ran what it was given"
    dependency.call_sync(int)
    assert dependency.bulkhead.in_use == 0
    assert len(listener.of(ResponseAbandoned)) == 1
    gc.collect()
    assert gone() is None
    assert stream() is None


def test_loop_after_loop_leaves_nothing(library: Any, declare: Declare) -> None:
    dependency = declare(Bulkhead(max_concurrent=1))
    respond = hanging(library)
    client = library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, FaultyTransport([respond])))
    before = None
    for number in range(8):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(open_one(client))
        gc.collect()
        turn(loop, 3)
        loop.close()
        del loop
        gc.collect()
        alive = sum(isinstance(one, asyncio.Task | asyncio.AbstractEventLoop) for one in gc.get_objects())
        before = alive if number == 3 else before
    assert alive == before
    assert dependency.bulkhead.in_use == 0 and not dependency.abandoned


@pytest.mark.anyio
async def test_a_stream_that_does_not_close_is_given_up(library: Any, clock: FakeClock, declare: Declare) -> None:
    if asyncio._get_running_loop() is None:
        pytest.skip("trio's system tasks end with its run")
    respond = hanging(library)
    client = library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(), FaultyTransport([respond])))
    await open_one(client)
    gc.collect()
    await anyio.sleep(29)
    assert respond.stream.begun == 1 and not respond.stream.cancelled
    await anyio.sleep(2)
    assert respond.stream.cancelled


@pytest.mark.anyio
async def test_a_stream_that_closes_in_time_leaves_no_timer(library: Any, clock: FakeClock, declare: Declare) -> None:
    loop: Any = asyncio._get_running_loop()
    if loop is None:
        pytest.skip("there is none on trio")
    respond = hanging(library, 1)
    client = library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(), FaultyTransport([respond])))
    await open_one(client)
    gc.collect()
    await anyio.sleep(5)
    assert respond.stream.begun == 1
    assert [timer for timer in loop._scheduled if not timer.cancelled() and timer.when() > loop.time()] == []
