"""What a cache holds on the way: given back exactly once, whoever leaves when, and nobody waits for what never comes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

import resilient.httpx
from resilient import Bulkhead, Cache, CircuitBreaker, Dependency, Fallback, Retry, Timeout
from resilient.policies.flight import Flight
from resilient.tape import Tape
from resilient.testing import FakeClock, FaultyTransport, RecordingListener

from .conftest import Declare
from .test_cache import Origin, client, origin, results

__all__ = ["origin"]

FRESH = "max-age=60"


def held(dependency: Dependency, cache: Cache) -> tuple[int, int, int, int]:
    """Slots, flights, bytes and refreshes that are out."""
    dependency.reclaim()
    flights = cache.flights
    assert flights is not None and dependency.bulkhead is not None
    return dependency.bulkhead.in_use, len(flights), flights.bytes, len(flights.refreshing)


NOTHING = (0, 0, 0, 0)


def streaming(library: Any, *parts: Any, pause: float = 0.0) -> Any:
    """A body that comes in parts, of which an exception is raised; `closed` tells how often it was closed."""

    class Stream(library.AsyncByteStream):  # type: ignore[misc,name-defined]
        closed = 0

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for part in parts:
                if isinstance(part, Exception):
                    raise part
                yield part
                await anyio.sleep(pause)

        async def aclose(self) -> None:
            self.closed += 1

    return Stream()


# -- cancellation ---------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("status", [200, 304, 404, 503])
@pytest.mark.parametrize("steps", range(12))
async def test_cancelled_at_any_step(library: Any, clock: FakeClock, declare: Declare, origin: Origin, status: int, steps: int) -> None:
    """The caller leaves after so many turns of the event loop, wherever the fetch is by then."""
    cache = Cache()
    dependency = declare(cache, Timeout(), Bulkhead(), CircuitBreaker())
    origin.says(200, b"old", cache_control="max-age=1", etag='"1"')
    streams = []

    def answer(request: Any) -> Any:
        stream = streaming(library, *([] if status == 304 else [b"a", b"b"]))
        streams.append(stream)
        return library.Response(status, headers={"cache-control": FRESH if status == 200 else "", "etag": '"1"'}, stream=stream)

    async with client(library, dependency, origin) as http:
        await http.get("/a")
        await anyio.sleep(5)
        origin.answer = answer
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(http.get, "/a")
                for _ in range(steps):
                    await anyio.lowlevel.checkpoint()
                scope.cancel()
        await anyio.sleep(20)
        assert held(dependency, cache) == NOTHING
        assert all(stream.closed for stream in streams)


@pytest.mark.parametrize("cache_control", ["no-store", FRESH])
@pytest.mark.parametrize("steps", range(14))
def test_cancelled_natively_at_any_step(clock: FakeClock, cache_control: str, steps: int) -> None:
    cache = Cache()
    dependency = Dependency("dep", cache, Timeout(), Bulkhead(), clock=clock)
    streams = []

    async def answer(request: Any) -> Any:
        await asyncio.sleep(0)
        streams.append(streaming(httpx, b"a", b"b"))
        return httpx.Response(200, headers={"cache-control": cache_control}, stream=streams[-1])

    async def main() -> None:
        transport = resilient.httpx.AsyncResilientTransport(dependency, FaultyTransport([answer]))
        async with httpx.AsyncClient(transport=transport, base_url="http://dep") as http:
            task = asyncio.create_task(http.get("/a"))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            await asyncio.sleep(20)
            assert held(dependency, cache) == NOTHING
            assert all(stream.closed for stream in streams)

    with asyncio.Runner(loop_factory=clock.loop) as runner:
        runner.run(main())


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_thousand_with_the_leader_cancelled(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    cache = Cache()
    dependency = declare(cache, Timeout(), Bulkhead())
    origin.seconds = 1.0
    got: list[str] = []
    leader = anyio.CancelScope()

    async def ask() -> None:
        got.append((await http.get("/a")).text)

    async def lead() -> None:
        with leader:
            await ask()

    async with client(library, dependency, origin) as http:
        async with anyio.create_task_group() as group:
            group.start_soon(lead)
            await anyio.sleep(0.1)
            for _ in range(999):
                group.start_soon(ask)
            await anyio.sleep(0.1)
            leader.cancel()
    assert got == ["body"] * 999 and len(origin.asked) == 1
    assert held(dependency, cache) == NOTHING


@pytest.mark.anyio
async def test_those_who_gave_up_waiting_are_forgotten(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    cache = Cache()
    origin.seconds = 10.0
    async with client(library, declare(cache, Timeout()), origin) as http, anyio.create_task_group() as group:
        group.start_soon(http.get, "/a")
        await anyio.sleep(0.1)
        for _ in range(50):
            with anyio.move_on_after(0.01):
                await http.get("/a")
        assert cache.flights is not None
        (flight,) = cache.flights._out.values()
        assert len(flight._waiters) == 1 and flight.interest == 1


# -- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_broken_body_is_a_failure_for_all_who_waited(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    cache = Cache()
    dependency = declare(cache, Timeout(), Bulkhead())
    origin.says(200, b"old", cache_control="max-age=1, stale-if-error=100")
    ends: list[Any] = []

    async def ask(path: str) -> None:
        try:
            ends.append((await http.get(path)).text)
        except library.RemoteProtocolError as error:
            ends.append(type(error))

    async with client(library, dependency, origin) as http:
        await http.get("/b")
        await anyio.sleep(10)
        origin.seconds = 1.0
        origin.answer = lambda request: library.Response(
            200, headers={"cache-control": FRESH}, stream=streaming(library, b"half", library.RemoteProtocolError("cut"), pause=0.1)
        )
        for path in "/a", "/b":
            asked = len(origin.asked)
            async with anyio.create_task_group() as group:
                for _ in range(50):
                    group.start_soon(ask, path)
            assert len(origin.asked) == asked + 1
    assert ends[:50] == [library.RemoteProtocolError] * 50
    # Who began has read half of it by then; the others have something better.
    assert ends[50:].count("old") == 49 and library.RemoteProtocolError in ends[50:]
    assert held(dependency, cache) == NOTHING


@pytest.mark.anyio
async def test_a_long_body_of_unknown_length_makes_nobody_wait_twice(
    library: Any, clock: FakeClock, declare: Declare, origin: Origin, listener: RecordingListener
) -> None:
    cache = Cache(max_body=10)
    dependency = declare(cache, Timeout(), Bulkhead())
    origin.answer = lambda request: library.Response(
        200, headers={"cache-control": FRESH}, stream=streaming(library, *[b"x" * 6] * 20, pause=0.1)
    )
    sizes: list[int] = []

    async def ask() -> None:
        sizes.append(len((await http.get("/a")).content))

    async with client(library, dependency, origin) as http:
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(ask)
        began = clock.now()
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(ask)
        assert clock.now() - began == pytest.approx(2.0, abs=0.15)
    assert sizes == [120] * 20
    assert held(dependency, cache) == NOTHING


@pytest.mark.anyio
async def test_who_drops_an_answer_unread_keeps_nothing_open(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    cache = Cache()
    dependency = declare(cache, Timeout(), Bulkhead())
    stream = streaming(library, *[b"x" * 50_000] * 20, pause=1)
    origin.answer = lambda request: library.Response(200, headers={"cache-control": FRESH}, stream=stream)
    async with client(library, dependency, origin) as http:
        response = await http.send(http.build_request("GET", "/a"), stream=True)
        assert held(dependency, cache)[0] == 1
        del response
        gc.collect()
        await anyio.sleep(0.5)
        assert held(dependency, cache) == NOTHING and stream.closed == 1


@pytest.mark.anyio
async def test_bytes_on_their_way_are_bounded(
    library: Any, clock: FakeClock, declare: Declare, origin: Origin, monkeypatch: pytest.MonkeyPatch, listener: RecordingListener
) -> None:
    monkeypatch.setattr("resilient.policies.flights.BYTES_LIMIT", 3000)
    cache = Cache(max_body=1000)
    dependency = declare(cache, Timeout(), Bulkhead())
    origin.answer = lambda request: library.Response(200, headers={"cache-control": FRESH}, stream=streaming(library, b"x", pause=1))
    most = 0
    async with client(library, dependency, origin) as http:
        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(http.get, f"/{number}")
            await anyio.sleep(0.1)
            assert cache.flights is not None
            most = cache.flights.bytes
    assert most == 3000 and results(listener).count("pass") == 7
    assert held(dependency, cache) == NOTHING


# -- what is news, and what is not ------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_user_agent_may_choose_a_variant(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    origin.seconds = 1.0
    origin.answer = lambda request: library.Response(
        200, headers={"cache-control": FRESH, "vary": "user-agent"}, content=request.headers["user-agent"].encode()
    )
    wrong: list[str] = []

    async def ask(agent: str) -> None:
        text = (await http.get("/a", headers={"user-agent": agent})).text
        if text != agent:
            wrong.append(text)

    async with client(library, declare(Cache(), Timeout()), origin) as http, anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(ask, f"agent/{number % 2}")
    assert not wrong


@pytest.mark.anyio
@pytest.mark.parametrize("news", [404, 410, 302, 200])
async def test_news_that_is_not_kept_drives_out_what_was(
    library: Any, clock: FakeClock, declare: Declare, origin: Origin, news: int
) -> None:
    origin.says(200, b"old", cache_control="max-age=10, stale-if-error=1000")
    async with client(library, declare(Cache(), Timeout()), origin) as http:
        await http.get("/a")
        await anyio.sleep(20)
        origin.says(news, b"gone", cache_control="no-store")
        assert (await http.get("/a")).status_code == news
        origin.says(503, b"")
        assert (await http.get("/a")).status_code == 503  # and what is known to be wrong is not served


@pytest.mark.anyio
@pytest.mark.parametrize("status", [429, 408, 503])
async def test_an_answer_about_the_asking_drives_out_nothing(
    library: Any, clock: FakeClock, declare: Declare, origin: Origin, status: int
) -> None:
    origin.says(200, b"old", cache_control="max-age=10, stale-if-error=1000")
    async with client(library, declare(Cache(), Timeout()), origin) as http:
        await http.get("/a")
        await anyio.sleep(20)
        origin.says(status, b"", cache_control="no-store")
        await http.get("/a")
        await anyio.sleep(10)
        origin.fails(library.ConnectError("refused"))
        assert (await http.get("/a")).text == "old"


@pytest.mark.anyio
async def test_what_a_fallback_inside_said_is_not_kept(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    origin.fails(library.ConnectError("refused"))
    async with client(library, declare(Cache(ttl=60), Fallback({"default": 1}), Timeout()), origin) as http:
        response = await http.get("/a")
        assert response.json() == {"default": 1} and response.extensions["degraded"]["cause"] == "ConnectError"
        origin.says(200, b"good")
        assert (await http.get("/a")).text == "good"


@pytest.mark.anyio
async def test_a_write_that_never_left_drives_out_nothing(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    origin.says(200, b"old", cache_control="max-age=10, stale-if-error=1000")
    good = origin.answer
    async with client(library, declare(Cache(), Timeout()), origin) as http:
        await http.get("/a")
        await anyio.sleep(20)
        origin.fails(library.ConnectError("refused"))
        for method in "POST", "OPTIONS":
            with pytest.raises(library.ConnectError):
                await http.request(method, "/a")
        assert (await http.get("/a")).text == "old"
        origin.fails(library.ReadError("who knows"))
        with pytest.raises(library.ReadError):
            await http.request("OPTIONS", "/a")
        assert (await http.get("/a")).text == "old"
        with pytest.raises(library.ReadError):
            await http.post("/a")
        with pytest.raises(library.ReadError):
            await http.get("/a")
        origin.answer = good


@pytest.mark.anyio
async def test_a_write_past_the_cache_is_noticed(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    async with client(library, declare(Cache(), Timeout()), origin) as http:
        await http.get("/a")
        await http.post("/a", extensions={"resilient": {"cache": False}})
        origin.says(200, b"new")
        assert (await http.get("/a")).text == "new"


@pytest.mark.anyio
async def test_reset_forgets_what_is_on_its_way(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    cache = Cache()
    dependency = declare(cache, Timeout())
    origin.seconds = 1.0
    async with client(library, dependency, origin) as http:
        async with anyio.create_task_group() as group:
            group.start_soon(http.get, "/a")
            await anyio.sleep(0.5)
            dependency.reset()
        origin.says(200, b"new", cache_control=FRESH)
        assert (await http.get("/a")).text == "new"


@pytest.mark.anyio
async def test_switched_off_it_is_not_there(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    dependency = declare(Cache(), Timeout())
    async with client(library, dependency, origin) as http:
        await http.get("/a")
        dependency.enabled = False
        await http.get("/a")
        assert len(origin.asked) == 2


@pytest.mark.anyio
async def test_a_mistake_of_the_inner_transport_reaches_the_caller(
    library: Any, clock: FakeClock, declare: Declare, origin: Origin
) -> None:
    cache = Cache()
    dependency = declare(cache, Timeout(), Bulkhead())
    origin.answer = lambda request: "no response"
    async with client(library, dependency, origin) as http:
        with pytest.raises(TypeError, match="inner"):
            await http.get("/a")
    assert held(dependency, cache) == NOTHING


@pytest.mark.anyio
async def test_one_refresh_for_what_may_not_be_shared(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    origin.says(200, b"old", cache_control="max-age=10, stale-while-revalidate=100")
    async with client(library, declare(Cache(), Timeout()), origin) as http:
        await http.get("/a")
        await anyio.sleep(20)
        origin.seconds = 1.0
        origin.says(200, b"mine", cache_control="no-store")
        for _ in range(3):
            await http.get("/a")
        await anyio.sleep(1.5)  # it could not be shared, so requests like it do not wait for each other for a while
        origin.says(200, b"old", cache_control="max-age=0, stale-while-revalidate=100")
        asked = len(origin.asked)
        await http.get("/a")
        for _ in range(5):
            await http.get("/a")
        await anyio.sleep(2)
        assert len(origin.asked) <= asked + 2


# -- retries, redirects, challenges ---------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_chain_of_redirects_keeps_its_deadline(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    def answer(request: Any) -> Any:
        number = int(request.url.path[1:])
        return library.Response(
            301 if number % 2 else 302, headers={"location": f"/{number + 1}", "cache-control": f"max-age={number % 2 * 60}"}
        )

    origin.answer = answer
    origin.seconds = 2.0
    async with client(library, declare(Cache(), Timeout(total=5)), origin) as http:
        for _ in range(2):
            began = clock.now()
            with pytest.raises(library.TimeoutException):
                await http.get("/1", follow_redirects=True)
            assert clock.now() - began <= 5.2


@pytest.mark.anyio
async def test_a_cached_redirect_is_followed(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    def answer(request: Any) -> Any:
        if request.url.path == "/old":
            return library.Response(301, headers={"location": "/new", "cache-control": FRESH})
        return library.Response(200, headers={"cache-control": FRESH}, content=b"new")

    origin.answer = answer
    async with client(library, declare(Cache(), Timeout()), origin) as http:
        for _ in range(3):
            response = await http.get("/old", follow_redirects=True)
            assert response.text == "new" and [one.status_code for one in response.history] == [301]
    assert len(origin.asked) == 2


@pytest.mark.anyio
async def test_a_challenge_is_not_for_others(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    class Auth(library.Auth):  # type: ignore[misc,name-defined]
        def auth_flow(self, request: Any) -> Any:
            response = yield request
            if response.status_code == 401:
                request.headers["authorization"] = "Bearer me"
                yield request

    origin.answer = lambda request: (
        library.Response(200, headers={"cache-control": FRESH}, content=b"secret")
        if "authorization" in request.headers
        else library.Response(401, headers={"www-authenticate": "Bearer", "cache-control": FRESH})
    )
    async with client(library, declare(Cache(), Timeout()), origin) as http:
        assert (await http.get("/a", auth=Auth())).text == "secret"
        assert (await http.get("/a")).status_code == 401
        assert (await http.get("/a", headers={"authorization": "Bearer you"})).text == "secret"
    assert len(origin.asked) == 4  # nothing of it was kept


@pytest.mark.anyio
async def test_a_retry_outside_of_the_cache(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    turns = iter((503, 503, 200))
    origin.answer = lambda request: library.Response(next(turns), headers={"cache-control": FRESH}, content=b"x")
    cache = Cache()
    dependency = declare(Retry(attempts=3), cache, Timeout(), Bulkhead())
    async with client(library, dependency, origin) as http:
        assert (await http.get("/a")).status_code in (200, 503)
        await anyio.sleep(5)
    assert held(dependency, cache) == NOTHING


@pytest.mark.anyio
async def test_what_a_client_sees_of_a_stored_answer(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    seen: list[int] = []

    async def hook(response: Any) -> None:
        seen.append(response.status_code)

    origin.says(200, b"0123456789", cache_control=FRESH)
    async with client(library, declare(Cache(), Timeout()), origin) as http:
        http.event_hooks = {"response": [hook]}
        for _ in range(2):
            async with http.stream("GET", "/a") as response:
                assert await response.aread() == b"0123456789" == await response.aread()
                assert response.num_bytes_downloaded == 10
            assert response.elapsed.total_seconds() >= 0 and response.is_closed
        nothing = await http.get("/b", headers={"cache-control": "only-if-cached"})
        assert nothing.status_code == 504 and nothing.elapsed.total_seconds() >= 0
    assert seen == [200, 200, 504]


# -- loops that end, and threads ----------------------------------------------------------------------------------------


def sync_client(dependency: Any, answer: Callable[[Any], Any]) -> httpx.Client:
    return httpx.Client(transport=resilient.httpx.ResilientTransport(dependency, FaultyTransport([answer])), base_url="http://dep")


def fresh(request: Any) -> httpx.Response:
    return httpx.Response(200, headers={"cache-control": FRESH}, content=b"body")


@pytest.mark.parametrize("landed", [False, True])
def test_a_loop_that_stands_still_holds_nobody_up(landed: bool) -> None:
    """A flight whose event loop is run no more, with a thread that waits for it."""
    cache = Cache()
    dependency = Dependency("dep", cache, Timeout(), Bulkhead())
    loop = asyncio.new_event_loop()
    ends: list[Any] = []

    async def answer(request: Any) -> Any:
        if landed:
            return httpx.Response(200, headers={"cache-control": FRESH, "content-length": "2"}, stream=streaming(httpx, b"a", pause=1000))
        await asyncio.sleep(1000)
        return None

    async def begin() -> None:
        transport = resilient.httpx.AsyncResilientTransport(dependency, FaultyTransport([answer]))
        request = httpx.Request("GET", "http://dep/a")
        task = loop.create_task(transport.handle_async_request(request))
        keep.append(task)
        await asyncio.sleep(0.1)
        thread.start()
        await asyncio.sleep(0.3)

    def follow() -> None:
        try:
            with sync_client(dependency, fresh) as http:
                ends.append(http.get("http://dep/a", headers={"host": "dep"}).text)
        except httpx.TransportError as error:
            ends.append(type(error))
        except ConnectionError as error:
            ends.append(type(error))

    keep: list[Any] = []
    thread = threading.Thread(target=follow)
    loop.run_until_complete(begin())
    try:
        thread.join(10)
        assert not thread.is_alive(), "the thread waits for ever"
        assert len(ends) == 1
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.05))
        keep[0].cancelled() or keep[0].exception()
        loop.close()


def test_refreshes_that_a_loop_took_along_are_not_counted_for_ever(clock: FakeClock) -> None:
    cache = Cache()
    dependency = Dependency("dep", cache, Timeout(), Bulkhead(), clock=clock)

    def answer(request: Any) -> Any:
        return httpx.Response(200, headers={"cache-control": "max-age=1, stale-while-revalidate=100000"}, content=b"body")

    async def main(path: str, wait: float) -> None:
        transport = resilient.httpx.AsyncResilientTransport(dependency, FaultyTransport([answer]))
        async with httpx.AsyncClient(transport=transport, base_url="http://dep") as http:
            await http.get(path)
            clock.advance(10)
            await http.get(path)  # begins a refresh, and the loop ends before it has taken a step
            await asyncio.sleep(wait)

    for number in range(40):
        with asyncio.Runner(loop_factory=clock.loop) as runner:
            task = main(f"/{number}", 0)
            runner.run(task)
    assert held(dependency, cache) == NOTHING


def test_a_synchronous_call_on_an_event_loop_does_not_wait_for_its_tasks() -> None:
    cache = Cache()
    dependency = Dependency("dep", cache, Timeout())

    async def slow(request: Any) -> Any:
        await asyncio.sleep(0.2)
        return fresh(request)

    async def main() -> None:
        transport = resilient.httpx.AsyncResilientTransport(dependency, FaultyTransport([slow]))
        async with httpx.AsyncClient(transport=transport, base_url="http://dep") as http:
            task = asyncio.create_task(http.get("/a"))
            await asyncio.sleep(0.05)
            with sync_client(dependency, fresh) as other, pytest.warns(RuntimeWarning, match="event loop"):
                assert other.get("/a").text == "body"
            assert (await task).text == "body"

    asyncio.run(main())


def test_loops_and_threads_share_one_fetch(library: Any) -> None:
    cache = Cache()
    dependency = Dependency("dep", cache, Timeout(), Bulkhead())
    asked: list[Any] = []
    ends: list[str] = []
    barrier = threading.Barrier(12)

    async def slow(request: Any) -> Any:
        asked.append(request)
        await anyio.sleep(0.4)
        return library.Response(200, headers={"cache-control": FRESH}, stream=streaming(library, b"bo", b"dy", pause=0.1))

    def quick(request: Any) -> Any:
        asked.append(request)
        time.sleep(0.4)
        return library.Response(200, headers={"cache-control": FRESH}, content=b"body")

    async def on_loop() -> None:
        transport = library.ours.AsyncResilientTransport(dependency, FaultyTransport([slow]))
        async with library.AsyncClient(transport=transport, base_url="http://dep") as http, anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(ask, http)

    async def ask(http: Any) -> None:
        ends.append((await http.get("/a")).text)

    def work(number: int) -> None:
        barrier.wait()
        if number < 4:
            anyio.run(on_loop, backend="asyncio" if number < 2 else "trio")
        else:
            with library.Client(
                transport=library.ours.ResilientTransport(dependency, FaultyTransport([quick])), base_url="http://dep"
            ) as http:
                ends.append(http.get("/a").text)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert ends == ["body"] * 48 and len(asked) == 1
    assert held(dependency, cache) == NOTHING


def forks_while_another_thread_fetches() -> int:
    """The exit code of a program that does so: 0 if its child got an answer of its own."""
    cache = Cache()
    dependency = Dependency("dep", cache, Timeout())
    reached, go = threading.Event(), threading.Event()

    def slow(request: Any) -> Any:
        reached.set()
        go.wait(20)
        return fresh(request)

    with sync_client(dependency, slow) as http:
        thread = threading.Thread(target=http.get, args=("/a",))
        thread.start()
        assert reached.wait(5)
        child = os.fork()
        if child == 0:
            with sync_client(dependency, fresh) as other:
                os._exit(0 if other.get("/a").text == "body" else 1)
        end = time.monotonic() + 10
        done = (0, 0)
        while done[0] == 0 and time.monotonic() < end:
            done = os.waitpid(child, os.WNOHANG)
            threading.Event().wait(0.02)
        go.set()
        thread.join(5)
        if done[0] == 0:
            os.kill(child, 9)
            os.waitpid(child, 0)
        return 0 if done == (child, 0) else 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_does_not_wait_for_what_its_parent_began() -> None:
    # In a process of its own: what other tests have left in this one, threads of other libraries above all, may not survive a fork.
    program = f"import sys; from {__name__} import forks_while_another_thread_fetches as run; sys.exit(run())"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# -- memory -------------------------------------------------------------------------------------------------------------


class Large:
    """A caller's local variable."""


@pytest.mark.parametrize("how", ["hit", "miss", "pass", "error", "shared error", "stale"])
def test_nothing_pins_answers_errors_or_callers(clock: FakeClock, by_hand_alone: None, how: str) -> None:
    """No cycle waits for the collector."""
    cache = Cache()
    dependency = Dependency("dep", cache, Timeout(), Bulkhead(), clock=clock)
    state = {"status": 200, "control": "max-age=10, stale-if-error=1000"}

    async def answer(request: Any) -> Any:
        await asyncio.sleep(1)
        if state["status"] == 0:
            raise httpx.ReadError("cut")
        return httpx.Response(state["status"], headers={"cache-control": state["control"]}, content=b"x")

    references: list[weakref.ref[Any]] = []

    async def ask(http: Any) -> None:
        large = Large()
        references.append(weakref.ref(large))
        try:
            response = await http.get("/a")
        except httpx.ReadError as error:
            references.append(weakref.ref(error))
        else:
            assert response.content == b"x"
            del response  # of a library's own making: it and its stream hold each other
        del large

    async def main() -> None:
        transport = resilient.httpx.AsyncResilientTransport(dependency, FaultyTransport([answer]))
        http = httpx.AsyncClient(transport=transport, base_url="http://dep")
        if how in ("hit", "stale"):
            await http.get("/a")
        if how == "stale":
            clock.advance(20)
        if how in ("error", "shared error", "stale"):
            state["status"] = 0
        if how == "pass":
            state["control"] = "no-store"
        await asyncio.gather(*(ask(http) for _ in range(3 if how == "shared error" else 1)))
        await asyncio.sleep(1)
        await http.aclose()
        alive.extend(reference() for reference in references if reference() is not None)

    alive: list[Any] = []
    with asyncio.Runner(loop_factory=clock.loop) as runner:
        runner.run(main())
    assert not alive
    assert not [one for one in gc.get_objects() if isinstance(one, Flight | Tape)]


@pytest.mark.slow
def test_maps_are_bounded() -> None:
    cache = Cache()
    dependency = Dependency("dep", cache, Timeout())
    answers: list[Any] = []

    def answer(request: Any) -> Any:
        if len(answers) % 2:
            raise httpx.ConnectError("refused")
        return httpx.Response(200, headers={"cache-control": "no-store"})

    with sync_client(dependency, answer) as http:
        for number in range(2500):
            answers.append(None)
            with contextlib.suppress(httpx.ConnectError):
                http.get(f"/{number}")
    flights = cache.flights
    assert flights is not None and len(flights) == 0
    assert len(flights._passed) <= 1000 and len(cache._cooled) <= 1000 and len(flights._recent) <= 256
    with sync_client(dependency, fresh) as http:
        for number in range(600):
            http.get(f"/fresh/{number}")
    assert len(flights._recent) <= 256
