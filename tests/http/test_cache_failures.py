"""A failure that many wait for is for all of them, whatever it says of its body; and what goes on behind a reader ends."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from resilient import Bulkhead, Cache, CircuitBreaker, Fallback, Retry, Timeout
from resilient.events import CacheUsed, FallbackServed
from resilient.policies.collapsing import REFRESH_SECONDS
from resilient.testing import FakeClock, RecordingListener

from .conftest import Declare
from .test_cache import Origin, client, origin
from .test_cache_held import NOTHING, held, streaming
from .test_cache_sync import Origin as SyncOrigin
from .test_cache_sync import client as sync_client
from .test_cache_sync import idle, in_threads

__all__ = ["origin"]

OWN = {"cache-control": "no-store", "x-user": "7", "set-cookie": "session=7"}
MANY = 150


async def many(http: Any, answers: list[Any], count: int = MANY) -> None:
    async def ask() -> None:
        answers.append(await http.get("/a"))

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(ask)


def chunked(library: Any) -> Any:
    """A page of an error whose length nobody knows, as servers send it."""
    return library.Response(503, headers={"retry-after": "7", "x-user": "7"}, stream=streaming(library, b"private", b"page"))


# -- one failure for all ------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize(
    "fields",
    [OWN, {**OWN, "cache-control": "private"}, {"set-cookie": "session=7"}, {"vary": "*"}],
    ids=["no-store", "private", "cookie", "vary"],
)
async def test_a_private_failure_is_told_to_all_and_its_body_to_one(
    library: Any, clock: FakeClock, declare: Declare, origin: Origin, listener: RecordingListener, fields: dict[str, str]
) -> None:
    origin.seconds = 1.0
    origin.answer = lambda request: library.Response(503, headers={**fields, "retry-after": "7"}, content=b"private")
    dependency, answers = declare(cache := Cache(), Bulkhead(), CircuitBreaker()), []
    async with client(library, dependency, origin) as http:
        await many(http, answers)
    assert len(origin.asked) == 1, "an outage is answered with a stampede"
    assert {one.status_code for one in answers} == {503}
    (whole,) = [one for one in answers if one.content]
    assert whole.content == b"private" and "fwd-status" not in whole.headers.get("cache-status", "")
    for one in answers:
        if one is not whole:
            assert not one.headers.keys() & {"x-user", "set-cookie", "vary"} and one.headers["retry-after"] == "7"
            assert one.headers["cache-control"] == "no-store"
            assert one.headers["cache-status"] == "dep; fwd=miss; fwd-status=503; collapsed; detail=failure-alone"
    assert Counter(event.result for event in listener.of(CacheUsed)) == {"error": MANY}
    assert held(dependency, cache) == NOTHING


@pytest.mark.anyio
async def test_a_long_failure_is_told_to_all_too(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    origin.seconds = 1.0
    origin.answer = lambda request: chunked(library)
    dependency, answers = declare(cache := Cache(), Bulkhead(), CircuitBreaker()), []
    async with client(library, dependency, origin) as http:
        for wave in 1, 2:
            await many(http, answers)
            assert len(origin.asked) == wave, "the next ones who ask at once share a fetch again"
    assert {one.status_code for one in answers} == {503}
    assert Counter(one.content for one in answers) == {b"privatepage": 2, b"": 2 * MANY - 2}
    assert {one.headers["retry-after"] for one in answers} == {"7"} and sum("x-user" in one.headers for one in answers) == 2
    assert held(dependency, cache) == NOTHING


@pytest.mark.anyio
async def test_whoever_has_something_stale_gets_that(
    library: Any, clock: FakeClock, declare: Declare, origin: Origin, listener: RecordingListener
) -> None:
    origin.says(200, b"old", cache_control="max-age=1, stale-if-error=100")
    answers: list[Any] = []
    async with client(library, declare(Cache(), Timeout()), origin) as http:
        await http.get("/a")
        await anyio.sleep(5)
        origin.seconds = 1.0
        origin.answer = lambda request: chunked(library)
        await many(http, answers, 50)
    assert {one.content for one in answers} == {b"old"} and len(origin.asked) == 2
    assert len(listener.of(FallbackServed)) == 50


@pytest.mark.anyio
@pytest.mark.parametrize("status", [200, 429])
async def test_what_is_said_to_one_who_asks_is_for_nobody_else(
    library: Any, clock: FakeClock, declare: Declare, origin: Origin, status: int
) -> None:
    """Neither an answer that is private, nor that he asks too often."""
    origin.seconds = 1.0
    origin.answer = lambda request: library.Response(status, headers=OWN, content=b"private")
    answers: list[Any] = []
    async with client(library, declare(Cache(stale_statuses=(429, 503))), origin) as http:
        await many(http, answers, 10)
    assert len(origin.asked) == 10 and all("x-user" in one.headers for one in answers)


@pytest.mark.anyio
async def test_the_first_one_may_leave_a_failure_that_is_long(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    origin.seconds, answers = 1.0, []
    origin.answer = lambda request: chunked(library)
    dependency, leader = declare(cache := Cache(), Bulkhead()), anyio.CancelScope()

    async def lead(http: Any) -> None:
        with leader:
            await http.get("/a")

    async with client(library, dependency, origin) as http:
        async with anyio.create_task_group() as group:
            group.start_soon(lead, http)
            await anyio.sleep(0.2)
            group.start_soon(many, http, answers, 5)
            await anyio.sleep(0.2)
            leader.cancel()
    assert leader.cancelled_caught and len(origin.asked) == 1
    assert [one.status_code for one in answers] == [503] * 5 and not any(one.content for one in answers)
    assert held(dependency, cache) == NOTHING


@pytest.mark.parametrize("long", [False, True])
def test_threads_share_a_failure_that_is_private(library: Any, declare: Declare, long: bool) -> None:
    origin, cache = SyncOrigin(library), Cache()
    dependency = declare(cache, Bulkhead())

    class Page(library.SyncByteStream):  # type: ignore[misc,name-defined]
        def __iter__(self) -> Any:
            yield b"private"

    body = {"stream": Page()} if long else {"content": b"private"}
    origin.answer = lambda request: library.Response(503, headers=OWN, **body)
    origin.open.clear()

    def release() -> None:
        while True:
            flights = list(cache.flights._out.values()) if cache.flights is not None else []
            if flights and flights[0].interest == 20:
                origin.open.set()
                return

    thread = threading.Thread(target=release)
    with sync_client(library, dependency, origin) as http:
        thread.start()
        answers = in_threads(20, lambda: http.get("/a"))
        thread.join(20)
    assert len(origin.asked) == 1 and {one.status_code for one in answers} == {503}
    assert Counter(one.content for one in answers) == {b"private": 1, b"": 19}
    idle(dependency, cache)


# -- what goes on behind a reader ends ----------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("timeout", [None, 5.0, 60.0, math.inf])
async def test_a_fetch_goes_on_behind_a_stale_answer_for_so_long(
    library: Any, clock: FakeClock, declare: Declare, origin: Origin, timeout: float | None
) -> None:
    """With a Timeout for as long as that says, without one for 30 seconds."""
    cache = Cache(soft_timeout=0.5)
    dependency = declare(cache, *([] if timeout is None else [Timeout(total=timeout, attempt=timeout)]), Bulkhead())
    origin.says(200, b"old", cache_control="max-age=1, stale-if-error=1000")
    async with client(library, dependency, origin) as http:
        await http.get("/a")
        await anyio.sleep(5)
        origin.seconds = math.inf
        began = clock.now()
        assert (await http.get("/a")).text == "old" and clock.now() - began < 1
        assert held(dependency, cache) == (1, 1, 0, 0)
        expected = {None: 0.5 + REFRESH_SECONDS, math.inf: 0.5 + REFRESH_SECONDS, 5.0: 5.0, 60.0: 60.0}[timeout]
        await anyio.sleep(expected - 1.5)
        assert held(dependency, cache)[:2] == (1, 1) and not origin.cancelled
        await anyio.sleep(2)
        assert held(dependency, cache) == NOTHING and origin.cancelled == 1
        assert (await http.get("/a")).text == "old"


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["soft", "refresh"])
async def test_a_body_that_trickles_behind_a_reader_ends_too(
    library: Any, clock: FakeClock, declare: Declare, origin: Origin, how: str
) -> None:
    cache = Cache(soft_timeout=0.5) if how == "soft" else Cache()
    dependency = declare(cache, Timeout(total=10, idle=5), Bulkhead())
    closed = []

    class Endless(library.AsyncByteStream):  # type: ignore[misc,name-defined]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                yield b"."
                await anyio.sleep(1)

        async def aclose(self) -> None:
            closed.append(clock.now())

    window = "stale-if-error" if how == "soft" else "stale-while-revalidate"
    origin.says(200, b"old", cache_control=f"max-age=1, {window}=1000")
    async with client(library, dependency, origin) as http:
        await http.get("/a")
        await anyio.sleep(5)
        began, origin.seconds = clock.now(), 1.0
        origin.answer = lambda request: library.Response(200, headers={"cache-control": "max-age=60"}, stream=Endless())
        assert (await http.get("/a")).text == "old"
        await anyio.sleep(20)
        assert held(dependency, cache)[:2] == (1, 1)
        await anyio.sleep(12)
        assert held(dependency, cache) == NOTHING and closed and closed[0] - began < 32


@pytest.mark.anyio
async def test_a_body_that_somebody_reads_takes_the_time_that_it_takes(
    library: Any, clock: FakeClock, declare: Declare, origin: Origin
) -> None:
    dependency = declare(cache := Cache(soft_timeout=0.5), Bulkhead())
    origin.says(200, b"old", cache_control="max-age=1, stale-if-error=1000")
    async with client(library, dependency, origin) as http:
        await http.get("/a")
        await anyio.sleep(5)
        stream = streaming(library, *[b"."] * 100, pause=1.0)
        origin.answer = lambda request: library.Response(200, headers={"cache-control": "max-age=60"}, stream=stream)
        assert (await http.get("/a")).content == b"." * 100
    assert held(dependency, cache) == NOTHING


@pytest.mark.anyio
async def test_a_function_behind_its_stale_value_ends_too(clock: FakeClock, declare: Declare) -> None:
    cached = Fallback.cached(ttl=1, stale_if_error=1000, soft_timeout=0.5)
    dependency = declare(cached, Retry(attempts=1))
    ended: list[float] = []
    seconds = 0.0

    @dependency
    async def price() -> int:
        try:
            await anyio.sleep(seconds)
        finally:
            ended.append(clock.now())
        return 5

    assert await price() == 5
    await anyio.sleep(5)
    began, seconds = clock.now(), math.inf
    assert await price() == 5 and clock.now() - began < 1
    await anyio.sleep(100)
    assert ended[1] - began == pytest.approx(0.5 + REFRESH_SECONDS, abs=0.2) and cached.flights is not None and len(cached.flights) == 0


@pytest.mark.anyio
async def test_a_failure_has_a_body_for_each(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    """The first caller's client puts a stream of its own into the answer, which a synchronous caller beside him could not read."""
    origin.seconds = 1.0
    origin.says(503, b"out of order", cache_control="max-age=0")
    async with client(library, declare(Cache(), Timeout()), origin) as http:
        transport, streams = http._transport, []

        async def ask() -> None:
            answer = await transport.handle_async_request(library.Request("GET", "http://dep/a"))
            assert answer.status_code == 503
            streams.append(answer.stream)
            answer.stream = None

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(ask)
        bodies = [b"".join([chunk async for chunk in stream]) for stream in streams]
    assert len(origin.asked) == 1 and bodies == [b"out of order"] * 3
