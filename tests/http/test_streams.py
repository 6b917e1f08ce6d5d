"""Long streams of a real server, guarded to their end: in a block, in a generator, in a reader of event streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from typing import Any

import anyio
import httpx2
import pytest

import resilient.httpx2
from resilient import Bulkhead, CircuitBreaker, Dependency, Timeout, standard

from .conftest import Declare
from .servers import Handler, Peer, Server

# Of both libraries' own generators, where a test stops reading half-way.
GENERATOR = "ignore:Async generator 'http:ResourceWarning"
pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings(GENERATOR)]
SILENCE = "silence"
CUT = "cut"
# Each as short as one test needs it: on a busy machine anything may take a moment.
PATIENT = Timeout(total=5, first_byte=5, idle=5)
SHORT_TOTAL = Timeout(total=0.5, first_byte=5, idle=5)
SHORT_IDLE = Timeout(total=5, first_byte=5, idle=0.2)
SHORT_FIRST = Timeout(total=5, first_byte=0.2, idle=5)
SHORT_BOTH = Timeout(total=5, first_byte=0.3, idle=0.3)  # a thread may have to wait for the longer one
LATE_FIRST = Timeout(total=5, first_byte=5, idle=0.15)


def streaming(*steps: Any) -> Handler:
    """Answers each request with these steps: events by their data, pauses in seconds, then an end, CUT or SILENCE."""

    async def handle(peer: Peer) -> None:
        while await peer.request() is not None:
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            for step in steps:
                if isinstance(step, float):
                    await asyncio.sleep(step)
                elif step == SILENCE:
                    await peer.reader.read()
                    return
                elif step == CUT:
                    return
                else:
                    event = f"data: {step}\n\n".encode()
                    await peer.send(b"%x\r\n%s\r\n" % (len(event), event))
            await peer.send(b"0\r\n\r\n")

    return handle


def outcomes(dependency: Dependency) -> dict[str, int]:
    assert dependency.bulkhead is not None
    assert dependency.bulkhead.in_use == 0
    return {word: count for word, count in dependency.stats.snapshot().counts.items() if count}


def told(error: Any) -> tuple[str | None, str | None]:
    """An error's class and whose limit it was, where there is one."""
    return (None, None) if error is None else (type(error).__name__, getattr(error, "reason", None))


def async_client(library: Any, dependency: Dependency, **options: Any) -> Any:
    return library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, verify=False, **options), timeout=None)


def sync_client(library: Any, dependency: Dependency) -> Any:
    return library.Client(transport=library.ours.ResilientTransport(dependency, verify=False), timeout=None)


# -- in a block -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timeout", "steps", "error", "reason"),
    [
        (PATIENT, ("a", "b", 0.05, "c"), None, None),
        (PATIENT, ("a", "b", 0.05, CUT), "RemoteProtocolError", None),
        (SHORT_IDLE, ("a", "b", SILENCE), "DeadlineExceeded", "idle"),
        (SHORT_FIRST, (SILENCE,), "DeadlineExceeded", "first_byte"),
        (SHORT_TOTAL, (*[0.1, "x"] * 6,), None, None),
        (LATE_FIRST, (0.3, "a", "b"), None, None),
        (LATE_FIRST, (0.3, "a", SILENCE), "DeadlineExceeded", "idle"),
    ],
    ids=["whole", "cut", "silence", "silence at once", "longer than the total", "late", "late and silent"],
)
async def test_in_a_block(library: Any, declare: Declare, timeout: Timeout, steps: Any, error: str | None, reason: str | None) -> None:
    dependency = declare(*standard(timeout=timeout))
    with Server(streaming(*steps)) as server:
        async with async_client(library, dependency) as client:
            lines = []
            raised: Any = None
            try:
                with anyio.fail_after(5):
                    async with client.stream("GET", server.url) as response:
                        async for line in response.aiter_lines():
                            lines.append(line.removeprefix("data: "))
                            assert dependency.bulkhead.in_use == 1
            except library.TransportError as broken:
                raised = broken
    assert told(raised) == (error, reason)
    assert [line for line in lines if line] == [step for step in steps if step not in (CUT, SILENCE) and isinstance(step, str)]
    assert outcomes(dependency) == {"failure" if error else "success": 1}


@pytest.mark.parametrize(
    ("timeout", "steps", "error", "reason"),
    [
        (PATIENT, ("a", "b", 0.05, "c"), None, None),
        (PATIENT, ("a", "b", 0.05, CUT), "RemoteProtocolError", None),
        (SHORT_BOTH, ("a", "b", SILENCE), "DeadlineExceeded", "idle"),
        (SHORT_BOTH, (SILENCE,), "DeadlineExceeded", "first_byte"),
        (LATE_FIRST, (0.3, "a", "b"), None, None),
    ],
    ids=["whole", "cut", "silence", "silence at once", "late"],
)
def test_in_a_sync_block(library: Any, declare: Declare, timeout: Timeout, steps: Any, error: str | None, reason: str | None) -> None:
    dependency = declare(*standard(timeout=timeout))
    with Server(streaming(*steps)) as server, sync_client(library, dependency) as client:
        raised: Any = None
        try:
            with client.stream("GET", server.url) as response:
                for _ in response.iter_lines():
                    assert dependency.bulkhead.in_use == 1
        except library.TransportError as broken:
            raised = broken
    assert told(raised) == (error, reason)
    assert outcomes(dependency) == {"failure" if error else "success": 1}


async def test_who_begins_to_iterate_again_goes_on_where_he_stopped(library: Any, declare: Declare) -> None:
    """As OpenAI's SDK does after its last event, so that the connection can be used again."""
    dependency = declare(*standard(timeout=PATIENT))
    with Server(streaming("a", 0.05, "b", 0.05, "c")) as server:
        async with async_client(library, dependency) as client:
            for _ in range(2):
                async with client.stream("GET", server.url) as response:
                    chunks = response.aiter_bytes()
                    assert await anext(chunks) == b"data: a\n\n"
                    rest = [chunk async for chunk in response.stream]
                    assert b"".join(rest) == b"data: b\n\ndata: c\n\n"
                    await chunks.aclose()
    assert server.connections == 1
    assert outcomes(dependency) == {"success": 2}


def test_who_begins_to_iterate_again_in_a_sync_block(library: Any, declare: Declare) -> None:
    dependency = declare(*standard(timeout=PATIENT))
    with Server(streaming("a", 0.05, "b", 0.05, "c")) as server, sync_client(library, dependency) as client:
        for _ in range(2):
            with client.stream("GET", server.url) as response:
                chunks = response.iter_bytes()
                assert next(chunks) == b"data: a\n\n"
                assert b"".join(response.stream) == b"data: b\n\ndata: c\n\n"
                chunks.close()
    assert server.connections == 1
    assert outcomes(dependency) == {"success": 2}


# -- in a generator ---------------------------------------------------------------------------------------------------


def reader(client: Any, url: str, around: Dependency) -> Any:
    """A program's own generator of events, under a dependency of its own around the transport's."""

    @around
    async def events() -> AsyncIterator[str]:
        async with client.stream("GET", url) as response:
            async for line in response.aiter_lines():
                if line:
                    yield line.removeprefix("data: ")

    return events


@pytest.mark.parametrize("end", ["whole", "cut", "left", "cancelled"])
async def test_in_a_generator(library: Any, declare: Declare, end: str) -> None:
    dependency = declare(*standard(timeout=PATIENT))
    around = declare(PATIENT, Bulkhead(max_concurrent=1), CircuitBreaker(), name="events")
    steps = {"whole": ("a", "b"), "cut": ("a", 0.02, CUT), "left": ("a", SILENCE), "cancelled": ("a", 0.15, "b", 0.15, "c", 0.15)}[end]
    seen = []
    with Server(streaming(*steps)) as server:
        async with async_client(library, dependency) as client:
            with anyio.move_on_after(0.2 if end == "cancelled" else 5) as scope:
                async with aclosing(reader(client, server.url, around)()) as events:
                    try:
                        async for event in events:
                            seen.append(event)
                            assert around.bulkhead.in_use == dependency.bulkhead.in_use == 1
                            if end == "left":
                                break
                    except library.RemoteProtocolError:
                        assert end == "cut"
            assert scope.cancelled_caught is (end == "cancelled")
    assert seen == ["a", "b"] if end in ("whole", "cancelled") else ["a"]
    outcome = {"cut": "failure", "cancelled": "ignored"}.get(end, "success")
    assert outcomes(dependency) == outcomes(around) == {outcome: 1}


async def test_a_generators_first_item_is_under_the_total_and_the_stream_below_it_closed(library: Any, declare: Declare) -> None:
    dependency = declare(*standard(timeout=Timeout(total=5)))
    around = declare(Timeout(total=0.2), Bulkhead(max_concurrent=1), name="events")
    with Server(streaming(SILENCE)) as server:
        async with async_client(library, dependency) as client:
            with anyio.fail_after(5), pytest.raises(resilient.DeadlineExceeded) as raised:
                await anext(reader(client, server.url, around)())
            assert dependency.bulkhead.in_use == around.bulkhead.in_use == 0
    assert (raised.value.dependency, raised.value.reason) == ("events", "total")


def test_in_a_sync_generator(library: Any, declare: Declare) -> None:
    dependency = declare(*standard(timeout=PATIENT))
    around = declare(Bulkhead(max_concurrent=1), CircuitBreaker(), name="events")
    with Server(streaming("a", "b")) as server, sync_client(library, dependency) as client:

        @around
        def events() -> Iterator[str]:
            with client.stream("GET", server.url) as response:
                yield from filter(None, response.iter_lines())

        assert list(events()) == ["data: a", "data: b"]
        with closing(events()) as begun:
            assert next(begun) == "data: a"
            assert around.bulkhead.in_use == dependency.bulkhead.in_use == 1
    assert outcomes(dependency) == outcomes(around) == {"success": 2}


# -- in a reader of event streams -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "error"),
    [(("a", "b"), None), (("a", SILENCE), "DeadlineExceeded"), (("a", CUT), "RemoteProtocolError")],
    ids=["whole", "silence", "cut"],
)
async def test_event_source_of_httpx2(declare: Declare, steps: Any, error: str | None) -> None:
    dependency = declare(*standard(timeout=SHORT_IDLE if SILENCE in steps else PATIENT))
    transport = resilient.httpx2.AsyncResilientTransport(dependency, verify=False)
    seen = []
    raised: Any = None
    with Server(streaming(*steps)) as server:
        async with httpx2.AsyncClient(transport=transport, timeout=None) as client:
            try:
                async with client.sse(server.url) as source:
                    async for event in source:
                        seen.append(event.data)  # noqa: PERF401
            except httpx2.TransportError as broken:
                raised = broken
    assert told(raised)[0] == error
    assert seen == [step for step in steps if step not in (CUT, SILENCE)]
    assert outcomes(dependency) == {"failure" if error else "success": 1}


async def test_many_streams_at_a_time_keep_to_their_own_pauses(library: Any, declare: Declare) -> None:
    dependency = declare(*standard(timeout=SHORT_TOTAL))
    lines = []

    async def read(url: str) -> None:
        async with client.stream("GET", url) as response:
            lines.extend([line async for line in response.aiter_lines() if line])

    with Server(streaming(*[0.1, "x"] * 6)) as server:
        async with async_client(library, dependency) as client:
            began = time.monotonic()
            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(read, server.url)
    assert len(lines) == 120
    assert time.monotonic() - began > SHORT_TOTAL.total
    assert outcomes(dependency) == {"success": 20}
