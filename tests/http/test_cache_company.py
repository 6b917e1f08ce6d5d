"""A cache among other policies and on other people's event loops: what is served, counted and marked, and what is left of it."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import hypercorn.asyncio
import hypercorn.config
import pytest
import trio

from resilient import Bulkhead, Cache, Chaos, Dependency, Failover, Hedge, Retry, Target, Timeout, standard
from resilient.events import FailedOver, FallbackServed, FaultInjected, HedgeDecided
from resilient.outbox import Outbox
from resilient.testing import FakeClock, FaultyTransport, RecordingListener

from .conftest import Declare
from .test_cache import Origin, client, origin, results
from .test_cache_held import NOTHING, held
from .test_cache_sync import Ahead, idle

__all__ = ["origin"]

KEPT = {"cache-control": "max-age=60, stale-if-error=600"}


async def met(happened: Callable[[], object]) -> None:
    with anyio.fail_after(20):
        while not happened():
            await anyio.sleep(0.01)


# -- with hedges, other targets and chaos ---------------------------------------------------------------------------------


class Replicas:
    """Two origins of one thing: what each of them says, and how long each request takes. On whichever runtime."""

    def __init__(self, library: Any) -> None:
        self.library = library
        self.asked: list[str] = []
        self.slow: list[float] = []
        self.status = {"dep": 200, "us": 200}

    def answer(self, request: Any) -> Any:
        return self.library.Response(self.status[request.url.host], headers=KEPT, content=request.url.host.encode())

    def next(self, request: Any) -> float:
        self.asked.append(request.url.host)
        return self.slow.pop(0) if self.slow else 0.0


def company(cache: Cache) -> tuple[tuple[Any, ...], Chaos]:
    """Everything that sends a request more than once, elsewhere, or not at all, below one cache."""
    chaos = Chaos(rate=1, status=503, enabled=False)
    failover = Failover(Target("eu", Bulkhead()), Target("us", Bulkhead(), url="http://us"))
    chosen = standard(
        cache=cache, timeout=5, retry=Retry(attempts=1), hedge=Hedge(delay=0.1), failover=failover, bulkhead=Bulkhead(), chaos=chaos
    )
    return chosen, chaos


def judged_hedge(response: Any, again: Any, replicas: Replicas, listener: RecordingListener) -> None:
    """The first request was slow, so that a second one was sent: one answer, kept once."""
    assert (response.text, response.extensions["target"], replicas.asked) == ("dep", "eu", ["dep", "dep"])
    assert again.headers["cache-status"].startswith("dep; hit") and "degraded" not in again.extensions
    assert [event.result for event in listener.of(HedgeDecided)] == ["won"]
    assert results(listener) == ["miss", "hit"]


def judged_failover(response: Any, again: Any, replicas: Replicas, listener: RecordingListener) -> None:
    """The first target failed: the answer of the other one is kept as any, and is no degradation."""
    assert (response.text, response.extensions["target"], replicas.asked[2:]) == ("us", "us", ["dep", "us"])
    assert again.text == "us" and again.headers["cache-status"].startswith("dep; hit")
    assert not {"degraded"} & (response.extensions.keys() | again.extensions.keys())
    assert [(event.target, event.to) for event in listener.of(FailedOver)] == [("eu", "us")] and not listener.of(FallbackServed)
    assert results(listener)[2:] == ["miss", "hit"]


def judged_chaos(response: Any, again: Any, replicas: Replicas, listener: RecordingListener) -> None:
    """No target answers: what is stale stands in, marked, and the next one does not even ask."""
    assert len(replicas.asked) == 4 and {event.kind for event in listener.of(FaultInjected)} == {"status"}
    assert [event.target for event in listener.of(FailedOver)][1:] == ["eu", "us"]
    for one in (response, again):
        assert one.status_code == 200 and one.text == "us" and one.extensions["degraded"]["stale_for"] > 0
        assert "detail=stale-if-error" in one.headers["cache-status"]
    assert results(listener)[4:] == ["stale_if_error", "stale_if_error"]
    assert len(listener.of(FallbackServed)) == 2 and len(listener.of(FaultInjected)) == 2


def judged_counts(dependency: Dependency) -> None:
    """Whoever was answered from the store made no call; of the calls one failed."""
    counts = dependency.stats.snapshot().counts
    assert (counts["success"], counts["cached"], counts["failure"], counts["fallback"]) == (3, 2, 1, 2), counts


@pytest.mark.anyio
async def test_in_company(library: Any, clock: FakeClock, declare: Declare, listener: RecordingListener) -> None:
    replicas, cache = Replicas(library), Cache()
    chosen, chaos = company(cache)
    dependency = declare(*chosen, origin="http://dep", chaos=True)

    async def ask(request: Any) -> Any:
        await anyio.sleep(replicas.next(request))
        return replicas.answer(request)

    async with client(library, dependency, ask) as http:
        replicas.slow = [1.0, 0.0]
        judged_hedge(await http.get("/a"), await http.get("/a"), replicas, listener)
        await anyio.sleep(61)
        replicas.status["dep"] = 500
        judged_failover(await http.get("/a"), await http.get("/a"), replicas, listener)
        await anyio.sleep(61)
        chaos.enabled = True
        judged_chaos(await http.get("/a"), await http.get("/a"), replicas, listener)
        await anyio.sleep(6)
        chaos.enabled, replicas.status["dep"] = False, 200
        assert (await http.get("/a")).text == "dep" and results(listener)[6:] == ["miss"]
    judged_counts(dependency)
    assert held(dependency, cache) == NOTHING


def test_in_company_on_threads(library: Any, listener: RecordingListener) -> None:
    replicas, cache, clock = Replicas(library), Cache(), Ahead()
    chosen, chaos = company(cache)
    dependency = Dependency("dep", *chosen, origin="http://dep", chaos=True, clock=clock, outbox=Outbox([listener]))

    def ask(request: Any) -> Any:
        time.sleep(replicas.next(request))
        return replicas.answer(request)

    transport = library.ours.ResilientTransport(dependency, FaultyTransport([ask]))
    with library.Client(transport=transport, timeout=60, base_url="http://dep") as http:
        replicas.slow = [1.0, 0.0]
        judged_hedge(http.get("/a"), http.get("/a"), replicas, listener)
        clock.seconds += 61
        replicas.status["dep"] = 500
        judged_failover(http.get("/a"), http.get("/a"), replicas, listener)
        clock.seconds += 61
        chaos.enabled = True
        judged_chaos(http.get("/a"), http.get("/a"), replicas, listener)
        clock.seconds += 6
        chaos.enabled, replicas.status["dep"] = False, 200
        assert http.get("/a").text == "dep" and results(listener)[6:] == ["miss"]
    until(lambda: dependency.bulkhead is not None and dependency.bulkhead.in_use == 0)  # the one that lost comes to its end
    judged_counts(dependency)
    idle(dependency, cache)


def until(happened: Callable[[], object]) -> None:
    limit = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < limit
        time.sleep(0.01)


# -- on an event loop within another one ------------------------------------------------------------------------------------


def test_trio_as_a_guest_of_asyncio(library: Any) -> None:
    """Fetches, those who wait for them and refreshes run on trio, though an event loop of asyncio is what turns."""
    origin, cache = Origin(library), Cache(soft_timeout=5)
    dependency = Dependency("dep", cache, Timeout(total=20), Bulkhead())
    origin.says(200, b"body", cache_control="max-age=0, stale-while-revalidate=60")
    origin.seconds = 0.05

    async def guest() -> list[str]:
        texts: list[str] = []

        async def ask() -> None:
            texts.append((await http.get("/a")).text)

        async with client(library, dependency, origin) as http:
            for _ in range(2):  # once nothing is stored, once it is stale and fetched anew behind all of them
                async with trio.open_nursery() as nursery:
                    for _ in range(20):
                        nursery.start_soon(ask)
            with trio.fail_after(20):
                while cache.flights is None or cache.flights.refreshing:
                    await trio.sleep(0.01)
            with trio.CancelScope() as leader:  # the one who fetches leaves while others wait
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(http.get, "/b")
                    await trio.sleep(0.01)
                    leader.cancel()
            texts.append((await http.get("/b")).text)
        return texts

    async def host() -> Any:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Any] = loop.create_future()
        trio.lowlevel.start_guest_run(guest, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=ended.set_result)
        return (await asyncio.wait_for(ended, 30)).unwrap()

    assert asyncio.run(host()) == ["body"] * 41
    assert held(dependency, cache) == NOTHING


# -- a client that is closed ------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_client_is_closed_while_it_refreshes(
    library: Any, clock: FakeClock, declare: Declare, origin: Origin, streamed: bool, recwarn: pytest.WarningsRecorder
) -> None:
    """The refresh ends by itself, or with the connection that it reads from; nothing is kept of it that was not whole."""
    cache = Cache()
    dependency = declare(cache, Timeout(total=10, idle=5), Bulkhead())
    closed: list[str] = []

    class Body(library.AsyncByteStream):  # type: ignore[misc,name-defined]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b"new"
                await anyio.sleep(1)
                if closed:
                    raise library.ReadError("the connection was closed")

        async def aclose(self) -> None:
            closed.append("body")

    class Pool(FaultyTransport):
        async def aclose(self) -> None:
            closed.append("pool")

    origin.says(200, b"old", cache_control="max-age=1, stale-while-revalidate=600")
    transport = library.ours.AsyncResilientTransport(dependency, Pool([origin]))
    async with library.AsyncClient(transport=transport, base_url="http://dep") as http:
        await http.get("/a")
        await anyio.sleep(5)
        origin.seconds = 0.5 if streamed else 3.0
        content = {"stream": Body()} if streamed else {"content": b"new"}
        origin.answer = lambda request: library.Response(200, headers={"cache-control": "max-age=60"}, **content)
        assert (await http.get("/a")).text == "old"
        await anyio.sleep(1)
        assert cache.flights is not None and len(cache.flights.refreshing) == 1
    assert closed[0] == "pool"
    await anyio.sleep(20)
    assert held(dependency, cache) == NOTHING and len(origin.asked) == 2
    gc.collect()
    assert not [str(one.message) for one in recwarn.list]
    if streamed:
        assert closed == ["pool", "body"]


@pytest.mark.anyio
async def test_a_real_client_is_closed_while_it_refreshes(library: Any, recwarn: pytest.WarningsRecorder) -> None:
    """Over sockets: what its pool no longer has is a failed refresh, and no connection stays open."""
    cache, listener, asked = Cache(), RecordingListener(), threading.Event()
    dependency = Dependency("dep", cache, Timeout(total=2), Bulkhead(), outbox=Outbox([listener]))
    numbers = iter(range(10))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if next(numbers):
            asked.set()
            await asyncio.sleep(5)
        headers = [(b"cache-control", b"max-age=0, stale-while-revalidate=60"), (b"content-length", b"3")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"old"})

    with serving(app) as url:
        async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency)) as http:
            assert (await http.get(url)).text == "old"
            await met(lambda: held(dependency, cache) == NOTHING)
            assert (await http.get(url)).text == "old"
            await met(asked.is_set)
        await met(lambda: held(dependency, cache) == NOTHING)
    assert results(listener) == ["miss", "stale", "refresh_failed"]
    gc.collect()
    assert not [str(one.message) for one in recwarn.list]


# -- over HTTP/2 --------------------------------------------------------------------------------------------------------------


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """`app` behind hypercorn, which speaks HTTP/1.1 and, to whoever begins so, HTTP/2."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config = hypercorn.config.Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.graceful_timeout = 0.1
    config.loglevel = "CRITICAL"
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    async def http_alone(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        await app(scope, receive, send)

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(hypercorn.asyncio.serve(http_alone, config, shutdown_trigger=stop.wait))

    thread = threading.Thread(target=run, name="hypercorn")
    thread.start()
    try:
        until(lambda: _listens(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


class Shop:
    """Answers on command, so that many streams are open at a time; knows what it was asked, and over which connections."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.versions: set[str] = set()
        self.clients: set[Any] = set()
        self.open = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(scope["path"])
        self.versions.add(scope["http_version"])
        self.clients.add(scope["client"])
        while not self.open.is_set():  # httpcore tells nobody that a stream was cancelled: its answer comes all the same
            await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"max-age=60")]})
        await send({"type": "http.response.body", "body": scope["path"].encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b"!" * 1000})


@asynccontextmanager
async def over_http2(library: Any, dependency: Dependency, url: str) -> AsyncIterator[Any]:
    limits = library.Limits(max_connections=1)
    transport = library.ours.AsyncResilientTransport(dependency, http1=False, http2=True, verify=False, limits=limits)
    async with library.AsyncClient(transport=transport, base_url=url, timeout=60) as http:
        yield http


@pytest.mark.anyio
async def test_streams_of_one_connection_and_one_that_is_cancelled(library: Any) -> None:
    """Ten fetches for a hundred callers on one connection; one loses all of its callers, which the other nine never notice."""
    shop, cache, texts, lost = Shop(), Cache(), [], anyio.CancelScope()
    dependency = Dependency("dep", cache, Timeout(total=30), Bulkhead())

    async def ask(path: str) -> None:
        texts.append((await http.get(path)).text)

    async def leave() -> None:
        with lost:
            await ask("/lost")

    with serving(shop) as url:
        async with over_http2(library, dependency, url) as http:
            async with anyio.create_task_group() as group:
                for number in range(9):
                    for _ in range(11):
                        group.start_soon(ask, f"/{number}")
                group.start_soon(leave)
                await met(lambda: len(shop.asked) == 10)
                lost.cancel()
                await met(lambda: len(cache.flights or ()) == 9)
                shop.open.set()
            assert sorted(texts) == sorted(f"/{number}" + "!" * 1000 for number in range(9) for _ in range(11))
            assert len(shop.asked) == 10
            await ask("/0")  # from the store
            await ask("/lost")  # which has nothing of it
            assert len(shop.asked) == 11 and texts[-1] == "/lost" + "!" * 1000
            assert shop.versions == {"2"} and len(shop.clients) == 1
            await met(lambda: held(dependency, cache) == NOTHING)


@pytest.mark.anyio
async def test_of_a_stream_that_many_wait_for_the_first_may_leave(library: Any) -> None:
    shop, cache, texts, leader = Shop(), Cache(), [], anyio.CancelScope()
    dependency = Dependency("dep", cache, Timeout(total=30), Bulkhead())

    async def lead() -> None:
        with leader:
            await http.get("/a")

    async def ask() -> None:
        texts.append((await http.get("/a")).text)

    with serving(shop) as url:
        async with over_http2(library, dependency, url) as http:
            async with anyio.create_task_group() as group:
                group.start_soon(lead)
                await met(lambda: shop.asked)
                for _ in range(20):
                    group.start_soon(ask)
                await met(lambda: next(iter(cache.flights._out.values())).interest == 21)  # type: ignore[union-attr]
                leader.cancel()
                await met(lambda: leader.cancelled_caught)
                shop.open.set()
            assert texts == ["/a" + "!" * 1000] * 20 and shop.asked == ["/a"]
            await met(lambda: held(dependency, cache) == NOTHING)
