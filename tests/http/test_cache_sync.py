"""A cache in front of a synchronous client: threads that share one fetch, bodies that are read as they come."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from resilient import Bulkhead, Cache, CircuitBreaker, DeadlineExceeded, Dependency, Retry, Timeout, standard
from resilient.clock import SYSTEM_CLOCK
from resilient.events import CacheUsed
from resilient.testing import FakeClock, FaultyTransport, RecordingListener

from .conftest import Declare

FRESH = {"cache-control": "max-age=60"}


class Origin:
    """An origin that counts who asks, and takes its time on the asking thread."""

    def __init__(self, library: Any) -> None:
        self.library = library
        self.asked: list[Any] = []
        self.seconds = 0.0
        self.open = threading.Event()
        """Until it is set, whoever asks waits."""
        self.open.set()
        self.answer: Callable[[Any], Any] = lambda request: library.Response(200, headers=FRESH, content=b"body")

    def says(self, status: int = 200, body: bytes = b"body", **fields: str) -> None:
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        self.answer = lambda request: self.library.Response(status, headers=headers, content=body)

    def streams(self, *chunks: Any, **fields: str) -> list[Any]:
        """Answers of unknown length; returns the streams that were begun."""
        library, begun = self.library, []

        class Stream(library.SyncByteStream):  # type: ignore[misc,name-defined]
            def __init__(self) -> None:
                self.read, self.closed = 0, 0
                begun.append(self)

            def __iter__(self) -> Iterator[bytes]:
                for chunk in chunks:
                    if isinstance(chunk, BaseException):
                        raise chunk
                    self.read += 1
                    yield chunk

            def close(self) -> None:
                self.closed += 1

        headers = {name.replace("_", "-"): value for name, value in (fields or {"cache_control": "max-age=60"}).items()}
        self.answer = lambda request: library.Response(200, headers=headers, stream=Stream())
        return begun

    def __call__(self, request: Any) -> Any:
        self.asked.append(request)
        if self.seconds:
            time.sleep(self.seconds)
        assert self.open.wait(30)
        return self.answer(request)


@pytest.fixture
def origin(library: Any) -> Origin:
    return Origin(library)


def client(library: Any, dependency: Any, origin: Origin) -> Any:
    transport = library.ours.ResilientTransport(dependency, FaultyTransport([origin]))
    return library.Client(transport=transport, timeout=60, base_url="http://dep")


def in_threads(count: int, act: Callable[[], Any]) -> list[Any]:
    """What `act` returned or raised, on so many threads that begin together."""
    results: list[Any] = []
    barrier = threading.Barrier(count)

    def work() -> None:
        barrier.wait()
        try:
            results.append(act())
        except BaseException as error:  # noqa: BLE001 - a result of the test
            results.append(error)

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(results) == count, "somebody still waits"
    return results


def idle(dependency: Dependency, cache: Cache) -> None:
    """Nothing is held, and nothing is on its way."""
    dependency.reclaim()
    if dependency.bulkhead is not None:
        assert dependency.bulkhead.in_use == 0
    assert cache.flights is not None and len(cache.flights) == 0 and cache.flights.bytes == 0 and not cache.flights.refreshing


def test_hit_miss_and_pass(library: Any, clock: FakeClock, declare: Declare, origin: Origin, listener: RecordingListener) -> None:
    cache = Cache()
    dependency = declare(cache, Timeout(), Bulkhead())
    with client(library, dependency, origin) as http:
        assert [http.get("/a").text for _ in range(3)] == ["body"] * 3 and len(origin.asked) == 1
        origin.says(200, b"mine", cache_control="no-store")
        assert [http.get("/b").text for _ in range(2)] == ["mine"] * 2 and len(origin.asked) == 3
        origin.says(304, b"")
        clock.advance(100)
        origin.says(200, b"new", cache_control="max-age=60", etag='"1"')
        assert http.get("/a").text == "new"
        clock.advance(100)
        origin.says(304, b"", cache_control="max-age=60", etag='"1"')
        assert http.get("/a").text == "new" and origin.asked[-1].headers["if-none-match"] == '"1"'
        assert http.head("/a").status_code == 200
    assert [event.result for event in listener.of(CacheUsed)] == ["miss", "hit", "hit", "pass", "pass", "miss", "validated", "hit"]
    idle(dependency, cache)


def test_stale_in_place_of_an_error(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    cache = Cache()
    dependency = declare(cache, Timeout(), Bulkhead())
    origin.says(200, b"good", cache_control="max-age=10, stale-if-error=100")
    with client(library, dependency, origin) as http:
        http.get("/a")
        clock.advance(20)
        origin.says(503, b"")
        response = http.get("/a")
        assert response.text == "good" and response.extensions["degraded"]["cause"] == "status_503"
        clock.advance(200)
        assert http.get("/a").status_code == 503
    idle(dependency, cache)


@pytest.mark.parametrize("streamed", [False, True])
def test_threads_that_ask_at_once_make_one_call(library: Any, declare: Declare, origin: Origin, streamed: bool) -> None:
    if streamed:
        begun = origin.streams(b"bo", b"dy")
    origin.seconds = 0.3
    cache = Cache()
    dependency = declare(*standard(cache=cache))
    with client(library, dependency, origin) as http:
        assert in_threads(50, lambda: http.get("/a").text) == ["body"] * 50
    assert len(origin.asked) == 1
    if streamed:
        assert [stream.closed for stream in begun] == [1]
    idle(dependency, cache)


def test_a_failure_is_shared_by_threads(library: Any, declare: Declare, origin: Origin) -> None:
    origin.seconds = 0.3

    def answer(request: Any) -> Any:
        raise library.ReadError("cut")

    origin.answer = answer
    cache = Cache()
    dependency = declare(cache, Timeout(), Bulkhead())
    with client(library, dependency, origin) as http:
        errors = in_threads(50, lambda: http.get("/a"))
    assert {type(error) for error in errors} == {library.ReadError} and len({id(error) for error in errors}) == 50
    assert len(origin.asked) == 1
    idle(dependency, cache)


def test_a_body_that_breaks_is_a_failure_for_all(library: Any, declare: Declare, origin: Origin) -> None:
    begun = origin.streams(b"ha", library.ReadError("cut"))
    origin.seconds = 0.3
    cache = Cache()
    dependency = declare(cache, Timeout(), Bulkhead())
    with client(library, dependency, origin) as http:
        errors = in_threads(20, lambda: http.get("/a"))
        assert {type(error) for error in errors} == {library.ReadError}
        assert len(origin.asked) == 1 and [stream.closed for stream in begun] == [1]
        idle(dependency, cache)
        origin.says(200, b"body", cache_control="max-age=60")
        assert http.get("/a").text == "body"


def test_who_holds_an_answer_unread_may_ask_again(library: Any, declare: Declare, origin: Origin) -> None:
    begun = origin.streams(b"bo", b"dy")
    cache = Cache()
    dependency = declare(cache, Timeout(), Bulkhead())
    with client(library, dependency, origin) as http:
        with http.stream("GET", "/a") as first:
            assert begun[0].read == 0  # it streams
            assert in_threads(5, lambda: http.get("/a").text) == ["body"] * 5
            assert http.get("/a").text == "body"
            assert b"".join(first.iter_raw()) == b"body"
        assert len(origin.asked) == 1 and begun[0].closed == 1
    idle(dependency, cache)


def test_a_reader_who_stops_early_keeps_nothing(library: Any, declare: Declare, origin: Origin) -> None:
    begun = origin.streams(b"bo", b"dy")
    cache = Cache()
    dependency = declare(cache, Timeout(), Bulkhead())
    with client(library, dependency, origin) as http:
        with http.stream("GET", "/a") as response:
            assert next(response.iter_raw()) == b"bo"
        assert begun[0].closed == 1
        idle(dependency, cache)
        assert http.get("/a").text == "body" and len(origin.asked) == 2
        assert http.get("/a").text == "body" and len(origin.asked) == 2


def test_an_answer_dropped_unread_is_closed_by_the_next_call(library: Any, declare: Declare, origin: Origin) -> None:
    begun = origin.streams(b"bo", b"dy")
    cache = Cache()
    dependency = declare(cache, Timeout(), Bulkhead())
    with client(library, dependency, origin) as http:
        response = http.send(http.build_request("GET", "/a"), stream=True)
        del response
        gc.collect()
        assert begun[0].closed == 0  # not within the collector
        http.get("/b")
        assert begun[0].closed == 1
        idle(dependency, cache)


def test_a_long_body_of_unknown_length_passes(library: Any, declare: Declare, origin: Origin) -> None:
    begun = origin.streams(*[b"x" * 1000] * 50)
    cache = Cache(max_body=10_000)
    dependency = declare(cache, Timeout(), Bulkhead())
    with client(library, dependency, origin) as http:
        with http.stream("GET", "/a") as first:
            chunks = first.iter_raw()
            next(chunks)
            assert len(http.get("/a").content) == 50_000  # somebody else asks for himself as soon as it is seen to be too long
            assert begun[0].read <= 12
            assert len(b"".join(chunks)) == 49_000
        assert len(origin.asked) == 2 and [stream.closed for stream in begun] == [1, 1]
    idle(dependency, cache)


def test_interrupted_while_reading(library: Any, declare: Declare, origin: Origin) -> None:
    begun = origin.streams(b"ha", KeyboardInterrupt())
    cache = Cache()
    dependency = declare(cache, Timeout(), Bulkhead())
    with client(library, dependency, origin) as http:
        with pytest.raises(KeyboardInterrupt):
            http.get("/a")
        assert begun[0].closed == 1
        idle(dependency, cache)
        origin.says(200, b"body", cache_control="max-age=60")
        assert http.get("/a").text == "body" and len(origin.asked) == 2  # half a body was not kept


@pytest.mark.parametrize("streamed", [False, True])
def test_a_refresh_runs_on_a_thread(library: Any, declare: Declare, origin: Origin, streamed: bool) -> None:
    origin.says(200, b"old", cache_control="max-age=0, stale-while-revalidate=100", etag='"1"')
    cache = Cache()
    dependency = declare(cache, Timeout(), Bulkhead())
    with client(library, dependency, origin) as http:
        http.get("/a")
        origin.open.clear()
        if streamed:
            origin.streams(b"ne", b"w", cache_control="max-age=60")
        else:
            origin.says(200, b"new", cache_control="max-age=60")
        assert {http.get("/a").text for _ in range(5)} == {"old"}
        origin.open.set()
        until(lambda: cache.flights is not None and not cache.flights.refreshing)
        assert http.get("/a").text == "new" and len(origin.asked) == 2
    idle(dependency, cache)


def test_a_refresh_that_brings_nothing_to_keep_is_closed(library: Any, declare: Declare, origin: Origin) -> None:
    origin.says(200, b"old", cache_control="max-age=0, stale-while-revalidate=100", etag='"1"')
    cache = Cache()
    dependency = declare(cache, Timeout(), Bulkhead())
    with client(library, dependency, origin) as http:
        http.get("/a")
        begun = origin.streams(b"new", cache_control="no-store")
        http.get("/a")
        until(lambda: begun and cache.flights is not None and not cache.flights.refreshing)
        assert begun[0].closed == 1
    idle(dependency, cache)


def test_a_leader_whose_own_time_is_over_does_not_fail_the_others(library: Any, declare: Declare, origin: Origin) -> None:
    turns = iter(range(100))
    reached = threading.Event()

    def answer(request: Any) -> Any:
        if next(turns) == 0:
            reached.set()
            time.sleep(0.4)
            raise library.ReadTimeout("too slow")
        return library.Response(200, headers=FRESH, content=b"body")

    origin.answer = answer
    cache = Cache()
    dependency = declare(cache, Timeout(), Bulkhead())
    ends: list[Any] = []

    def hasty() -> None:
        try:
            http.get("/a", extensions={"deadline": 0.3})
        except DeadlineExceeded as error:
            ends.append(error.reason)

    with client(library, dependency, origin) as http:
        thread = threading.Thread(target=hasty)
        thread.start()
        assert reached.wait(5)
        assert in_threads(20, lambda: http.get("/a").text) == ["body"] * 20
        thread.join(5)
    assert len(ends) == 1 and len(origin.asked) == 2
    idle(dependency, cache)


class Ahead(type(SYSTEM_CLOCK)):  # type: ignore[misc]
    """The system's clock, so many seconds ahead."""

    seconds = 0.0

    def now(self) -> float:
        return time.monotonic() + self.seconds


def test_stale_on_slow(library: Any, origin: Origin) -> None:
    origin.says(200, b"old", cache_control="max-age=10, stale-if-error=100", etag='"1"')
    cache, clock = Cache(soft_timeout=0.1), Ahead()
    dependency = Dependency("dep", cache, Timeout(), Bulkhead(), clock=clock)
    with client(library, dependency, origin) as http:
        http.get("/a")
        clock.seconds = 20
        origin.open.clear()
        origin.says(200, b"new", cache_control="max-age=60")
        responses = in_threads(20, lambda: http.get("/a"))
        origin.open.set()
        assert {response.text for response in responses} == {"old"}
        assert {response.extensions["degraded"]["cause"] for response in responses} == {"slow"}
        until(lambda: len(cache.flights or ()) == 0)
        assert http.get("/a").text == "new" and len(origin.asked) == 2
    idle(dependency, cache)


def test_one_user_never_waits_for_another(library: Any, declare: Declare, origin: Origin) -> None:
    origin.seconds = 0.1
    origin.answer = lambda request: library.Response(200, headers=FRESH, content=request.headers["cookie"].encode())
    cache = Cache()
    names = iter(range(100))
    with client(library, declare(cache, Timeout(), Retry()), origin) as http:

        def ask() -> tuple[str, str]:
            name = f"user={next(names) % 5}"
            return name, http.get("/a", headers={"cookie": name}).text

        assert all(name == text for name, text in in_threads(40, ask))
    assert len(origin.asked) == 5


def test_breaker_trials_are_given_back(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    breaker = CircuitBreaker(fail_max=1, reset_timeout=5)
    cache = Cache()
    dependency = declare(cache, Timeout(), breaker)
    with client(library, dependency, origin) as http:
        origin.says(500)
        http.get("/a")
        assert breaker.current_state == "open"
        clock.advance(10)
        begun = origin.streams(b"body")
        with http.stream("GET", "/a"):
            pass
        assert begun[0].closed == 1
        for path in "abcdefgh":
            assert http.get(path).text == "body"
    assert breaker.current_state == "closed"


def until(met: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait for what another thread does."""
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, "it never happened"
        threading.Event().wait(0.01)
