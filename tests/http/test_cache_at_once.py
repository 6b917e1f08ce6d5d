"""Answers that are here as soon as they begin: stored before anybody is told of them, and streamed as soon as one has to wait."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest

from resilient import Bulkhead, Cache, CircuitBreaker, Dependency, Timeout
from resilient.http.intake import HELD
from resilient.policies.flight import Flight
from resilient.policies.stock import Stock
from resilient.stores import SQLiteStore
from resilient.tape import Tape
from resilient.testing import FakeClock, RecordingListener

from .conftest import Declare
from .test_cache import Origin, client, origin, results
from .test_cache_held import FRESH, NOTHING, held

__all__ = ["origin"]

pytestmark = pytest.mark.anyio


def at_once(library: Any, *parts: Any) -> Any:
    """A body whose parts are all there: bytes, errors to raise, and None for a turn of the event loop."""

    class Stream(library.AsyncByteStream):  # type: ignore[misc,name-defined]
        closed = 0

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for part in parts:
                if part is None:
                    await asyncio.sleep(0)
                elif isinstance(part, BaseException):
                    raise part
                else:
                    yield part

        async def aclose(self) -> None:
            self.closed += 1

    return Stream()


def answering(library: Any, origin: Origin, *parts: Any, length: int | None = None, **extensions: Any) -> list[Any]:
    """Let the origin answer with such a body; the streams that it has given out."""
    streams: list[Any] = []

    def answer(request: Any) -> Any:
        streams.append(at_once(library, *parts))
        headers = {"cache-control": FRESH, "x-own": "yes"} | ({} if length is None else {"content-length": str(length)})
        return library.Response(200, headers=headers, stream=streams[-1], extensions=dict(extensions))

    origin.answer = answer
    return streams


@pytest.fixture
def taped(monkeypatch: pytest.MonkeyPatch) -> list[Tape]:
    """The tapes that are made."""
    tapes: list[Tape] = []
    make = Tape.__init__

    def init(self: Tape, *args: Any, **kwargs: Any) -> None:
        tapes.append(self)
        make(self, *args, **kwargs)

    monkeypatch.setattr(Tape, "__init__", init)
    return tapes


@pytest.mark.parametrize("length", [None, 4])
async def test_a_short_answer_needs_no_tape(
    library: Any, clock: FakeClock, declare: Declare, origin: Origin, listener: RecordingListener, taped: list[Tape], length: int | None
) -> None:
    cache = Cache()
    dependency = declare(cache, Timeout(), Bulkhead())
    streams = answering(library, origin, b"bo", b"dy", length=length, network_stream=object(), reason_phrase=b"Fine")
    async with client(library, dependency, origin) as http:
        async with http.stream("GET", "/a") as first:
            assert [part async for part in first.aiter_raw()] == [b"body"]
        second = await http.get("/a")
    assert not taped and [stream.closed for stream in streams] == [1]
    assert first.headers["cache-status"] == "dep; fwd=uri-miss; stored" and "age" not in first.headers
    assert "network_stream" not in first.extensions and first.reason_phrase == "Fine" and first.num_bytes_downloaded == 4
    assert second.content == b"body" and second.headers["cache-status"].startswith("dep; hit")
    assert results(listener) == ["miss", "hit"] and held(dependency, cache) == NOTHING


async def test_what_a_caller_does_to_his_answer_is_his_own_affair(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    """The first one has the very object that the inner transport made: nobody else may have it as well."""
    origin.seconds = 1.0
    answering(library, origin, b"body", mark="own")
    answers: list[Any] = []

    async def ask() -> None:
        response = await http.get("/a")
        answers.append((dict(response.headers), dict(response.extensions)))
        response.headers["x-own"] = "mine"
        response.extensions["mark"] = "mine"

    async with client(library, declare(Cache(), Timeout()), origin) as http:
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(ask)
        await ask()
        await ask()
    assert len(answers) == 7 and {headers["x-own"] for headers, _ in answers} == {"yes"}
    statuses = sorted(headers["cache-status"] for headers, _ in answers[:5])
    assert statuses == ["dep; fwd=uri-miss; collapsed; stored"] * 4 + ["dep; fwd=uri-miss; stored"]
    assert {extensions["mark"] for _, extensions in answers[:5]} == {"own"} and len(origin.asked) == 1


async def test_another_cache_has_said_what_it_did(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    headers = {"cache-control": FRESH, "cache-status": "edge; fwd=miss"}
    origin.answer = lambda request: library.Response(200, headers=headers, stream=at_once(library, b"body"))
    async with client(library, declare(Cache(), Timeout()), origin) as http:
        response = await http.get("/a")
    assert response.headers.get_list("cache-status") == ["edge; fwd=miss", "dep; fwd=uri-miss; stored"]


async def test_who_has_to_wait_is_given_what_came(
    library: Any, clock: FakeClock, declare: Declare, origin: Origin, taped: list[Tape]
) -> None:
    """An answer streams on a miss: its head and its first part do not wait for the others."""
    go_on, parts = anyio.Event(), []

    class Stream(library.AsyncByteStream):  # type: ignore[misc,name-defined]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"a"
            yield b"b"
            await go_on.wait()
            yield b"c"

    origin.answer = lambda request: library.Response(200, headers={"cache-control": FRESH, "content-length": "3"}, stream=Stream())
    async with client(library, declare(Cache(), Timeout()), origin) as http:
        with anyio.fail_after(30):
            async with http.stream("GET", "/a") as response:
                async for part in response.aiter_raw():
                    parts.append(part)
                    if parts == [b"a", b"b"]:
                        go_on.set()
        assert (await http.get("/a")).content == b"abc"
    assert parts == [b"a", b"b", b"c"] and len(taped) == 1 and len(origin.asked) == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_to_let_others_run_is_no_wait(
    library: Any, clock: FakeClock, declare: Declare, origin: Origin, taped: list[Tape], anyio_backend: str
) -> None:
    """As pools do that take a lock to give a connection back."""
    answering(library, origin, b"body", None, None, length=4)
    async with client(library, declare(Cache(), Timeout()), origin) as http:
        assert (await http.get("/a")).content == b"body" == (await http.get("/a")).content
    assert not taped and len(origin.asked) == 1


@pytest.mark.parametrize("parts", [(b"bo",), (b"body", b"and more"), ()])
async def test_a_body_of_another_length_than_it_said_is_not_kept(
    library: Any, clock: FakeClock, declare: Declare, origin: Origin, parts: tuple[bytes, ...]
) -> None:
    cache = Cache()
    dependency = declare(cache, Timeout(), Bulkhead())
    streams = answering(library, origin, *parts, length=4)
    async with client(library, dependency, origin) as http:
        for _ in range(2):
            assert (await http.get("/a")).content == b"".join(parts)
    assert len(origin.asked) == 2 and [stream.closed for stream in streams] == [1, 1] and cache.store.count == 0  # type: ignore[attr-defined]
    assert held(dependency, cache) == NOTHING


async def test_a_body_that_breaks_at_once(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    cache, breaker = Cache(), CircuitBreaker(fail_max=1)
    dependency = declare(cache, Timeout(), Bulkhead(), breaker)
    streams = answering(library, origin, b"bo", library.ReadError("broken"), length=4)
    async with client(library, dependency, origin) as http:
        with pytest.raises(library.ReadError, match="broken"):
            await http.get("/a")
    assert streams[0].closed == 1 and breaker.current_state == "open" and cache.store.count == 0  # type: ignore[attr-defined]
    assert held(dependency, cache) == NOTHING


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_body_that_is_cancelled_from_within(
    library: Any, clock: FakeClock, declare: Declare, origin: Origin, anyio_backend: str
) -> None:
    cache = Cache()
    dependency = declare(cache, Timeout(), Bulkhead())
    streams = answering(library, origin, b"bo", asyncio.CancelledError(), length=4)
    async with client(library, dependency, origin) as http:
        with pytest.raises(library.ReadError, match="given up"):
            await http.get("/a")
    assert len(origin.asked) == 1 == streams[0].closed and held(dependency, cache) == NOTHING


async def test_no_more_is_held_back_than_a_little(
    library: Any, clock: FakeClock, declare: Declare, origin: Origin, taped: list[Tape]
) -> None:
    part = b"x" * (HELD // 2)
    answering(library, origin, part, part, b"y", length=HELD + 1)
    async with client(library, declare(Cache(), Timeout()), origin) as http:
        assert len((await http.get("/a")).content) == HELD + 1 == len((await http.get("/a")).content)
        assert len(taped) == 1 == len(origin.asked)
        answering(library, origin, part, part, length=HELD)
        assert len((await http.get("/b")).content) == HELD
    assert len(taped) == 1


async def test_a_store_that_takes_its_time_keeps_nobody_waiting(
    library: Any, origin: Origin, taped: list[Tape], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks meanwhile gets it from the flight."""
    with SQLiteStore(tmp_path / "cache.db", l1_bytes=0, timeout=5) as store:
        cache = Cache(store=store)
        dependency = Dependency("dep", cache, Timeout(), Bulkhead())
        answering(library, origin, b"body", length=4)
        go_on, kept, keep = anyio.Event(), anyio.Event(), Stock.keep

        async def slow(stock: Stock, *args: Any) -> None:
            await go_on.wait()
            await keep(stock, *args)
            kept.set()

        monkeypatch.setattr(Stock, "keep", slow)
        async with client(library, dependency, origin) as http:
            with anyio.fail_after(30):
                first, second = await http.get("/a"), await http.get("/a")
                assert "stored" in first.headers["cache-status"] and "collapsed" in second.headers["cache-status"]
                go_on.set()
                await kept.wait()
                assert store.flush(5)
                third = await http.get("/a")
        assert third.headers["cache-status"].startswith("dep; hit") and {first.text, second.text, third.text} == {"body"}
        assert len(origin.asked) == 1 and not taped and held(dependency, cache) == NOTHING


async def test_a_write_meanwhile_keeps_it_from_the_store(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    cache = Cache()
    dependency = declare(cache, Timeout())
    origin.seconds = 1.0
    answering(library, origin, b"old", length=3)
    async with client(library, dependency, origin) as http:
        async with anyio.create_task_group() as group:
            group.start_soon(http.get, "/a")
            await anyio.sleep(0.5)
            origin.seconds = 0.0
            await http.post("/a")
        await http.get("/a")
    assert [request.method for request in origin.asked] == ["GET", "POST", "GET"]


async def test_a_stale_answer_in_place_of_an_error_lets_go_of_the_error(
    library: Any, clock: FakeClock, declare: Declare, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its traceback leads to the flight, which would lead back to it until a collection."""
    flights: list[Flight] = []
    make = Flight.__init__

    def noted(self: Flight, *args: Any, **kwargs: Any) -> None:
        flights.append(self)
        make(self, *args, **kwargs)

    monkeypatch.setattr(Flight, "__init__", noted)
    origin.says(200, b"old", cache_control="max-age=1, stale-if-error=100")
    async with client(library, declare(Cache(), Timeout()), origin) as http:
        await http.get("/a")
        await anyio.sleep(5)
        error = library.ConnectError("refused")
        origin.fails(error)
        stale = await http.get("/a")
    assert stale.text == "old" and stale.extensions["degraded"]["cause"]
    left = flights[-1].error
    assert left is not None and left is not error and left.__traceback__ is None


class Noting:
    """A policy that remembers the calls it has seen, and holds none of them."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def run(self, call: Any, inner: Any) -> Any:
        self.seen.append(weakref.ref(call))
        return await inner(call)


@pytest.mark.parametrize("cached", [False, True])
async def test_a_request_leaves_no_call_to_the_collector(library: Any, by_hand_alone: None, cached: bool) -> None:
    """What leads back to itself has to be looked for, among everything else that there is."""
    outside, inside = Noting(), Noting()

    class Transport(library.AsyncBaseTransport):  # type: ignore[misc,name-defined]
        async def handle_async_request(self, request: Any) -> Any:
            return library.Response(200, headers={"cache-control": FRESH}, stream=at_once(library, b"body"))

    dependency = Dependency("dep", outside, *([Cache()] if cached else []), inside, Timeout())
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, Transport())) as http:
        for number in range(3):
            assert (await http.get(f"http://dep/{number}")).text == "body"
    calls = [ref() for ref in (*outside.seen, *inside.seen)]
    assert len(calls) == 6
    # The older library's own answers lead back to themselves, and to the streams that they were read from.
    assert (library.module is httpx and not cached) or calls == [None] * 6
