"""Hedged requests: which, whose answer, and what becomes of the others' connections. Both libraries, async and sync."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from resilient import Hedge, Retry, Timeout, standard
from resilient.events import HedgeDecided
from resilient.testing import HANG, FakeClock, FaultyTransport, RecordingListener

from .bodies import scripted, stream
from .conftest import Declare
from .servers import Peer, Server, answer
from .test_sync import client_of

awaited = pytest.mark.anyio


def results(listener: RecordingListener) -> list[str]:
    return [event.result for event in listener.of(HedgeDecided)]


def late(seconds: float, then: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """An answer that takes a while."""

    async def respond(request: Any) -> Any:
        await anyio.sleep(seconds)
        return then(request)

    return respond


def client(library: Any, dependency: Any, inner: Any) -> Any:
    return library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, inner), timeout=60)


@awaited
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "QUERY", "POST", "PUT", "DELETE", "PATCH", "TRACE"])
async def test_which_methods(library: Any, clock: FakeClock, declare: Declare, method: str) -> None:
    inner = FaultyTransport([late(1, lambda request: library.Response(200)), 200])
    async with client(library, declare(Hedge(delay=0.1)), inner) as http:
        await http.request(method, "http://dep/")
    assert len(inner.requests) == (2 if method in {"GET", "HEAD", "OPTIONS", "QUERY"} else 1)


@awaited
@pytest.mark.parametrize(
    "request_of",
    [
        lambda library: library.Request("QUERY", "http://dep/", stream=stream(library, b"x")),
        lambda library: library.Request("GET", "http://dep/", headers={"upgrade": "websocket"}),
    ],
    ids=["a body from somewhere", "an upgrade"],
)
async def test_which_requests_not(library: Any, clock: FakeClock, declare: Declare, request_of: Any) -> None:
    inner = FaultyTransport([late(1, lambda request: library.Response(200)), 200])
    async with client(library, declare(Hedge(delay=0.1)), inner) as http:
        assert (await http.send(request_of(library))).status_code == 200
    assert len(inner.requests) == 1


@awaited
async def test_both_send_the_same_request(library: Any, clock: FakeClock, declare: Declare) -> None:
    seen = []

    async def slow(request: Any) -> Any:
        seen.append((request.method, str(request.url), request.headers.raw, b"".join([part async for part in request.stream])))
        await anyio.sleep(1)
        return library.Response(200)

    async with client(library, declare(Hedge(delay=0.1)), FaultyTransport([slow])) as http:
        await http.request("QUERY", "http://dep/?a=b", content=b"what", headers={"idempotency-key": "7"})
    assert len(seen) == 2 and seen[0] == seen[1]


@awaited
async def test_the_winners_body_is_read_after_the_race(library: Any, clock: FakeClock, declare: Declare) -> None:
    """Also later than the attempt's own deadline, which was for the headers."""
    dependency = declare(*standard(timeout=Timeout(total=3, attempt=2, idle=5), hedge=Hedge(delay=0.1)))
    good = scripted(library, b"one", 1.0, b"two", 4.0, b"three")
    async with client(library, dependency, FaultyTransport([HANG, good])) as http:
        async with http.stream("GET", "http://dep/") as response:
            assert dependency.bulkhead.in_use == 2
            await anyio.sleep(0.01)
            assert dependency.bulkhead.in_use == 1, "the loser has gone; the winner's is held until the end of the body"
            assert [part async for part in response.aiter_raw()] == [b"one", b"two", b"three"]
            assert dependency.bulkhead.in_use == 0
    assert dependency.stats.snapshot().counts == {"success": 1, "failure": 0, "ignored": 0}


@awaited
async def test_ground_24_loser_neutral_permits_returned_and_response_closed(library: Any, clock: FakeClock, declare: Declare) -> None:
    unread, good = scripted(library, b"late"), scripted(library, b"good")

    async def shielded(request: Any) -> Any:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(1)
        return unread(request)

    dependency = declare(*standard(hedge=Hedge(delay=0.1)))
    async with client(library, dependency, FaultyTransport([shielded, good])) as http:
        assert (await http.get("http://dep/")).text == "good"
        assert clock.now() == pytest.approx(1000.1), "nobody waits for it"
        await anyio.sleep(2)
        assert (unread.body.closed, unread.body.begun) == (1, 0)  # type: ignore[attr-defined]
        assert good.body.closed == 1  # type: ignore[attr-defined]
    assert (dependency.bulkhead.in_use, dependency.breaker.fail_counter) == (0, 0)
    assert dependency.stats.snapshot().counts == {"success": 1, "failure": 0, "ignored": 0}


@awaited
async def test_pitfall_07_a_failed_answer_that_was_beaten_is_closed(
    library: Any, clock: FakeClock, declare: Declare, listener: RecordingListener
) -> None:
    bad, good = scripted(library, b"bad", status=503), scripted(library, b"good")
    dependency = declare(*standard(hedge=Hedge(delay=0.1)))
    async with client(library, dependency, FaultyTransport([late(0.2, bad), late(0.5, good)])) as http:
        response = await http.get("http://dep/")
        assert (response.status_code, response.text) == (200, "good")
        assert clock.now() == pytest.approx(1000.6)
        await anyio.sleep(0.01)
    assert bad.body.closed == 1  # type: ignore[attr-defined]
    assert (dependency.bulkhead.in_use, results(listener)) == (0, ["won"])


@awaited
async def test_if_all_fail_the_first_answer_with_its_body(library: Any, clock: FakeClock, declare: Declare) -> None:
    first, second = scripted(library, b"first", status=503), scripted(library, b"second", status=502)
    dependency = declare(Hedge(delay=0.1))
    async with client(library, dependency, FaultyTransport([late(0.5, first), late(0.1, second)])) as http:
        response = await http.get("http://dep/")
        assert (response.status_code, response.text) == (503, "first")
        await anyio.sleep(0.01)
    assert second.body.closed == 1  # type: ignore[attr-defined]
    assert dependency.stats.snapshot().counts == {"success": 0, "failure": 1, "ignored": 0}


@awaited
async def test_ground_23_errors_come_as_they_are(library: Any, clock: FakeClock, declare: Declare) -> None:
    inner = FaultyTransport([late(0.5, fail(library.ReadError("first"))), late(0.1, fail(library.ConnectError("second")))])
    async with client(library, declare(Hedge(delay=0.1)), inner) as http:
        with pytest.raises(library.ReadError, match="first") as raised:
            await http.get("http://dep/")
    assert raised.value.request.url == "http://dep/"


def fail(error: Exception) -> Callable[[Any], Any]:
    def respond(request: Any) -> Any:
        raise error

    return respond


@awaited
async def test_hedge_10_pushback_stops_hedges(library: Any, clock: FakeClock, declare: Declare, listener: RecordingListener) -> None:
    def busy(request: Any) -> Any:
        return library.Response(503, headers={"retry-after": "2"})

    # With nobody else out the answer is the caller's; another one out, and the next waits until it is welcome.
    inner = FaultyTransport([late(0.05, busy), 200])
    async with client(library, declare(Hedge(delay=0.1, max_hedges=3)), inner) as http:
        assert (await http.get("http://dep/")).status_code == 503
    assert len(inner.requests) == 1

    inner = FaultyTransport([late(1, lambda request: library.Response(200)), late(0.05, busy), 200])
    began = clock.now()
    async with client(library, declare(Hedge(delay=0.1, max_hedges=3)), inner) as http:
        assert (await http.get("http://dep/")).status_code == 200
    assert (len(inner.requests), clock.now() - began) == (2, pytest.approx(1))

    inner = FaultyTransport([late(0.2, busy), 200])
    began = clock.now()
    async with client(library, declare(Hedge(delay=0.5, max_hedges=3, after_failure=True)), inner) as http:
        assert (await http.get("http://dep/")).status_code == 200
    assert clock.now() - began == pytest.approx(2.2)

    inner = FaultyTransport([late(0.2, busy), 200])
    listener.clear()
    async with client(library, declare(Timeout(total=2), Hedge(delay=0.5, after_failure=True)), inner) as http:
        assert (await http.get("http://dep/")).status_code == 503
    assert (len(inner.requests), results(listener)) == (1, ["pushback"])


@awaited
async def test_a_retry_around_it_sends_the_same_pair_again(library: Any, clock: FakeClock, declare: Declare) -> None:
    inner = FaultyTransport([late(0.3, lambda request: library.Response(503)), 503, late(0.05, lambda request: library.Response(200))])
    dependency = declare(*standard(retry=Retry(random=lambda: 0.0), hedge=Hedge(delay=0.1)))
    async with client(library, dependency, inner) as http:
        assert (await http.get("http://dep/")).status_code == 200
    assert len(inner.requests) == 3
    assert (dependency.bulkhead.in_use, dependency.budget.remaining_ratio() < 1) == (0, True)


@awaited
async def test_the_callers_cancellation_closes_what_is_open(library: Any, clock: FakeClock, declare: Declare) -> None:
    kept = scripted(library, b"kept", status=503)
    dependency = declare(*standard(hedge=Hedge(delay=0.1)))
    async with client(library, dependency, FaultyTransport([late(0.2, kept), HANG])) as http:
        with anyio.move_on_after(0.5) as scope:
            await http.get("http://dep/")
    assert scope.cancelled_caught
    assert (kept.body.closed, dependency.bulkhead.in_use) == (1, 0)  # type: ignore[attr-defined]


# -- real servers -----------------------------------------------------------------------------------------------------


class Uneven:
    """The first request on each address hangs until it is hung up on; the others are answered at once."""

    def __init__(self) -> None:
        self.asked = 0
        self.hung_up = threading.Event()

    async def __call__(self, peer: Peer) -> None:
        while await peer.request() is not None:
            self.asked += 1
            if self.asked == 1:
                await peer.reader.read()
                self.hung_up.set()
                return
            await peer.send(answer(200, b"answer"))


@awaited
async def test_over_the_librarys_own_pool(library: Any, declare: Declare) -> None:
    upstream = Uneven()
    dependency = declare(*standard(hedge=Hedge(delay=0.05)))
    with Server(upstream) as server:
        transport = library.ours.AsyncResilientTransport(dependency, verify=False, limits=library.Limits(max_connections=2))
        async with library.AsyncClient(transport=transport) as http:
            for _ in range(5):
                with anyio.fail_after(5):
                    assert (await http.get(server.url)).text == "answer"
            assert await anyio.to_thread.run_sync(upstream.hung_up.wait, 5), "the loser's connection is closed"
            with anyio.fail_after(5):
                while dependency.bulkhead.in_use or (transport._gate is not None and transport._gate.slots.in_use):
                    await anyio.sleep(0.001)
    assert upstream.asked == 6


def test_synchronous_over_the_librarys_own_pool(library: Any, declare: Declare) -> None:
    upstream = Uneven()
    dependency = declare(*standard(timeout=Timeout(total=5, attempt=0.5), hedge=Hedge(delay=0.05)))
    with Server(upstream) as server:
        with library.Client(transport=library.ours.ResilientTransport(dependency, verify=False)) as http:
            for _ in range(5):
                assert http.get(server.url).text == "answer"
            assert upstream.hung_up.wait(5), "a thread cannot be interrupted: its connection is closed when its time is over"
            for _ in range(5000):
                if not dependency.bulkhead.in_use:
                    break
                threading.Event().wait(0.001)
    assert (dependency.bulkhead.in_use, upstream.asked) == (0, 6)
    assert dependency.stats.snapshot().counts == {"success": 5, "failure": 0, "ignored": 0}
    assert dependency.breaker.fail_counter == 0


async def slow_body(peer: Peer) -> None:
    """The first connection says nothing; the second one takes its time over the body."""
    await peer.request()
    if peer.number == 1:
        await peer.reader.read()
        return
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbo")
    await asyncio.sleep(0.5)
    await peer.send(b"dy")
    await peer.reader.read()


@awaited
async def test_the_body_has_time_of_its_own(library: Any, declare: Declare) -> None:
    """The winner's attempt had 0.3 s, for its headers; the timeouts of its connection no longer go by that."""
    dependency = declare(*standard(timeout=Timeout(total=5, attempt=0.3), hedge=Hedge(delay=0.05)))
    with Server(slow_body) as server:
        async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, verify=False)) as http:
            assert (await http.get(server.url)).text == "body"


def test_the_body_has_time_of_its_own_sync(library: Any, declare: Declare) -> None:
    dependency = declare(*standard(timeout=Timeout(total=5, attempt=0.3), hedge=Hedge(delay=0.05)))
    with Server(slow_body) as server:
        with library.Client(transport=library.ours.ResilientTransport(dependency, verify=False)) as http:
            assert http.get(server.url).text == "body"
            until_idle(dependency)


# -- synchronous ------------------------------------------------------------------------------------------------------


class Gate:
    """The first answer waits until it is let go."""

    def __init__(self, first: Callable[[Any], Any]) -> None:
        self.let_go = threading.Event()
        self.first = first

    def __call__(self, request: Any) -> Any:
        assert self.let_go.wait(10)
        return self.first(request)


def test_ground_24_sync_first_good_answer_and_the_late_one_is_closed(library: Any, declare: Declare, listener: RecordingListener) -> None:
    unread = scripted(library, b"late")
    gate = Gate(unread)
    dependency = declare(*standard(hedge=Hedge(delay=0.01)))
    with client_of(library, dependency, FaultyTransport([gate, scripted(library, b"good")])) as http:
        assert http.get("http://dep/").text == "good"
        assert dependency.bulkhead.in_use == 1, "the loser still runs, and holds its slot"
        gate.let_go.set()
        until_idle(dependency)
    assert unread.body.closed == 1  # type: ignore[attr-defined]
    assert results(listener) == ["won"]
    assert dependency.stats.snapshot().counts == {"success": 1, "failure": 0, "ignored": 0}


def test_sync_an_error_waits_for_the_other(library: Any, declare: Declare) -> None:
    """The second attempt fails at once; the first one is let go only then."""
    gate = Gate(lambda request: library.Response(200, text="first"))

    def fails(request: Any) -> Any:
        gate.let_go.set()
        raise library.ReadError("second")

    dependency = declare(*standard(hedge=Hedge(delay=0.01)))
    with client_of(library, dependency, FaultyTransport([gate, fails])) as http:
        assert http.get("http://dep/").text == "first"
    until_idle(dependency)


def test_ground_23_sync_all_fail_and_the_first_error_comes_as_it_is(library: Any, declare: Declare) -> None:
    gate = Gate(fail(library.ReadError("first")))

    def fails(request: Any) -> Any:
        gate.let_go.set()
        return library.Response(503)

    dependency = declare(Hedge(delay=0.01))
    with client_of(library, dependency, FaultyTransport([gate, fails])) as http, pytest.raises(library.ReadError, match="first"):
        http.get("http://dep/")


def until_idle(dependency: Any) -> None:
    for _ in range(5000):
        if not dependency.bulkhead.in_use:
            return
        threading.Event().wait(0.001)
    raise AssertionError("a loser still holds its slot")
